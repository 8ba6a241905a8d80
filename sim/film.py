"""Films and single frames of a run, drawn after it from recorded positions; MuJoCo and GL are loaded here alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import (
    ConfigError,
    MissingDependency,
    RobotError,
)
from gatort.runtime.packages import installed_version
from gatort.sim.graphics import (
    INSTALL_HINT,
    choose_gl,
)

if TYPE_CHECKING:
    import mujoco

    from gatort.sim.tasks.stacking.task import Layout

FILM_SIZE = (480, 640)
"""Height and width of a film. px"""
FILM_CAMERA = "view"
FFMPEG_HINT = "films need ffmpeg: pip install 'gatort[sim]'"


def film_obstacle(path: Path) -> str | None:
    """Why no film can be made, and what mends it; call this before MuJoCo is first imported.

    Returns:
        Nothing when there is no obstacle. What is missing for a film is not worth a run.

    Raises:
        ConfigError: the name does not end like a film.
    """
    if path.suffix != ".mp4":
        raise ConfigError(f"--video {path}: expected a name that ends in .mp4")
    if installed_version("imageio-ffmpeg") is None:
        return FFMPEG_HINT
    return INSTALL_HINT if choose_gl() is None else None


def film(path: Path, layout: Layout, positions: NDArray[np.float64], hz: int) -> None:
    """Draw a robot's positions (N, 30) among blocks of a layout into a film of N frames at `hz` frames a second.

    Raises:
        MissingDependency: ffmpeg is absent.
        RobotError: no GL context can be made.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingDependency(FFMPEG_HINT) from error

    from gatort.sim.simulators.mujoco import load_model

    height, width = FILM_SIZE
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=hz, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for picture in _draw(load_model(layout), positions, FILM_SIZE, FILM_CAMERA):
            writer.send(picture)
    finally:
        writer.close()


def time_one_frame() -> tuple[float, float]:
    """Draw the front camera at 64×64 twice; the second one's duration in ms, and its mean brightness in [0, 255].

    Raises:
        RobotError: no GL context can be made.
    """
    from gatort.sim.simulators.mujoco import load_model

    clock, model = MonotonicClock(), load_model()
    frames = _draw(model, np.stack([model.qpos0] * 2), (64, 64), "front")
    next(frames)
    start_ns = clock.now_ns()
    picture = next(frames)
    return (clock.now_ns() - start_ns) * 1e-6, float(picture.mean())


def _draw(
    model: mujoco.MjModel, positions: NDArray[np.float64], size: tuple[int, int], camera: str
) -> Iterator[NDArray[np.uint8]]:
    import mujoco

    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:  # PyOpenGL raises whatever its library did
        raise RobotError(f"no picture: {error}; {INSTALL_HINT}") from error
    try:
        for position in positions:
            data.qpos[:] = position
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=camera)
            yield renderer.render()
    finally:
        renderer.close()
