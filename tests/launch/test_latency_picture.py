"""The latency picture follows the rule of the report: the same p99, one colour for the decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.durations import Percentiles

picture = pytest.importorskip("gatort.launch.latency_picture")

STAGES = ("observe", "prefill", "decode_1", "decode_2", "command")


@pytest.mark.parametrize("count", [1, 3, 100, 250])
def test_the_bars_are_the_ticks_of_the_reports_percentiles(count: int) -> None:
    durations_ns = np.random.default_rng(count).integers(0, 10_000_000, (count, len(STAGES)))
    ticks_ns = durations_ns.sum(axis=1)
    found = Percentiles.of_ns(ticks_ns)
    drawn_ms = ticks_ns[picture.slow_ticks(durations_ns)] * 1e-6
    # Rounded to 0.0001 ms.
    assert drawn_ms == pytest.approx([found.p50_ms, found.p99_ms, found.max_ms], abs=1e-4)


def test_the_decodes_share_a_colour_and_the_other_stages_have_their_own() -> None:
    colours = picture.stage_colours(STAGES)
    assert list(colours) == ["observe", "prefill", "decode", "command"]
    assert len(set(colours.values())) == len(colours)


def test_the_picture_is_drawn_with_its_limits(tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    durations_ns = np.full((10, len(STAGES)), 1_000_000)
    limits_ms = {"budget": 50.0, "action deadline": 25.0}
    picture.latency_picture(file, "title", STAGES, durations_ns, limits_ms)
    assert file.read_bytes().startswith(b"\x89PNG")
