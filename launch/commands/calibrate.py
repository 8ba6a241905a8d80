"""`gatort calibrate`: the lens of a fixed camera, and its place in front of the arm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from numpy.typing import NDArray

from gatort.launch.options import refuse_unused_by_board, resolve
from gatort.launch.outputs import real_path
from gatort.launch.refusals import refuse_fields
from gatort.launch.report import progress_bar, screen
from gatort.launch.tag_options import CalibrateOptions
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, ObservationError, SpecError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.outputs import require_place, whole_file
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.robot import Robot
from gatort.runtime.robots.cameras.calibration import CameraCalibration, CameraLens, CameraPlace
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import require_source
from gatort.runtime.robots.cameras.placement import place_camera
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import PROPRIOCEPTION
from gatort.runtime.robots.tags.calibrate import fit_lens, fit_place
from gatort.runtime.robots.tags.collect import BOARDS, HANDS, BoardPictures, HandPictures
from gatort.runtime.robots.tags.finder import CubeFinder, in_grey

LOOK_NS = 50_000_000
"""Time between two looks at the camera."""
REFUSED_NS = 10_000_000_000
"""Longest time without a good look. A shorter one must not cost the pictures taken by then."""


def calibrate(
    camera: str,
    /,
    *,
    options: Annotated[CalibrateOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    place: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure the lens of a camera, or its place.

    For the lens, move a printed board in front of the camera. For the place, lay the board at a
    known place of the table. Or close the hand around a tagged cube, give --robot and --held, and
    guide the arm by hand. Pictures are taken by themselves. The result goes into the camera's
    calibration file.

    Parameters
    ----------
    camera
        Name of the camera in the profile.
    profile
        Launch profile with `[cameras.NAME]`, `[calibrations]` and, for a cube, `[cubes.NAME]`.
    place
        Measure the place. The lens is known already.
    """
    if not place:
        refuse_fields("without --place", options, "robot", "held", "keys")
    typed = options
    options = resolve(CalibrateOptions, options, profile)
    if options.robot is not None:
        refuse_fields("with --robot, whose hand holds a cube", typed, "board")
    else:
        refuse_fields("without --robot", typed, "keys")
    refuse_unused_by_board(typed.board if typed is not None else None, options.board.kind)
    options.require(profile, "cameras", "calibrations")
    for table in ("cameras", "calibrations"):
        if camera not in (names := getattr(options, table)):
            raise ConfigError(
                f"expected a camera of [{table}] ({', '.join(names)}), found {camera!r}"
            )
    if place:
        _require_held(options, profile)
    path = options.calibrations[camera]
    require_place(path)
    lens = options.calibration(camera).lens if place else None
    require_source(camera, options.cameras[camera])
    clock = MonotonicClock()
    with closing(Camera(camera, options.cameras[camera], clock)) as opened:
        opened.wait()
        if lens is None:
            measured = CameraCalibration(lens=_lens(opened, options, clock))
        else:
            measured = CameraCalibration(lens=lens, place=_place(opened, lens, options, clock))
    with whole_file(real_path(path)) as partial:
        partial.write_text(measured.text, encoding="utf-8")
    screen().print(f"calibration of {camera}: {path}")
    return ExitStatus.DONE


def _require_held(options: CalibrateOptions, profile: Path | None) -> None:
    """Check that a robot and the cube in its hand are named together."""
    if options.robot is None:
        if options.held is not None:
            raise ConfigError("--held is for a cube in the hand of a robot: name it with --robot")
        return
    options.require(profile, "cubes")
    if options.held not in options.cubes:
        raise ConfigError(
            f"--held: expected the cube in the hand, one of {', '.join(options.cubes)}, "
            f"found {options.held or 'none'}"
        )


def _lens(camera: Camera, options: CalibrateOptions, clock: MonotonicClock) -> CameraLens:
    boards = BoardPictures(options.board)
    height, width = _picture(camera).shape

    def look() -> tuple[str, int]:
        wish = boards.offer(_picture(camera))
        tilted = f"{boards.tilted_left} more must be tilted" if boards.tilted_left else ""
        return "; ".join(filter(None, (tilted, wish))), boards.left

    _collect("pictures", BOARDS, look, clock)
    lens = fit_lens(boards.views, (width, height))
    screen().print(f"the lens fits {len(boards.views)} pictures to {lens.residual_px:.2f} px")
    return lens


def _place(
    camera: Camera, lens: CameraLens, options: CalibrateOptions, clock: MonotonicClock
) -> CameraPlace:
    if options.robot is not None:
        keys = ControllerKeys.load(options.keys) if options.keys is not None else None
        with closing(RemoteRobot(options.robot, clock, keys)) as robot:
            return _place_by_hand(camera, lens, robot, options, clock)
    found = place_camera(_picture(camera), options.board, lens)
    screen().print(f"the place fits {found.corners} corners to {found.residual_px:.2f} px")
    return CameraPlace.of(found.pose, found.residual_px)


def _place_by_hand(
    camera: Camera, lens: CameraLens, robot: Robot, options: CalibrateOptions, clock: MonotonicClock
) -> CameraPlace:
    hands = HandPictures(CubeFinder(options.cubes), options.held or "")
    joints, _, width = PROPRIOCEPTION
    place = _place_of(joints.name, robot)
    _place_of(width.name, robot)  # An arm without a hand holds no cube.

    def look() -> tuple[str, int]:
        position = robot.observe().values[place].astype(float)
        wish = hands.is_ready(position, clock.now_ns())
        if not wish:
            wish = hands.offer(_picture(camera), position, *tool_pose(position))
        return wish, hands.left

    _collect("postures", HANDS, look, clock)
    found = fit_place(hands.views, lens)
    screen().print(
        f"the place fits {len(hands.views)} postures to {found.place.residual_px:.2f} px; "
        f"the cube seems to move in the hand by {found.spread_mm:.1f} mm"
    )
    return found.place


def _place_of(key: str, robot: Robot) -> int:
    names = [each.name for each in robot.interface.observations]
    if key not in names:
        raise SpecError(
            f"--held: expected a robot that offers {key}, found {', '.join(names)}: start "
            "`gatort robot` for an arm with a hand, and leave out --hand none"
        )
    return names.index(key)


def _picture(camera: Camera) -> NDArray[Any]:
    """Return the newest whole frame of a camera in grey, (height, width).

    Raises:
        ObservationError: the camera has nothing fresh.
    """
    camera.read()
    frame = camera.intake.frame
    if frame is None:
        raise ConfigError(f"{camera.name}: expected a frame, found none")
    return in_grey(frame.pixels[..., ::-1])


def _collect(
    noun: str, wanted: int, look: Callable[[], tuple[str, int]], clock: MonotonicClock
) -> None:
    """Look again and again until enough pictures were taken. Show the number of missing ones.

    Raises:
        ObservationError: the camera or the arm was refused for `REFUSED_NS`.
    """
    good_ns = clock.now_ns()
    with progress_bar(noun) as bars:
        bar = bars.add_task("", total=wanted)
        left = wanted
        while left > 0:
            try:
                wish, left = look()
                good_ns = clock.now_ns()
            except ObservationError as error:
                if clock.now_ns() - good_ns >= REFUSED_NS:
                    raise
                wish = str(error)
            bars.update(bar, completed=wanted - left, description=wish)
            clock.sleep_until_ns(clock.now_ns() + LOOK_NS)
