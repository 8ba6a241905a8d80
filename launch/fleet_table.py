"""A fleet on the screen and in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.table import Table
from rich.text import Text

from gatort.policies.loading import decoding_of
from gatort.runtime.fleet import MemberStatus
from gatort.runtime.machine import this_machine
from gatort.runtime.wording import counted

from .live import STYLES
from .report import alarming, percentile_record
from .run_report import recording_record, recording_sentence
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
        shorten(f"{number}: {reason}", LONGEST_REASON, placeholder=" …")
        for number, each in enumerate(statuses, 1)
        for reason in (each.reason, _recording_fault(each))
        if reason
    ]
    table.caption = "\n".join(reasons) or None
    table.caption_justify = "left"
    return table


def _state(status: MemberStatus) -> Text:
    if status.state is None:
        return alarming("away", True)
    return Text(str(status.state), STYLES.get(status.state, ""))


def _recording_fault(status: MemberStatus) -> str | None:
    """Return a clause on the newest recording that lacks messages; `None` without one."""
    lacking = [each for each in status.recordings if each.degraded is not None]
    return f"recording DEGRADED: {lacking[-1].degraded}" if lacking else None


def member_line(status: MemberStatus) -> str:
    """Return a robot's state, the reason for it, and a fault of its recording in one line."""
    state = "away" if status.state is None else str(status.state)
    reason = f": {' '.join(status.reason.split())}" if status.reason else ""
    fault = _recording_fault(status)
    return f"{status.endpoint} {state}{reason}{f'; {fault}' if fault is not None else ''}"


def recording_sentences(statuses: Sequence[MemberStatus], folder: Path) -> list[str]:
    """Return a line on the recordings of all robots, and one on each that is incomplete."""
    recorders = [recorder for each in statuses for recorder in each.recordings]
    incomplete = [recording_sentence(each) for each in recorders if not each.complete]
    return [f"{counted(len(recorders), 'recording')} in {folder}", *incomplete]


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
                "recordings": [recording_record(recorder) for recorder in each.recordings],
            }
            for each in statuses
        ],
        "machine": asdict(this_machine()),
    }
