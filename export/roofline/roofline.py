"""Share of a machine's possible speed that a tick reaches, and its projection on an RTX 3090."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gatort.policies.loading import CPU_ENGINES, PolicyOptions, precision_of
from gatort.policies.presets import PRESETS
from gatort.runtime.bundle import load_manifest
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import ModelDims, PolicySpec, Precision
from gatort.runtime.telemetry import Telemetry

from .rates import Device
from .work import Rates, Storage, Work, floor_s, tick_work

RTX_3090 = Rates(read_bytes_s=936e9, flop_s=71e12)
"""NVIDIA's figures: memory bandwidth, and float16 products with float32 sums on tensor cores."""
PROJECTED: tuple[Precision, ...] = ("fp16", "int8", "int4")
"""Precisions of the projection."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Time of one model size on an RTX 3090, at the share of the floor that was reached here."""

    preset: str
    """Name of the size."""
    precision: Precision
    """Precision of the weights."""
    floor_ms: float
    """Least time of a tick's passes on an RTX 3090."""
    paced_ms: float
    """Time at the share that ticks at the control rate reached."""
    flat_out_ms: float
    """Time at the share that back-to-back ticks reached."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """A tick's work, the machine's rates and the measured times of the passes."""

    device: Device
    """Device that ran the passes."""
    storage: Storage
    """Size of the engine's numbers in memory."""
    passes: tuple[Work, ...]
    """Work of the prefill, then of each decode."""
    positions: tuple[int, ...]
    """Positions t of each pass."""
    paced_ms: float
    """Median time of a tick's passes at the control rate."""
    flat_out_ms: float
    """Median time of a tick's passes in back-to-back ticks."""

    @property
    def floor_ms(self) -> float:
        """Least time of the passes on this device."""
        return 1e3 * floor_s(self.passes, self.device.rates)

    def share(self, measured_ms: float) -> float:
        """Return the reached share of the floor; above 1 where passes read from a cache."""
        return self.floor_ms / measured_ms

    def bytes_s(self, measured_ms: float) -> float:
        """Return the bytes that the passes had to move, divided by their time."""
        return 1e3 * sum(each.moved_bytes for each in self.passes) / measured_ms

    def share_of_bandwidth(self, measured_ms: float) -> float:
        """Return the reached share of the memory's measured bandwidth."""
        return self.bytes_s(measured_ms) / self.device.rates.read_bytes_s

    @property
    def largest_pass_bytes(self) -> float:
        """Bytes that the largest pass moves."""
        return max(each.moved_bytes for each in self.passes)

    @property
    def fits_cache(self) -> bool:
        """True if the data of each pass can stay in the last-level cache until the next pass."""
        return self.largest_pass_bytes < self.device.cache_bytes

    def projections(self, frame: PolicySpec) -> tuple[Projection, ...]:
        """Project every size of the paper at each precision; a share above 1 counts as 1.

        Args:
            frame: specification of the paper's frame.
        """
        paced = min(1.0, self.share(self.paced_ms))
        flat_out = min(1.0, self.share(self.flat_out_ms))
        return tuple(
            Projection(name, precision, floor_ms, floor_ms / paced, floor_ms / flat_out)
            for name, precision, floor_ms in _floors_on_rtx_3090(frame)
        )

    def record(self, frame: PolicySpec) -> dict[str, Any]:
        """Return the JSON form.

        Args:
            frame: specification of the paper's frame, for the projection.
        """
        times = {"paced": self.paced_ms, "flat_out": self.flat_out_ms}
        return {
            **asdict(self),
            "floor_ms": self.floor_ms,
            "share_of_floor": {name: self.share(ms) for name, ms in times.items()},
            "share_of_bandwidth": {name: self.share_of_bandwidth(ms) for name, ms in times.items()},
            "fits_cache": self.fits_cache,
            "projection_not_measurement_rtx_3090": [
                asdict(each) for each in self.projections(frame)
            ],
        }


def assess(options: PolicyOptions, device: Device, paced_ms: float, flat_out_ms: float) -> Roofline:
    """Count the work of the bundle's tick and set it beside the measured rates and times.

    Args:
        options: bundle and engine.
        device: device that the engine runs on, as measured.
        paced_ms: median time of the passes at the control rate.
        flat_out_ms: median time of the passes in back-to-back ticks.
    """
    manifest = load_manifest(options.bundle)
    spec = manifest.spec
    storage = storage_of(options, manifest.precision)
    return Roofline(
        device=device,
        storage=storage,
        passes=tick_work(spec, manifest.model, storage),
        positions=(spec.observation_tokens + 2, *[1] * (spec.action_tokens - 1)),
        paced_ms=paced_ms,
        flat_out_ms=flat_out_ms,
    )


def passes_p50_ms(telemetry: Telemetry) -> float:
    """Return the median of prefill and decodes together, over the ticks that reached their end.

    The stage `see` is a part of the prefill. It holds the taking of the pictures too, which is
    nothing with a scripted robot.

    Raises:
        EngineError: no tick reached its end.
    """
    within = [name.startswith(("see", "prefill", "decode_", "passes")) for name in telemetry.stages]
    passes_ns = telemetry.stage_durations_ns()[:, within]  # (N, A or 1)
    whole_ns = passes_ns[passes_ns[:, -1] > 0].sum(axis=1)
    if not len(whole_ns):
        raise EngineError(
            "expected ticks that completed their passes, found none to compare with the floor"
        )
    return float(np.median(whole_ns)) * 1e-6


def storage_of(options: PolicyOptions, exported: Precision) -> Storage:
    """Return the size of the engine's numbers in memory.

    Args:
        options: engine and requested precision.
        exported: precision of the bundle's graph.
    """
    precision = precision_of(options, exported)
    on_gpu = options.engine not in CPU_ENGINES
    half = precision == "fp16" or (on_gpu and precision != "fp32")
    return Storage(precision, float_bytes=2 if half else 4)


def _floors_on_rtx_3090(frame: PolicySpec) -> Iterator[tuple[str, Precision, float]]:
    """Yield preset, precision and floor in ms of the paper's sizes."""
    for name, dims in PRESETS.items():
        if name.startswith("gato-"):
            for precision in PROJECTED:
                yield name, precision, _floor_on_rtx_3090_ms(frame, dims, precision)


def _floor_on_rtx_3090_ms(frame: PolicySpec, dims: ModelDims, precision: Precision) -> float:
    return 1e3 * floor_s(tick_work(frame, dims, Storage(precision, float_bytes=2)), RTX_3090)
