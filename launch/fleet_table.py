"""A fleet on the screen and in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from rich.table import Table
from rich.text import Text

from gatort.policies.loading import decoding_of
from gatort.runtime.fleet import MemberStatus

from .live import STYLES
from .report import alarming, percentile_record
from .serve_options import ServeOptions

LONGEST_REASON = 240
"""Most characters of a reason under the table: three lines of 80 columns."""


def fleet_table(statuses: Sequence[MemberStatus]) -> Table:
    """Return a row for each robot."""
    table = Table(title=f"{sum(each.driven for each in statuses)} of {len(statuses)} driven")
    for name in ("", "robot", "state"):
        table.add_column(name)
    for name in ("ticks", "misses", "refused", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for number, each in enumerate(statuses, 1):
        table.add_row(
            str(number),
            each.endpoint.removeprefix("tcp://"),
            _state(each),
            str(each.ticks),
            alarming(str(each.misses), each.misses > 0),
            alarming(str(each.refused), each.refused > 0),
            f"{each.tick.p50_ms:.1f}",
            f"{each.tick.p99_ms:.1f}",
        )
    # A robot's text could otherwise push the table off the screen, or forge a line of it.
    reasons = [
        shorten(f"{number}: {each.reason}", LONGEST_REASON, placeholder=" …")
        for number, each in enumerate(statuses, 1)
        if each.reason
    ]
    table.caption = "\n".join(reasons) or None
    table.caption_justify = "left"
    return table


def _state(status: MemberStatus) -> Text:
    if status.state is None:
        return alarming("away", True)
    return Text(str(status.state), STYLES.get(status.state, ""))


def member_line(status: MemberStatus) -> str:
    """Return a robot's state, and the reason for it, in one line."""
    state = "away" if status.state is None else str(status.state)
    reason = f": {' '.join(status.reason.split())}" if status.reason else ""
    return f"{status.endpoint} {state}{reason}"


def fleet_record(
    statuses: Sequence[MemberStatus], options: ServeOptions, seconds: float
) -> dict[str, Any]:
    """Return the JSON form of a fleet's run."""
    return {
        "bundle": str(options.bundle),
        "engine": options.engine,
        "decoding": decoding_of(options),
        "seconds": seconds,
        "robots": [
            {
                "robot": each.endpoint,
                "name": each.name,
                "state": str(each.state) if each.state is not None else None,
                "driven": each.driven,
                "reason": each.reason,
                "ticks": each.ticks,
                "misses": each.misses,
                "refused": each.refused,
                "successes": each.successes,
                "tick_ms": percentile_record(each.tick),
            }
            for each in statuses
        ],
    }
