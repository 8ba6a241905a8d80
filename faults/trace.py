"""The trace of an arm's inner steps, in memory that its process writes and the bench reads.

A file that both map survives the SIGKILL of either. All processes of one machine share the
monotonic clock, so instants of different processes can be compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.robots.driver import INNER_PERIOD_NS
from gatort.runtime.safety import State
from gatort.runtime.spec import Interface

TRACE_FILE = "trace"
STATES = tuple(State)
MOST_STEPS = 900_000
"""Room for a quarter of an hour; memory is taken page by page as it is written."""
ROUNDING = 1e-9
"""Error of faded values, which are sums of products in float64."""


class Trace:
    """Inner steps of an arm: instants due and taken, watchdog's state, values (A,) in effect."""

    def __init__(self, path: Path, interface: Interface, *, sampled: bool = False) -> None:
        """Map the file; made when it is absent.

        Args:
            path: file to map.
            interface: interface of the arm.
            sampled: only some steps are written, so the rate of the values cannot be judged.
        """
        self._interface, self._sampled = interface, sampled
        fields = [("at_ns", np.int64), ("taken_ns", np.int64), ("state", np.int64)]
        dtype = np.dtype([*fields, ("values", np.float64, len(interface.actuators))])
        self._rows = np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=(MOST_STEPS,))
        self._next = 0

    def add(self, at_ns: int, taken_ns: int, state: State, values: NDArray[np.float64]) -> None:
        """Write a step; steps beyond the last row are lost."""
        if self._next < MOST_STEPS:
            row = self._rows[self._next]
            row["at_ns"], row["state"], row["values"] = at_ns, STATES.index(state), values
            row["taken_ns"] = taken_ns  # Last: a row that has it is whole.
            self._next += 1

    def since(self, taken_ns: int) -> Excerpt:
        """Return a copy of the steps taken at or after an instant."""
        stamps = self._rows["taken_ns"]
        while self._next < MOST_STEPS and stamps[self._next]:
            self._next += 1
        first = int(np.searchsorted(stamps[: self._next], taken_ns))
        return Excerpt(np.array(self._rows[first : self._next]), self._interface, self._sampled)

    @property
    def newest(self) -> State | None:
        """State of the last step; `None` before the first."""
        self.since(1 << 62)
        return STATES[self._rows[self._next - 1]["state"]] if self._next else None


class Excerpt:
    """N steps of a trace."""

    def __init__(self, rows: NDArray[np.void], interface: Interface, sampled: bool) -> None:
        self._rows, self._interface, self._sampled = rows, interface, sampled
        self.taken_ns: NDArray[np.int64] = rows["taken_ns"]
        """(N,) instants at which the values were in effect, in ns."""
        self.states: list[State] = [STATES[state] for state in rows["state"]]
        """(N,) states of the watchdog."""
        self.values: NDArray[np.float64] = rows["values"]
        """(N, A) values in effect, in each actuator's unit."""

    def until(self, taken_ns: int) -> Excerpt:
        """Return the steps before an instant."""
        return Excerpt(
            self._rows[: np.searchsorted(self.taken_ns, taken_ns)], self._interface, self._sampled
        )

    def since(self, taken_ns: int) -> Excerpt:
        """Return the steps from an instant on."""
        return Excerpt(
            self._rows[np.searchsorted(self.taken_ns, taken_ns) :], self._interface, self._sampled
        )

    @property
    def sequence(self) -> list[State]:
        """States in order, each run of equal ones once."""
        return [state for state, _ in self.changes]

    @property
    def changes(self) -> list[tuple[State, int]]:
        """States in order, each with the instant of its first step in ns."""
        return [
            (state, int(self.taken_ns[i]))
            for i, state in enumerate(self.states)
            if i == 0 or state is not self.states[i - 1]
        ]

    def first(self, *states: State) -> int | None:
        """Return the instant of the first step in one of these states; `None` without any."""
        return next(
            (
                int(at)
                for at, state in zip(self.taken_ns, self.states, strict=True)
                if state in states
            ),
            None,
        )

    @property
    def safe_ns(self) -> int | None:
        """Instant from which the safe command stays in effect after SAFE; `None` without one."""
        began = self.first(State.SAFE)
        if began is None or self.states[-1] is not State.LATCHED:
            return None
        safe = np.array([actuator.safe for actuator in self._interface.actuators])
        away = (np.abs(self.values - safe) > ROUNDING).any(axis=1) & (self.taken_ns >= began)
        last_away = int(away.nonzero()[0][-1]) if away.any() else self.states.index(State.SAFE) - 1
        return int(self.taken_ns[last_away + 1]) if last_away + 1 < len(self.taken_ns) else None

    @property
    def longest_gap_ns(self) -> int:
        """Longest time without a step, in ns."""
        return int(np.diff(self.taken_ns).max(initial=0))

    def fault(self) -> str | None:
        """Return the first violation in the trace, as a sentence; `None` without any.

        Values are within every range, and changes within every rate (in SAFE, the fade's). In SAFE
        they go straight to the safe command and never away from it. Only LATCHED follows SAFE.
        """
        low, high, safe, rate = (
            np.array(
                [
                    getattr(each, name) if getattr(each, name) is not None else np.inf
                    for each in self._actuators
                ]
            )
            for name in ("low", "high", "safe", "rate_per_s")
        )
        if not ((self.values >= low - ROUNDING) & (self.values <= high + ROUNDING)).all():
            return "a value in effect was out of its range"
        stopping = np.array([state in (State.SAFE, State.LATCHED) for state in self.states])
        change = np.abs(np.diff(self.values, axis=0))
        fade = (high - low) * INNER_PERIOD_NS / FADE_NS
        slew = rate * INNER_PERIOD_NS * 1e-9
        most = np.where(stopping[1:, None], fade, slew)
        # SAFE begins between two steps: a value slews up to that instant and fades from it on.
        begins = stopping[1:] & ~stopping[:-1]
        most[begins] = np.maximum(fade, slew)
        if not self._sampled and (change > most + ROUNDING).any():
            return "a value in effect changed faster than its rate"
        away = np.abs(self.values - safe)
        if (np.diff(away, axis=0)[stopping[1:] & stopping[:-1]] > ROUNDING).any():
            return "in SAFE a value went away from the safe command"
        if (stopping[:-1] & ~stopping[1:]).any():
            return "something left SAFE or LATCHED"
        return None

    @property
    def _actuators(self) -> tuple[object, ...]:
        return self._interface.actuators
