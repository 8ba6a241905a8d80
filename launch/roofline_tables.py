"""Tables of `gatort profile --roofline`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from gatort.export.roofline.rates import Device
from gatort.export.roofline.roofline import Projection, Roofline
from gatort.export.roofline.work import Work
from gatort.runtime.spec import PolicySpec


def roofline_report(found: Roofline, frame: PolicySpec) -> Iterator[RenderableType]:
    """Yield the parts of the report in the order in which they are printed.

    Args:
        found: work, rates and times.
        frame: specification of the paper's frame, for the projection.
    """
    yield _device_line(found.device)
    yield _work_table(found)
    yield _share_table(found)
    if found.fits_cache:
        yield (
            f"The data of a pass ({found.largest_pass_bytes / 1e6:.1f} MB) fits in the last-level "
            f"cache ({found.device.cache_bytes / 1e6:.0f} MB). A share of the memory's bandwidth "
            "may therefore exceed 100 %, and predicts little for a model that does not fit."
        )
    yield _projection_table(found.projections(frame))


def _device_line(device: Device) -> str:
    rates = device.rates
    one = device.one_thread_read_bytes_s
    alone = "" if one is None else f" ({one / 1e9:.1f} with one thread)"
    return (
        f"{device.name}: {rates.read_bytes_s / 1e9:.1f} GB/s{alone}, "
        f"{rates.flop_s / 1e12:.3g} TFLOP/s, measured now by {device.how}"
    )


def _work_table(found: Roofline) -> Table:
    table = _table("floor", "positions", "weights MB", "cache MB", "GFLOP", "floor ms", "bound by")
    rates = found.device.rates
    decodes = len(found.passes) - 1
    for index, name in enumerate(("prefill", f"decode ×{decodes}")[: 2 if decodes else 1]):
        work = found.passes[index]
        bound = "memory" if work.memory_s(rates) >= work.compute_s(rates) else "compute"
        cells = _work_cells([work], 1e3 * work.floor_s(rates))
        table.add_row(name, str(found.positions[index]), *cells, bound)

    cells = _work_cells(found.passes, found.floor_ms)
    table.add_row("tick", str(sum(found.positions)), *cells, "")
    return table


def _share_table(found: Roofline) -> Table:
    table = _table("measured", "passes p50 ms", "of the floor", "GB/s", "of the bandwidth")
    for name, measured_ms in (("paced", found.paced_ms), ("flat out", found.flat_out_ms)):
        table.add_row(
            name,
            f"{measured_ms:,.2f}",
            f"{found.share(measured_ms):.0%}",
            f"{found.bytes_s(measured_ms) / 1e9:.1f}",
            f"{found.share_of_bandwidth(measured_ms):.0%}",
        )
    return table


def _projection_table(projections: Sequence[Projection]) -> Table:
    table = _table("RTX 3090", "precision", "floor ms", "paced share, ms", "flat-out share, ms")
    table.title = "projection, not measurement"
    table.caption = (
        "936 GB/s and 71 TFLOP/s fp16; a share counts as 100 % at most; kernel launches count as 0"
    )
    for each in projections:
        times = (f"{ms:.1f}" for ms in (each.floor_ms, each.paced_ms, each.flat_out_ms))
        table.add_row(each.preset, each.precision, *times)
    return table


def _work_cells(passes: Sequence[Work], floor_ms: float) -> tuple[str, ...]:
    """Return weights and cache in MB, GFLOP and floor in ms of some passes together."""
    weights_mb = sum(each.weights_bytes for each in passes) / 1e6
    cache_mb = sum(each.cache_bytes for each in passes) / 1e6
    gflop = sum(each.flops for each in passes) / 1e9
    return f"{weights_mb:,.1f}", f"{cache_mb:,.1f}", f"{gflop:,.3f}", f"{floor_ms:,.2f}"


def _table(*columns: str) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
