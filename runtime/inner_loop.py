"""The robot's side at 1 kHz: hold the last command, limit its slew, watch its age, fade to safe.

    DISARMED ─arm─▶ RUN ─age > valid_for─▶ HOLD ─age > 2 periods − 5 ms─▶ SAFE ─40 ms─▶ LATCHED
                     ▲                      │
                     └────── a command ─────┘     a stop leads to SAFE from any armed state

A command's age counts from the instant at which it took effect. Commands arrive before they take
effect: at the end of HOLD the next one has arrived, or it is missing too.

The loop runs a thousand times per simulated second and works on lists of floats. For eight
actuators these are several times faster than NumPy, and most steps change nothing. Gravity
compensation and damping belong to the robot.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .safety import COMMAND_MARGIN_NS, LONGEST_VALIDITY_NS, SAFE_LEAD_NS, STOPPED, Command, State
from .spec import Interface

FADE_NS = 40_000_000
"""Duration of the fade from the values in effect to the safe command.

A Panda's 30 N·m fall at 750 N·m/s, below the 1000 that its interface allows. After a sensor's last
good reading, 25 ms of action delay, 95 ms to SAFE and the fade make 160 ms, of the 165 that are
allowed.
"""
LONGEST_QUEUE = 4
MOST_HOLDS = 8
"""HOLDs within `HOLDS_NS` that stop the arm: every second command is missing."""
HOLDS_NS = 1_000_000_000
_NEVER_NS = 1 << 62


class Drop(StrEnum):
    """Reason why a command was dropped."""

    STOPPED = "not armed, or stopped"
    REPEATED = "duplicate or old sequence"
    LATE = "late"
    EARLY = "apply_at more than one period ahead"
    ORDER = "apply_at not after the command before it"
    VALIDITY = "valid_for out of range"
    FULL = "queue full"
    SHAPE = "wrong number of values"
    NOT_FINITE = "not finite"


class InnerLoop:
    """Values in effect on the actuators at each instant, and the watchdog that decides them."""

    def __init__(self, interface: Interface, safe_after_ns: int | None = None) -> None:
        """Start disarmed.

        Args:
            interface: actuators, their limits and safe values, and the period.
            safe_after_ns: age of a command at which SAFE begins, whatever validity the command asks
                for. Default: two periods less `SAFE_LEAD_NS`.

        Raises:
            ConfigError: the age is not between one period and `LONGEST_VALIDITY_NS`.
        """
        self.state = State.DISARMED
        self.dropped: Counter[Drop] = Counter()
        """Number of dropped commands since construction, by reason."""
        self.reason: str | None = None
        """Reason for which the arm was stopped since it was last armed; `None` while it was not."""
        self._period_ns = interface.period_ns
        self.safe_after_ns = (
            2 * self._period_ns - SAFE_LEAD_NS if safe_after_ns is None else safe_after_ns
        )
        """Age of a command at which SAFE begins."""
        if not self._period_ns <= self.safe_after_ns <= LONGEST_VALIDITY_NS:
            raise ConfigError(
                f"safe_after_ms: expected {self._period_ns * 1e-6:g} ms (one period) to "
                f"{LONGEST_VALIDITY_NS * 1e-6:g} ms, found {self.safe_after_ns * 1e-6:g} ms"
            )
        self._low = [actuator.low for actuator in interface.actuators]
        self._high = [actuator.high for actuator in interface.actuators]
        self._safe = [actuator.safe for actuator in interface.actuators]
        self._rates = [actuator.rate_per_s or math.inf for actuator in interface.actuators]
        self._values = list(self._safe)
        self._target = list(self._safe)
        self._fade_from = list(self._safe)
        self._in_effect = np.array(self._safe)  # (A,)
        self._queue: deque[tuple[Command, list[float]]] = deque()
        self._holds: deque[int] = deque(maxlen=MOST_HOLDS)  # Instants at which HOLD began.
        self._moving = False
        self._sequence = -1
        self._last_ns = -_NEVER_NS
        self._effect_ns = -_NEVER_NS
        self._state_ends_ns = _NEVER_NS
        self._next_ns = _NEVER_NS

    def arm(self, now_ns: int) -> None:
        """Start a session with the safe command as target, whose age counts from now.

        In SAFE nothing happens: a fade that has begun ends first.
        """
        if self.state is State.SAFE:
            return
        self._queue.clear()
        if self.state in STOPPED:  # Consent that is repeated must not restart the count.
            self._holds.clear()
        self.reason = None
        self._sequence = -1
        self._target = list(self._safe)
        self._moving = self._values != self._target
        self._last_ns = now_ns
        self._effect_ns = now_ns
        self._enter(
            State.RUN, now_ns + min(self._period_ns + COMMAND_MARGIN_NS + 1, self.safe_after_ns)
        )

    def stop(self, now_ns: int, reason: str) -> None:
        """Stop: fade to the safe command from now, then latch.

        The fade begins at the values of the last step. Steps may be overdue: a slew, or the end of
        another fade, would reach the arm as a jump. A robot that is not armed or already stopping
        stays as it is.
        """
        if self.state not in STOPPED:
            self.reason = reason
            self._fade(max(now_ns, self._last_ns))

    def accept(self, command: Command, now_ns: int) -> bool:
        """Queue a command for its `apply_at_ns`.

        Returns:
            False for a command that must not be applied; `dropped` counts it.
        """
        values = command.values.tolist()
        if reason := self._reason_to_drop(command, values, now_ns):
            self.dropped[reason] += 1
            return False
        limits = zip(values, self._low, self._high, strict=True)
        self._queue.append((command, [min(max(value, low), high) for value, low, high in limits]))
        self._sequence = command.sequence
        self._schedule()
        return True

    def _reason_to_drop(self, command: Command, values: list[float], now_ns: int) -> Drop | None:
        if self.state in STOPPED:
            return Drop.STOPPED
        if command.sequence <= self._sequence:
            return Drop.REPEATED
        if now_ns > command.apply_at_ns:
            return Drop.LATE
        if command.apply_at_ns > now_ns + self._period_ns:
            return Drop.EARLY
        if not 0 < command.valid_for_ns <= LONGEST_VALIDITY_NS:
            return Drop.VALIDITY
        if len(self._queue) >= LONGEST_QUEUE:
            return Drop.FULL
        if self._queue and command.apply_at_ns <= self._queue[-1][0].apply_at_ns:
            return Drop.ORDER
        if len(values) != len(self._safe):
            return Drop.SHAPE
        return None if all(map(math.isfinite, values)) else Drop.NOT_FINITE

    def step(self, now_ns: int) -> NDArray[np.float64]:
        """Return the values (A,) in effect at `now_ns`.

        Commands and states take effect at their exact instants, however far apart the steps are. A
        time that goes back changes nothing. The array belongs to the loop and changes with the next
        step.
        """
        if now_ns >= self._next_ns:
            self._pass_events(now_ns)
        if self._moving:
            self._move(now_ns)
        if now_ns > self._last_ns:
            self._last_ns = now_ns
        return self._in_effect

    @property
    def in_effect(self) -> NDArray[np.float64]:
        """(A,) values in effect at the last step; the next step changes the array."""
        return self._in_effect

    def _pass_events(self, now_ns: int) -> None:
        """Process every command and change of state up to now, in order; a command wins a tie."""
        while (at_ns := self._next_ns) <= now_ns:
            if self._moving:
                self._move(at_ns)
            self._last_ns = max(self._last_ns, at_ns)
            if self._queue and self._queue[0][0].apply_at_ns <= at_ns:
                command, self._target = self._queue.popleft()
                self._moving = self._values != self._target
                self._effect_ns = at_ns
                self._enter(State.RUN, at_ns + min(command.valid_for_ns + 1, self.safe_after_ns))
            elif self.state is State.RUN:
                self._hold(at_ns)
            elif self.state is State.HOLD:
                self.reason = f"no command for {self.safe_after_ns * 1e-6:g} ms"
                self._fade(at_ns)
            else:
                self._enter(State.LATCHED, _NEVER_NS)

    def _hold(self, at_ns: int) -> None:
        """Begin HOLD, or SAFE if commands were missing too often."""
        self._holds.append(at_ns)
        if len(self._holds) == MOST_HOLDS and at_ns - self._holds[0] <= HOLDS_NS:
            self.reason = f"{MOST_HOLDS} times without a command in time within 1 s"
            self._fade(at_ns)
        else:
            self._enter(State.HOLD, self._effect_ns + self.safe_after_ns)

    def _enter(self, state: State, ends_ns: int) -> None:
        self.state, self._state_ends_ns = state, ends_ns
        self._schedule()

    def _schedule(self) -> None:
        self._next_ns = self._state_ends_ns
        # A command queued when HOLD ends may take effect a little later than SAFE would begin.
        grace_ns = 0
        if self.state is State.HOLD:
            longest_ns = LONGEST_VALIDITY_NS - self.safe_after_ns
            grace_ns = min(SAFE_LEAD_NS + COMMAND_MARGIN_NS, longest_ns)
        if self._queue and self._queue[0][0].apply_at_ns <= self._next_ns + grace_ns:
            self._next_ns = self._queue[0][0].apply_at_ns

    def _fade(self, now_ns: int) -> None:
        self._queue.clear()
        self._fade_from, self._target = self._values, list(self._safe)
        self._moving = True
        self._enter(State.SAFE, now_ns + FADE_NS)

    def _move(self, now_ns: int) -> None:
        """Bring the values to `now_ns`: along the fade in SAFE, else slewing towards the target."""
        if self.state is State.SAFE:
            done = min(max(1.0 - (self._state_ends_ns - now_ns) / FADE_NS, 0.0), 1.0)
            self._values = [
                start + (safe - start) * done
                for start, safe in zip(self._fade_from, self._safe, strict=True)
            ]
            self._moving = done < 1.0
        else:
            self._slew((now_ns - self._last_ns) * 1e-9)
        self._in_effect[:] = self._values

    def _slew(self, dt_s: float) -> None:
        if dt_s < 0.0:
            return
        values = []
        for value, target, rate in zip(self._values, self._target, self._rates, strict=True):
            # inf · 0 is NaN, which compares false twice: without a limit the target is reached at
            # once.
            reach = rate * dt_s
            gap = target - value
            values.append(
                value + reach if gap > reach else value - reach if gap < -reach else target
            )
        self._values = values
        self._moving = values != self._target
