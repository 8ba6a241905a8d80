"""`gatort cameras`: the cameras that are there, how well they work, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from pydantic import Field, FiniteFloat, ValidationError
from rich.console import Console

from gatort.launch.camera_report import (
    ViewComparison,
    camera_record,
    camera_table,
    compare,
    device_table,
    profile_text,
    write_comparisons,
    write_png,
)
from gatort.launch.options import refuse_unused_by_board, resolve
from gatort.launch.outputs import real_path, require_writable, spared
from gatort.launch.refusals import findings, refuse_fields, refuse_ignored
from gatort.launch.report import screen, write_json
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, verdict
from gatort.runtime.outputs import whole_file
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig, CamerasProfile
from gatort.runtime.robots.cameras.devices import list_devices
from gatort.runtime.robots.cameras.measurement import CameraMeasurement, measure
from gatort.runtime.robots.cameras.placement import draw_board
from gatort.runtime.robots.cameras.rig import open_cameras
from gatort.runtime.spec import Strict
from gatort.sim.tasks import task_named

NO_DEVICE: Final = (
    "no V4L2 device and no RealSense camera found: connect one, or name a stream with "
    "--source front=http://HOST/stream"
)


Joints = tuple[
    FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat
]


class CheckOptions(Strict):
    """Duration of the measurement, and the scene to compare with."""

    seconds: Annotated[FiniteFloat, Field(gt=0, le=3600)] = 5.0
    """Duration of the measurement, in seconds."""
    task: str = "stacking"
    """Task whose scene the live picture is compared with."""
    joints: Joints | None = None
    """Joint angles of the arm (7 values, in rad). Default: the posture around which trials
    start."""
    fovy_rad: Annotated[FiniteFloat, Field(gt=0.05, lt=3.0)] | None = None
    """Vertical field of view of the kept part of the frame, in rad. Default: that of the scene's
    camera."""
    board: Board = Board()
    """Board on the table, and its place."""


def cameras(
    *,
    source: list[str] | None = None,
    profile: Path | None = None,
    picture: Path | None = None,
    print_board: Path | None = None,
    write: Path | None = None,
    json: Path | None = None,
    options: Annotated[CheckOptions | None, Parameter(name="*")] = None,
) -> int:
    """List the connected cameras, or measure sources and compare them with the simulated scene.

    Without a source it lists V4L2 devices and RealSense cameras. With sources it prints rate, age,
    gaps and faults of each. Exit status 1 when a picture was refused meanwhile.

    Parameters
    ----------
    source
        Camera to measure, NAME=SOURCE, such as front=v4l2:/dev/video0. May be given several times.
    profile
        Launch profile whose `[cameras.NAME]` tables are measured instead.
    picture
        Write the live picture, the simulated one and an overlay of both into this .png file, and
        estimate the error of placement from a board.
    print_board
        Write the board into this .png file, to be printed at 100 %.
    write
        Write the cameras as tables of a new launch profile.
    json
        Write the measurements to this file as well.
    """
    _require_used(options, source, profile, picture, print_board, write, json)
    typed = options
    options = resolve(CheckOptions, options, None)
    refuse_unused_by_board(typed.board if typed is not None else None, options.board.kind)
    require_writable(picture=picture, print_board=print_board, write=write, json=json)
    console = screen(json)
    configs = _configs(source or [], profile)
    if picture is not None:
        task_named(options.task)
    if print_board is not None:
        write_png(print_board, draw_board(options.board), width_m=options.board.width_m)
        console.print(f"board: {print_board}")
    if source is None and profile is None:
        return _list(console) if print_board is None else ExitStatus.DONE

    clock = MonotonicClock()
    with ExitStack() as stack:
        opened = open_cameras(configs, lambda name, config: Camera(name, config, clock))
        for camera in opened:
            stack.callback(camera.close)
        measured = _measure(opened, clock, options.seconds)
        console.print(camera_table(measured))
        comparisons = _compare(opened, options, console) if picture is not None else {}

    if picture is not None:
        with spared("picture"):
            write_comparisons(picture, list(comparisons.values()))
            console.print(f"live, simulated, overlay: {picture}")
    if write is not None:
        with spared("launch profile"), whole_file(real_path(write)) as partial:
            partial.write_text(profile_text(_with_sizes(configs, measured)), encoding="utf-8")
            console.print(f"launch profile: {write}")
    records = {name: camera_record(each, comparisons.get(name)) for name, each in measured.items()}
    write_json(json, "cameras", {"cameras": records})
    return verdict(not any(each.refused for each in measured.values()))


def _require_used(
    options: CheckOptions | None,
    source: list[str] | None,
    profile: Path | None,
    picture: Path | None,
    print_board: Path | None,
    write: Path | None,
    json: Path | None,
) -> None:
    """Refuse flags that need a camera, a picture or a board, without one."""
    if source is None and profile is None:
        because = "without a camera (--source or --profile)"
        refuse_ignored(because, picture=picture, write=write, json=json)
        refuse_fields(because, options, "seconds")
    if picture is None:
        refuse_fields("without --picture", options, "task", "joints", "fovy_rad")
        if print_board is None:
            refuse_fields("without --picture or --print-board", options, "board")


def _list(console: Console) -> int:
    devices = list_devices()
    console.print(device_table(devices) if devices else NO_DEVICE)
    return ExitStatus.DONE


def _configs(sources: Sequence[str], profile: Path | None) -> dict[str, CameraConfig]:
    """Return the cameras of a profile, and those of the command line.

    Raises:
        ConfigError: a name, a source or the profile is not valid.
    """
    configs = dict(resolve(CamerasProfile, None, profile).cameras) if profile is not None else {}
    named: set[str] = set()
    for text in sources:
        name, _, address = text.partition("=")
        if name in named:
            raise ConfigError(
                f"--source {text}: expected each name once, found {name!r} again; "
                "give the camera another name"
            )
        named.add(name)
        try:
            given = CamerasProfile.model_validate({"cameras": {name: {"source": address}}})
        except ValidationError as error:
            raise ConfigError(f"--source {text}: {findings(error)}") from error
        configs |= given.cameras
    return configs


def _measure(
    cameras: Sequence[Camera], clock: MonotonicClock, seconds: float
) -> dict[str, CameraMeasurement]:
    """Measure cameras one after the other, so that their loops do not disturb each other."""
    return {camera.name: measure(camera, clock, seconds) for camera in cameras}


def _compare(
    cameras: Sequence[Camera], options: CheckOptions, console: Console
) -> dict[str, ViewComparison]:
    compared = {}
    for camera in cameras:
        compared[camera.name] = compare(
            camera, options.task, options.joints, options.board, options.fovy_rad
        )
        console.print(compared[camera.name].sentence)
    return compared


def _with_sizes(
    configs: dict[str, CameraConfig], measured: dict[str, CameraMeasurement]
) -> dict[str, CameraConfig]:
    """Return the cameras with the frame sizes that were found, so that another size is refused."""
    return {
        name: config.model_copy(update={"frame_size": measured[name].frame_size})
        for name, config in configs.items()
    }
