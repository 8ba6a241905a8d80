"""The share of the floor and its projection are computed as the equations say."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.export.roofline.rates import Device
from gatort.export.roofline.roofline import Roofline, passes_p50_ms, storage_of
from gatort.export.roofline.work import Rates, Storage, Work
from gatort.policies.loading import PolicyOptions
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import Precision
from gatort.runtime.telemetry import Telemetry
from gatort.sim.tasks.stacking.specifications import GATO_SPEC, STACK_SPEC

FP32 = Storage("fp32", float_bytes=4)


def made(flat_out_ms: float, cache_bytes: int = 0) -> Roofline:
    """Two passes of 1 GB at 100 GB/s: a floor of 20 ms."""
    device = Device("d", Rates(100e9, 1e12), None, cache_bytes, "nothing")
    work = Work(weights_bytes=0.9e9, cache_bytes=0.1e9, flops=1e9)
    return Roofline(device, FP32, (work, work), (1, 1), paced_ms=40.0, flat_out_ms=flat_out_ms)


def test_the_share_is_the_floor_divided_by_the_measured_time_and_scales_the_floor_elsewhere() -> (
    None
):
    found = made(flat_out_ms=25.0)
    assert found.floor_ms == pytest.approx(20.0)
    assert (found.share(40.0), found.share(25.0)) == (pytest.approx(0.5), pytest.approx(0.8))
    assert found.bytes_s(25.0) == pytest.approx(80e9)
    projections = found.projections(GATO_SPEC)
    assert len(projections) == 9
    assert all(each.paced_ms == pytest.approx(2 * each.floor_ms) for each in projections)
    assert all(each.flat_out_ms == pytest.approx(each.floor_ms / 0.8) for each in projections)


def test_a_share_above_1_projects_as_1() -> None:
    found = made(flat_out_ms=10.0, cache_bytes=2_000_000_000)
    assert found.share(10.0) == pytest.approx(2.0)
    assert all(each.flat_out_ms == each.floor_ms for each in found.projections(GATO_SPEC))
    assert found.fits_cache
    assert not made(25.0).fits_cache


def test_the_median_covers_prefill_and_decodes_of_ticks_that_completed_their_passes() -> None:
    telemetry = Telemetry(STACK_SPEC, capacity=4)
    steps_ns = np.arange(1, len(telemetry.stages) + 1) * 1_000_000
    telemetry.stamps[:3, 1:] = 1 + np.cumsum(steps_ns)
    telemetry.stamps[:3, 0] = 1
    telemetry.stamps[2, 4:] = 0
    telemetry.ticks = 3
    assert passes_p50_ms(telemetry) == pytest.approx(sum(range(3, 11)))
    telemetry.stamps[:, 4:] = 0
    with pytest.raises(EngineError, match="expected ticks that completed their passes"):
        passes_p50_ms(telemetry)


@pytest.mark.parametrize(
    ("engine", "asked", "exported", "storage"),
    [
        ("onnx", None, "int8", Storage("int8", 4)),
        ("onnx", None, "fp16", Storage("fp16", 2)),
        ("torch", None, "int8", Storage("fp32", 4)),
        ("torch-cuda", None, "fp32", Storage("fp16", 2)),
        ("torch-cuda", "fp32", "fp32", Storage("fp32", 4)),
        ("onnx-cuda", None, "int4", Storage("int4", 2)),
    ],
)
def test_the_storage_is_that_of_the_engine(
    engine: str, asked: Precision | None, exported: Precision, storage: Storage
) -> None:
    assert storage_of(PolicyOptions(engine=engine, precision=asked), exported) == storage
