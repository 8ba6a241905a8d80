"""A fleet on the screen: a robot's text stays within its lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from gatort.launch.fleet_table import (
    LONGEST_REASON,
    fleet_record,
    fleet_table,
    member_line,
    recording_sentences,
)
from gatort.launch.serve_options import ServeOptions
from gatort.runtime.clock import VirtualClock
from gatort.runtime.durations import Percentiles
from gatort.runtime.fleet import MemberStatus
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.spec import PolicySpec


def status(reason: str | None, *recordings: Recorder) -> MemberStatus:
    return MemberStatus(
        endpoint="tcp://127.0.0.1:5555",
        name="desk",
        state=None,
        consent=False,
        driven=False,
        reason=reason,
        ticks=0,
        refused=0,
        misses=0,
        tick=Percentiles.of_ns(np.empty(0, np.int64)),
        successes=0,
        recordings=recordings,
    )


def test_a_robots_text_can_neither_forge_a_line_nor_push_the_table_away() -> None:
    forged = status("it failed\n2: desk run\r\n" + "again " * 170)
    assert member_line(forged).startswith("tcp://127.0.0.1:5555 away: it failed 2: desk run again")
    assert "\n" not in member_line(forged)

    console = Console(width=80, markup=False, record=True)
    with console.capture() as shown:
        console.print(fleet_table([forged]))
    below = shown.get().split("┘\n")[1]
    assert below.startswith("1: it failed 2: desk run again")
    assert len(" ".join(below.split())) <= LONGEST_REASON
    assert "…" in below


def test_a_recording_that_lost_messages_is_named_beside_its_robot(
    spec: PolicySpec, tmp_path: Path
) -> None:
    run = RunRecord.of("desk", spec, "", VirtualClock())
    with Recorder(tmp_path / "whole.mcap", run) as whole, Recorder(Path("/dev/full"), run) as full:
        whole.close("done")
        full.close("done")

    served = status(None, whole, full)
    fault = "recording DEGRADED: cannot write /dev/full: No space left on device"
    assert member_line(served) == f"tcp://127.0.0.1:5555 away; {fault}"
    assert fleet_table([served]).caption == f"1: {fault}"
    lines = recording_sentences([served], tmp_path)
    assert lines[0] == f"2 recordings in {tmp_path}"
    assert lines[1].startswith("recording DEGRADED: /dev/full is incomplete")

    (robot,) = fleet_record([served], ServeOptions(), 1.0)["robots"]
    assert [each["complete"] for each in robot["recordings"]] == [True, False]
