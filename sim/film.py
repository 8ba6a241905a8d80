"""Films and single frames of a run, drawn after it from recorded positions, always by MuJoCo."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, MissingDependency, OutputError, RobotError
from gatort.runtime.outputs import MARK, whole_file
from gatort.runtime.packages import installed_version

from .graphics import INSTALL_HINT, choose_gl
from .insets import with_insets
from .simulators.simulator import Scene
from .tasks import TASKS
from .tasks.task import Layout

if TYPE_CHECKING:
    import mujoco

FILM_SIZE = (480, 640)
"""Height and width of a film. px"""
FILM_CAMERA = "view"
"""Camera of panda.xml that films use."""
FFMPEG_HINT = "films need ffmpeg: pip install 'gatort[sim]'"


def film_obstacle(path: Path) -> str | None:
    """Return why no film can be made and how to mend it, or `None` if one can.

    Call this before MuJoCo is first imported.

    Raises:
        ConfigError: the name does not end in .mp4.
    """
    if path.suffix != ".mp4":
        raise ConfigError(f"--video {path}: expected a name that ends in .mp4")
    if installed_version("imageio-ffmpeg") is None:
        return FFMPEG_HINT
    return INSTALL_HINT if choose_gl() is None else None


def film(
    path: Path,
    scene: Scene,
    layout: Layout,
    positions: NDArray[np.float64],
    hz: int,
    pictures: Sequence[NDArray[np.uint8]] = (),
) -> None:
    """Draw the positions of a robot into a film.

    Args:
        path: file to write, .mp4.
        scene: scene of the robot's task.
        layout: layout of the trial; cubes get its sizes.
        positions: one row of `Simulator.positions` a frame, (N, 9 + 7·bodies).
        hz: frames a second.
        pictures: pictures of each camera at each frame, (N, height, width, 3), shown as insets.
            Frames beyond the last have none.

    Raises:
        MissingDependency: ffmpeg is absent.
        RobotError: no GL context can be made.
        OutputError: the file cannot be written.
    """
    if installed_version("imageio-ffmpeg") is None:
        raise MissingDependency(FFMPEG_HINT)

    from .simulators.mujoco import load_model

    with whole_file(path) as partial:
        writer = _writer(partial, hz)
        try:
            frames = _draw(load_model(scene, layout.cubes), positions, FILM_SIZE, FILM_CAMERA)
            for index, frame in enumerate(frames):
                seen = [camera[index] for camera in pictures if index < len(camera)]
                writer.send(with_insets(frame, seen))
        except OSError as error:
            raise OutputError(_unfinished(path)) from error
        finally:
            writer.close()
        # The mark comes last, and ffmpeg's own end is not told.
        if not partial.exists() or MARK.encode() not in partial.read_bytes():
            raise OutputError(_unfinished(path))


def _writer(path: Path, hz: int) -> Generator[None, NDArray[np.uint8] | None, None]:
    """Start ffmpeg. The writer takes one frame after another."""
    import imageio_ffmpeg

    height, width = FILM_SIZE
    writer: Generator[None, NDArray[np.uint8] | None, None] = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=hz,
        ffmpeg_log_level="fatal",
        output_params=["-metadata", f"comment={MARK}", "-f", "mp4"],
    )
    writer.send(None)
    return writer


def _unfinished(path: Path) -> str:
    return f"cannot write {path}: ffmpeg could not finish the film; is the disk full?"


def time_one_frame() -> tuple[float, float]:
    """Draw the front camera at 64×64 twice. Return the second frame's duration in ms and its mean
    brightness.

    The brightness lies in [0, 255].

    Raises:
        RobotError: no GL context can be made.
    """
    import mujoco

    from .simulators.mujoco import load_model, positions_of

    clock = MonotonicClock()
    model = load_model(next(iter(TASKS.values())).scene)
    at_start = positions_of(mujoco.MjData(model))
    frames = _draw(model, np.stack([at_start] * 2), (64, 64), "front")
    next(frames)
    start_ns = clock.now_ns()
    picture = next(frames)
    return (clock.now_ns() - start_ns) * 1e-6, float(picture.mean())


def _draw(
    model: mujoco.MjModel, positions: NDArray[np.float64], size: tuple[int, int], camera: str
) -> Iterator[NDArray[np.uint8]]:
    import mujoco

    from .simulators.mujoco import show_positions

    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:  # PyOpenGL raises errors of many classes.
        raise RobotError(f"no picture: {error}; {INSTALL_HINT}") from error
    try:
        for position in positions:
            show_positions(model, data, position)
            renderer.update_scene(data, camera=camera)
            yield renderer.render()
    finally:
        renderer.close()
