"""A fleet on the screen: a robot's text stays within its lines."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from gatort.launch.fleet_table import LONGEST_REASON, fleet_table, member_line
from gatort.runtime.durations import Percentiles
from gatort.runtime.fleet import MemberStatus


def status(reason: str) -> MemberStatus:
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
