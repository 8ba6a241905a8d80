"""`gatort poses`: poses of tagged cubes from calibrated cameras, published for a policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.live import Live
from rich.table import Table

from gatort.launch.options import resolve
from gatort.launch.outputs import require_writable
from gatort.launch.refusals import refuse_fields
from gatort.launch.report import screen
from gatort.launch.tag_options import PosesOptions
from gatort.launch.tag_sheet import draw_sheets
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, verdict
from gatort.runtime.robots.cameras.config import require_source
from gatort.runtime.robots.tags.cubes import TaggedCube, require_own_tags
from gatort.runtime.robots.tags.finder import CubePose
from gatort.runtime.robots.tags.stream import MeasuredFrame, PoseStream
from gatort.sim.tasks import TASKS

REFRESH_NS = 250_000_000
"""Shortest time between two drawings of the table."""


def poses(
    *,
    options: Annotated[PosesOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_tags: Path | None = None,
) -> int:
    """Publish the poses of cubes with AprilTags for a policy.

    Fixed cameras look at the cubes. `gatort calibrate` measures their lenses and places.
    `gatort run --sensor` takes the poses. Ctrl-C ends the command. Exit status 1 when a cube was
    never seen.

    Parameters
    ----------
    profile
        Launch profile with `[cameras.NAME]`, `[cubes.NAME]` and `[calibrations]`.
    print_tags
        Write the faces of the cubes into this .pdf file, to be printed at its exact size, and end.
    """
    if print_tags is not None:
        refuse_fields("with --print-tags", options, "address", "seconds")
    options = resolve(PosesOptions, options, profile)
    options.require(profile, "cubes")
    require_writable(print_tags=print_tags)
    if print_tags is not None:
        _require_fit(options.cubes)
        draw_sheets(print_tags, options.cubes)
        screen().print(f"tags: {print_tags}")
        return ExitStatus.DONE

    options.require(profile, "cameras", "calibrations")
    calibrations = {name: options.calibration(name) for name in options.calibrations}
    for name, config in options.cameras.items():
        require_source(name, config)
    clock = MonotonicClock()
    stream = PoseStream(options.cubes, options.cameras, calibrations, options.address, clock)
    with closing(stream):
        for camera in stream.cameras:
            camera.wait()
        seen = _publish(stream, options, clock)
    return verdict(seen.keys() >= options.cubes.keys())


def _require_fit(cubes: Mapping[str, TaggedCube]) -> None:
    """Check that no tag is on two cubes, and that a policy can be for their sizes.

    Raises:
        ConfigError: a tag is on two cubes, or a cube is too small or too large.
    """
    require_own_tags(cubes)
    for name, cube in cubes.items():
        for task in TASKS.values():
            if unfit := task.unfit_edge(name, cube.edge_m):
                raise ConfigError(f"cubes.{unfit}")


def _publish(stream: PoseStream, options: PosesOptions, clock: MonotonicClock) -> Counter[str]:
    """Publish until the end of the time or Ctrl-C. Return in how many frames each cube was seen."""
    console = screen()
    console.print(f"publishing at {stream.address}: gatort run --sensor {stream.address} …")
    seen: Counter[str] = Counter()
    frames, drawn_ns, began_ns = 0, 0, clock.now_ns()
    newest: MeasuredFrame | None = None
    with Live(console=console, auto_refresh=False) as live:
        while options.seconds is None or clock.now_ns() - began_ns < options.seconds * 1e9:
            if (measured := stream.measure()) is not None:
                newest = measured
                frames += 1
                seen.update(pose.name for pose in measured.poses)
            if newest is not None and clock.now_ns() - drawn_ns >= REFRESH_NS:
                drawn_ns = clock.now_ns()
                table = _table(newest, options, seen, frames, stream.troubles)
                live.update(table, refresh=True)
    return seen


def _table(
    measured: MeasuredFrame,
    options: PosesOptions,
    seen: Mapping[str, int],
    frames: int,
    troubles: Sequence[str],
) -> Table:
    title = f"{measured.camera}: frame {frames}, {measured.age_ms:.0f} ms old when published"
    unfit = (f"{name}: {reason}" for name, reason in measured.unfit.items())
    caption = "\n".join((*troubles, *unfit))
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in ("cube", "x, m", "y, m", "z, m", "tags", "misfit, px", "seen"):
        table.add_column(column, justify="left" if column == "cube" else "right")
    found = {pose.name: pose for pose in measured.poses}
    for name in options.cubes:
        table.add_row(name, *_cells(found.get(name)), f"{seen.get(name, 0) / frames:.0%}")
    return table


def _cells(pose: CubePose | None) -> list[str]:
    if pose is None:
        return ["–"] * 5
    place = [f"{metres:.4f}" for metres in pose.position_m]
    return [*place, str(pose.tags), f"{pose.residual_px:.2f}"]
