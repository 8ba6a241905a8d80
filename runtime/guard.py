"""The first look at an observation (age, jumps) and the last at an action (finite, range, rate, age)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from .clock import Clock
from .errors import ObservationError
from .robot import Observation
from .safety import (
    COMMAND_MARGIN_NS,
    STOPPED,
    Command,
    State,
)
from .spec import (
    Interface,
    ObservationKey,
)

JUMP_MARGIN = 1.5
"""How many times faster than its key can change a value must seem to be a sensor's fault: an arm that is driven by
torques may pass its velocity limit for an instant, and stops itself for that."""


class Refusal(StrEnum):
    """Why a tick sent nothing."""

    OBSERVATION = "observation refused"
    ENGINE = "engine failed"
    NOT_FINITE = "action not finite"
    STALE = "observation not newer than the last one answered"
    LATE = "action late"
    SKIPPED = "tick skipped"
    STOPPED = "guard not armed, or stopped"


class Limit(StrEnum):
    """What an admitted action was limited by."""

    RANGE = "range"
    RATE = "rate"


_AFTER_REFUSAL = {State.RUN: State.HOLD, State.HOLD: State.SAFE, State.SAFE: State.LATCHED}


class Guard:
    """Admits actions as commands, or refuses them; the first refusal is HOLD, the second in a row SAFE, then LATCHED.

    Nothing is sent in SAFE and LATCHED, and nothing but `arm` leaves them.
    """

    def __init__(
        self, spec: Interface, clock: Clock, offered: Sequence[ObservationKey] | None = None
    ) -> None:
        """Start disarmed.

        Args:
            spec: actuators, their limits, and when a command takes effect.
            clock: when it is.
            offered: the keys that observations hold, in their order; the specification's own when absent.
        """
        self.state = State.DISARMED
        self.refused: Counter[Refusal] = Counter()
        """Ticks that sent nothing, by reason, since the guard was made."""
        self.reason: Refusal | None = None
        """Of the last tick that sent nothing."""
        self.limited: Counter[Limit] = Counter()
        """Actions that were over range or rate and sent limited."""
        self._spec, self._clock = spec, clock
        self._low = np.array([actuator.low for actuator in spec.actuators])
        self._high = np.array([actuator.high for actuator in spec.actuators])
        self._safe = np.array([actuator.safe for actuator in spec.actuators])
        rates = [
            np.inf if actuator.rate_per_s is None else actuator.rate_per_s
            for actuator in spec.actuators
        ]
        self._rates = np.array(rates)  # (A,) per second
        self._sequence = 0
        self._jumpers = [
            (index, key.name, key.unit, np.array(key.fastest_per_s))
            for index, key in enumerate(offered or spec.observations)
            if key.fastest_per_s
        ]
        self._last_seen: Observation | None = None
        self._last_values, self._last_stamp_ns = self._safe, 0

    def arm(self) -> None:
        """An operator's consent: back to RUN, from the safe command."""
        self.state = State.RUN
        self._last_values = self._safe
        self._last_stamp_ns = self._clock.now_ns() - self._spec.period_ns
        self._last_seen = None

    def inspect(self, observation: Observation) -> None:
        """Check what the tokenizer has found to be whole and finite; nothing is inferred from what fails.

        Raises:
            ObservationError: it is not newer than the one before, so old that its action would be late, or a value
                jumped farther than its key can change in the time since the last one that passed.
        """
        last, age_ns = self._last_seen, self._clock.now_ns() - observation.stamp_ns
        if last is not None and observation.stamp_ns <= last.stamp_ns:
            raise ObservationError(
                f"expected an observation newer than the last one, found the same or one before it, {_ms(age_ns)} old"
            )
        if not 0 <= age_ns <= self._spec.action_delay_ns:
            raise ObservationError(
                f"expected an observation of the last {self._spec.action_delay_ms} ms, found one {_ms(age_ns)} old"
            )
        if last is not None:
            self._refuse_jumps(observation, last)
        self._last_seen = observation

    def _refuse_jumps(self, observation: Observation, last: Observation) -> None:
        seconds = (observation.stamp_ns - last.stamp_ns) * 1e-9
        for index, name, unit, fastest_per_s in self._jumpers:
            jumped = np.abs(observation.values[index] - last.values[index]).ravel()
            allowed = JUMP_MARGIN * seconds * fastest_per_s
            if not (
                jumped <= allowed
            ).all():  # So that NaN, in a key that the policy does not read, is refused too.
                worst = int(np.argmax(jumped / allowed))
                raise ObservationError(
                    f"{name}: expected element {worst} to change by at most {allowed[worst]:.3g} {unit} in "
                    f"{seconds * 1e3:.0f} ms, found {jumped[worst]:.3g}"
                )

    def admit(self, action: NDArray[np.float64], observation: Observation) -> Command | None:
        """Command for an action (A,) that answers `observation`, or nothing when it must not be sent."""
        apply_at_ns = observation.stamp_ns + self._spec.action_delay_ns
        if self.state in STOPPED:
            reason = Refusal.STOPPED
        elif not np.isfinite(action).all():
            reason = Refusal.NOT_FINITE
        elif not self._last_stamp_ns < observation.stamp_ns <= self._clock.now_ns():
            reason = Refusal.STALE
        elif self._clock.now_ns() > apply_at_ns:
            reason = Refusal.LATE
        else:
            return self._admit(action, observation, apply_at_ns)
        self.refuse(reason)
        return None

    def _admit(
        self, action: NDArray[np.float64], observation: Observation, apply_at_ns: int
    ) -> Command:
        values = self._limit(action, observation.stamp_ns)
        self.state = State.RUN
        self._sequence += 1
        self._last_values, self._last_stamp_ns = values, observation.stamp_ns
        valid_for_ns = self._spec.period_ns + COMMAND_MARGIN_NS
        return Command(self._sequence, observation.sequence, apply_at_ns, valid_for_ns, values)

    def refuse(self, reason: Refusal) -> None:
        """Count a tick that sends nothing and go one state further."""
        self.refused[reason] += 1
        self.reason = reason
        self.state = _AFTER_REFUSAL.get(self.state, self.state)

    def _limit(self, action: NDArray[np.float64], stamp_ns: int) -> NDArray[np.float64]:
        """The action within range, and within the rate since the last admitted one; a new array."""
        values = np.minimum(np.maximum(action, self._low), self._high)
        if (values != action).any():
            self.limited[Limit.RANGE] += 1
        reach = self._rates * ((stamp_ns - self._last_stamp_ns) * 1e-9)
        slewed: NDArray[np.float64] = np.minimum(
            np.maximum(values, self._last_values - reach), self._last_values + reach
        )
        if (slewed != values).any():
            self.limited[Limit.RATE] += 1
        return slewed


def _ms(duration_ns: int) -> str:
    return f"{duration_ns * 1e-6:.1f} ms"
