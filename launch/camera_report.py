"""Tables, pictures and launch profiles of `gatort cameras`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.outputs import MARK, whole_file
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.calibration import CameraLens
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.devices import CameraDevice
from gatort.runtime.robots.cameras.measurement import CameraMeasurement
from gatort.runtime.robots.cameras.opencv import cv2, encode, kept_part, shrink
from gatort.runtime.robots.cameras.overlay import beside
from gatort.runtime.robots.cameras.placement import place_camera
from gatort.runtime.robots.cameras.pose import PoseError, compare_poses
from gatort.sim.camera_view import MOST_PIXELS, SimulatedView, simulated_view

from .outputs import real_path
from .report import alarming, percentile_record
from .toml_text import toml_text

PICTURE_HEIGHT: Final = MOST_PIXELS[0]
PNG_HEADER_BYTES: Final = 33
"""Size of a PNG's signature and first chunk."""


@dataclass(frozen=True, slots=True)
class ViewComparison:
    """A live picture beside the simulated one."""

    picture: NDArray[np.uint8]
    """(height, width, 3) RGB: live, simulated, overlay."""
    error: PoseError | None
    """Error of the placement, or `None` where no board is seen."""
    sentence: str
    """Sentence on the placement."""


def device_table(devices: Sequence[CameraDevice]) -> Table:
    """Lay out the connected cameras."""
    table = Table("source", "name")
    for device in devices:
        table.add_row(device.source, device.name)
    return table


def camera_table(measured: Mapping[str, CameraMeasurement]) -> Table:
    """Lay out measurements, one row per camera."""
    table = Table(title="ages and gaps: p50 / max in ms", title_justify="left")
    for column in ("camera", "size", "Hz", "age", "gap", "refused"):
        table.add_column(column, no_wrap=True)
    table.add_column("status")
    for name, each in measured.items():
        table.add_row(
            name,
            "×".join(map(str, each.frame_size)) if each.frame_size is not None else "–",
            f"{each.rate_hz:.1f}",
            f"{each.ages.p50_ms:.0f} / {each.ages.max_ms:.0f}",
            f"{each.gaps.p50_ms:.0f} / {each.gaps.max_ms:.0f}",
            alarming(str(each.refused), each.refused > 0),
            str(each.status),
        )
    return table


def camera_record(each: CameraMeasurement, comparison: ViewComparison | None) -> dict[str, Any]:
    """Return the JSON form of one camera."""
    error = comparison.error if comparison is not None else None
    return {
        "frame_size": each.frame_size,
        "rate_hz": each.rate_hz,
        "age_ms": percentile_record(each.ages),
        "gap_ms": percentile_record(each.gaps),
        "refused": each.refused,
        "status": asdict(each.status),
        "placement": None
        if error is None
        else {"offset_m": error.offset_m.tolist(), "angle_rad": error.angle_rad},
    }


def compare(
    camera: Camera,
    task: str,
    joints_rad: Sequence[float] | None,
    board: Board,
    fovy_rad: float | None,
) -> ViewComparison:
    """Put a camera's newest frame beside the picture of the scene's camera of its name.

    Raises:
        ConfigError: the scene has no camera of this name, or the posture is not valid.
        MissingDependency: MuJoCo, or a GL library, is absent.
    """
    frame, config = camera.intake.frame, camera.config
    if frame is None:
        raise ConfigError(f"{camera.key.name}: expected a frame, found none")
    proportion = config.width_px / config.height_px
    width = min(MOST_PIXELS[1], round(PICTURE_HEIGHT * proportion))
    height = round(width / proportion)
    view = simulated_view(task, camera.name, height, width, joints_rad)
    live = shrink(frame.pixels, config.crop, height, width)
    kept = np.ascontiguousarray(kept_part(frame.pixels, config.crop, proportion))
    error, sentence = _placement(kept, view, board, fovy_rad or view.fovy_rad)
    return ViewComparison(
        beside(live, view.picture, view.arm), error, f"{camera.key.name}: {sentence}"
    )


def _placement(
    kept: NDArray[np.uint8], view: SimulatedView, board: Board, fovy_rad: float
) -> tuple[PoseError | None, str]:
    try:
        placement = place_camera(
            kept, board, CameraLens.pinhole(kept.shape[1], kept.shape[0], fovy_rad)
        )
    except ObservationError as unseen:
        return None, f"no placement: {unseen}"
    error = compare_poses(placement.pose, view.pose)
    x, y, z = 100 * error.offset_m
    return error, (
        f"{100 * error.distance_m:.1f} cm and {np.degrees(error.angle_rad):.1f}° from the scene's "
        f"camera (x {x:+.1f}, y {y:+.1f}, z {z:+.1f} cm), from {placement.corners} corners that "
        f"fit to {placement.residual_px:.2f} px"
    )


def write_comparisons(path: Path, comparisons: Sequence[ViewComparison]) -> None:
    """Write all comparisons into one picture, one below the other.

    Only its owner may read it, because it may show people.
    """
    width = max(each.picture.shape[1] for each in comparisons)
    rows = [
        np.pad(each.picture, ((0, 0), (0, width - each.picture.shape[1]), (0, 0)))
        for each in comparisons
    ]
    rgb: Any = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    write_png(path, rgb, 0o600)


def write_png(
    path: Path, bgr: NDArray[np.uint8], mode: int = 0o666, width_m: float | None = None
) -> None:
    """Write a picture (height, width[, 3]) with gatort's mark in a text chunk (PNG, 11.3.3.2).

    Args:
        path: the file.
        bgr: the picture.
        mode: permissions of the file, from which the process's mask is taken.
        width_m: width at which a printer prints it at 100 % (PNG, 11.3.4.3).

    Raises:
        OutputError: the file cannot be written.
    """
    png = encode(bgr, ".png")
    chunks = _chunk(b"tEXtSoftware\0" + MARK.encode())
    if width_m is not None:
        per_m = round(bgr.shape[1] / width_m)
        chunks += _chunk(b"pHYs" + struct.pack(">IIB", per_m, per_m, 1))
    with whole_file(real_path(path)) as partial:
        partial.touch(mode)
        partial.write_bytes(png[:PNG_HEADER_BYTES] + chunks + png[PNG_HEADER_BYTES:])


def _chunk(content: bytes) -> bytes:
    """Return a chunk of a PNG: the content, which begins with its type, in a frame."""
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def profile_text(configs: Mapping[str, CameraConfig]) -> str:
    """Return `[cameras.NAME]` tables with every value that is not a default."""
    values = {name: config.model_dump(exclude_defaults=True) for name, config in configs.items()}
    return toml_text(values, "cameras")
