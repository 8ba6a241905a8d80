"""The roofline's report names the device, the shares and the projection."""

from __future__ import annotations

import pytest
from rich.console import Console

from gatort.export.roofline.rates import Device
from gatort.export.roofline.roofline import Roofline
from gatort.export.roofline.work import Rates, Storage, Work
from gatort.launch.roofline_tables import roofline_report
from gatort.sim.tasks.stacking.specifications import GATO_SPEC


def report(cache_bytes: int) -> str:
    """Print two passes of 1 GB on a device of 100 GB/s."""
    device = Device("a device", Rates(100e9, 1e12), None, cache_bytes, "nothing")
    work = Work(weights_bytes=0.9e9, cache_bytes=0.1e9, flops=1e9)
    storage = Storage("fp32", float_bytes=4)
    found = Roofline(device, storage, (work, work), (1, 1), paced_ms=40.0, flat_out_ms=25.0)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(*roofline_report(found, GATO_SPEC), sep="\n")
    return captured.get()


def test_the_report_names_the_device_the_shares_and_the_projection() -> None:
    text = report(cache_bytes=0)
    for part in ("a device: 100.0 GB/s", "decode ×1", "50%", "80%", "projection, not measurement"):
        assert part in text
    assert "gato-1.2b" in text


@pytest.mark.parametrize(("cache_bytes", "said"), [(2_000_000_000, True), (0, False)])
def test_data_that_fits_the_cache_is_mentioned(cache_bytes: int, said: bool) -> None:
    assert ("fits in the last-level cache (2000 MB)" in report(cache_bytes)) is said
