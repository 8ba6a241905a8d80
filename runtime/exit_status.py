"""Exit statuses of gatort's commands (docs/reports.md): no two endings share one."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Status with which a command ends by itself."""

    DONE = 0
    """The command did its work, and a verdict, if it gives one, is positive."""
    NEGATIVE = 1
    """The verdict is negative."""
    REFUSED = 2
    """An input was refused, or a part outside gatort failed; one sentence says which."""
    INCONCLUSIVE = 3
    """The machine paused for long enough to explain a negative verdict."""
    INTERNAL_ERROR = 70
    """A fault of gatort (EX_SOFTWARE of sysexits.h)."""


def verdict(positive: bool) -> ExitStatus:
    """Return the status of a verdict."""
    return ExitStatus.DONE if positive else ExitStatus.NEGATIVE


def ended_by(number: int) -> int:
    """Return the status of a command that a signal ended, as a shell counts it: 130 for Ctrl-C."""
    return 128 + number
