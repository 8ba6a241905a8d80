"""`gatort profile --roofline`: how near a tick comes to what the machine could do, and what that means elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from gatort.policies.loading import CPU_ENGINES, PolicyOptions, precision_of
from gatort.policies.presets import PRESETS
from gatort.runtime.bundle import load_manifest
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import (
    ModelDims,
    PolicySpec,
    Precision,
)
from gatort.runtime.telemetry import Telemetry

from .rates import (
    Device,
    measure_cpu,
    measure_gpu,
)
from .work import (
    Rates,
    Storage,
    Work,
    floor_s,
    tick_work,
)

RTX_3090 = Rates(read_bytes_s=936e9, flop_s=71e12)
"""NVIDIA's figures: memory bandwidth, and float16 products with float32 sums on tensor cores."""
PROJECTED: tuple[Precision, ...] = ("fp16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Projection:
    """What one size would take on an RTX 3090 at the share of the floor that was reached here."""

    preset: str
    precision: Precision
    floor_ms: float
    paced_ms: float
    flat_out_ms: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """A tick's work, the machine's rates and the passes' measured times."""

    device: Device
    storage: Storage
    passes: tuple[Work, ...]
    """Prefill, then the decodes."""
    positions: tuple[int, ...]
    """t of each pass."""
    paced_ms: float
    """Median of the passes together, at the control rate."""
    flat_out_ms: float
    """The same, tick after tick."""

    @property
    def floor_ms(self) -> float:
        """The shortest that the passes could take here."""
        return 1e3 * floor_s(self.passes, self.device.rates)

    def share(self, measured_ms: float) -> float:
        """Of the floor that was reached; above 1 where memory was not what was read."""
        return self.floor_ms / measured_ms

    def bytes_s(self, measured_ms: float) -> float:
        """Bytes that the passes had to move, over the time that they took."""
        return 1e3 * sum(each.moved_bytes for each in self.passes) / measured_ms

    def share_of_bandwidth(self, measured_ms: float) -> float:
        """Of the memory's measured rate."""
        return self.bytes_s(measured_ms) / self.device.rates.read_bytes_s

    @property
    def fits_cache(self) -> bool:
        """Whether what each pass reads can stay in the last-level cache from one pass to the next."""
        return max(each.moved_bytes for each in self.passes) < self.device.cache_bytes

    def projections(self) -> tuple[Projection, ...]:
        """Every size of the paper in its frame, at each precision, on an RTX 3090; a share above 1 counts as 1."""
        paced, flat_out = (min(1.0, self.share(ms)) for ms in (self.paced_ms, self.flat_out_ms))
        return tuple(
            Projection(name, precision, floor_ms, floor_ms / paced, floor_ms / flat_out)
            for name, precision, floor_ms in _floors_on_rtx_3090()
        )

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        shares = {"paced": self.share(self.paced_ms), "flat_out": self.share(self.flat_out_ms)}
        return {
            **asdict(self),
            "floor_ms": self.floor_ms,
            "share_of_floor": shares,
            "share_of_bandwidth": {
                "paced": self.share_of_bandwidth(self.paced_ms),
                "flat_out": self.share_of_bandwidth(self.flat_out_ms),
            },
            "fits_cache": self.fits_cache,
            "projection_not_measurement_rtx_3090": [asdict(each) for each in self.projections()],
        }

    def report(self) -> Iterator[RenderableType]:
        """What is printed."""
        yield self._device_line()
        yield self._work_table()
        yield self._share_table()
        if self.fits_cache:
            yield (
                f"What a pass reads ({max(each.moved_bytes for each in self.passes) / 1e6:.1f} MB) fits in the "
                f"last-level cache ({self.device.cache_bytes / 1e6:.0f} MB): a share of the memory's bandwidth may "
                "exceed 100 %, and says little about a model that does not fit."
            )
        yield self._projection_table()

    def _device_line(self) -> str:
        device, rates = self.device, self.device.rates
        one = device.one_thread_read_bytes_s
        alone = "" if one is None else f" ({one / 1e9:.1f} with one thread)"
        return (
            f"{device.name}: {rates.read_bytes_s / 1e9:.1f} GB/s{alone}, {rates.flop_s / 1e12:.3g} TFLOP/s, "
            f"measured now by {device.how}"
        )

    def _work_table(self) -> Table:
        table = _table(
            "floor", "positions", "weights MB", "cache MB", "GFLOP", "floor ms", "bound by"
        )
        decodes = len(self.passes) - 1
        for index, name in enumerate(("prefill", f"decode ×{decodes}")[: 1 + bool(decodes)]):
            work = self.passes[index]
            memory = work.memory_s(self.device.rates) >= work.compute_s(self.device.rates)
            cells = _work_cells([work], 1e3 * work.floor_s(self.device.rates))
            table.add_row(
                name, str(self.positions[index]), *cells, "memory" if memory else "compute"
            )
        table.add_row(
            "tick", str(sum(self.positions)), *_work_cells(self.passes, self.floor_ms), ""
        )
        return table

    def _share_table(self) -> Table:
        table = _table("measured", "passes p50 ms", "of the floor", "GB/s", "of the bandwidth")
        for name, measured_ms in (("paced", self.paced_ms), ("flat out", self.flat_out_ms)):
            moved = self.bytes_s(measured_ms)
            bandwidth = self.share_of_bandwidth(measured_ms)
            cells = (f"{self.share(measured_ms):.0%}", f"{moved / 1e9:.1f}", f"{bandwidth:.0%}")
            table.add_row(name, f"{measured_ms:,.2f}", *cells)
        return table

    def _projection_table(self) -> Table:
        table = _table("RTX 3090", "precision", "floor ms", "paced share, ms", "flat-out share, ms")
        table.title = "projection, not measurement"
        table.caption = "936 GB/s and 71 TFLOP/s fp16; a share counts as 100 % at most, kernel launches do not count"
        for each in self.projections():
            times = (f"{ms:.1f}" for ms in (each.floor_ms, each.paced_ms, each.flat_out_ms))
            table.add_row(each.preset, each.precision, *times)
        return table


def assess(options: PolicyOptions, paced_ms: float, flat_out_ms: float) -> Roofline:
    """Count the bundle's tick, measure the device that ran it and put both beside the measured medians.

    Raises:
        MissingDependency: the engine is on a GPU, and PyTorch, which measures it, is not installed.
    """
    manifest, on_cpu = load_manifest(options.bundle), options.engine in CPU_ENGINES
    spec, exported = manifest.spec, manifest.precision
    storage = _storage(options, exported)
    return Roofline(
        device=measure_cpu() if on_cpu else measure_gpu(),
        storage=storage,
        passes=tick_work(spec, manifest.model, storage),
        positions=(spec.observation_tokens + 2, *[1] * (spec.action_tokens - 1)),
        paced_ms=paced_ms,
        flat_out_ms=flat_out_ms,
    )


def passes_p50_ms(telemetry: Telemetry) -> float:
    """Median of prefill and decodes together, over the ticks that reached their end.

    Raises:
        EngineError: none did.
    """
    within = [name.startswith(("prefill", "decode_", "passes")) for name in telemetry.stages]
    passes_ns = telemetry.stage_durations_ns()[:, within]  # (N, A or 1)
    whole_ns = passes_ns[passes_ns[:, -1] > 0].sum(axis=1)
    if not len(whole_ns):
        raise EngineError(
            "no tick came to the end of its passes: there is nothing to compare with the floor"
        )
    return float(np.median(whole_ns)) * 1e-6


def _storage(options: PolicyOptions, exported: Precision) -> Storage:
    """How the engine holds the model."""
    on_gpu, precision = options.engine not in CPU_ENGINES, precision_of(options, exported)
    half = precision == "fp16" or (on_gpu and precision != "fp32")
    return Storage(precision, float_bytes=2 if half else 4)


def _floors_on_rtx_3090() -> Iterator[tuple[str, Precision, float]]:
    """Preset, precision and floor in ms of the paper's sizes."""
    from gatort.sim.tasks.stacking.task import GATO_SPEC

    for name, dims in PRESETS.items():
        if name.startswith("gato-"):
            for precision in PROJECTED:
                yield name, precision, _floor_on_rtx_3090_ms(GATO_SPEC, dims, precision)


def _floor_on_rtx_3090_ms(spec: PolicySpec, dims: ModelDims, precision: Precision) -> float:
    return 1e3 * floor_s(tick_work(spec, dims, Storage(precision, float_bytes=2)), RTX_3090)


def _work_cells(passes: Sequence[Work], floor_ms: float) -> tuple[str, ...]:
    """Weights and cache in MB, GFLOP and floor of some passes together."""
    weights_mb = sum(each.weights_bytes for each in passes) / 1e6
    cache_mb = sum(each.cache_bytes for each in passes) / 1e6
    gflop = sum(each.flops for each in passes) / 1e9
    return f"{weights_mb:,.1f}", f"{cache_mb:,.1f}", f"{gflop:,.3f}", f"{floor_ms:,.2f}"


def _table(*columns: str) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
