"""The guard: the first look at an observation, and the last look at an action.

Observations are checked for age, jumps and repeats; actions for finite values, range, rate and age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from .clock import Clock
from .errors import ObservationError
from .robot import Observation
from .safety import COMMAND_MARGIN_NS, STOPPED, Command, State
from .spec import OTHER_UNIT_RANGES, Interface, ObservationKey

JUMP_MARGIN = 1.5
"""A value that changes more than this many times faster than its key can is a sensor's fault.

An arm that is driven by torques may pass its velocity limit for an instant, and stops itself for
that."""

MOST_REPEATS = 3
"""Readings in a row after which a key that moves counts as frozen, each equal to the one before.

Keys with a limited speed move. In 150 ms an arm that is driven moves, and a sensor has noise."""


class Refusal(StrEnum):
    """Reason why a tick sent no command."""

    OBSERVATION = "observation refused"
    ENGINE = "engine failed"
    TAKEOVER = "person's device silent"
    NOT_FINITE = "action not finite"
    STALE = "observation not newer than the last one answered"
    LATE = "action late"
    SKIPPED = "tick skipped"
    STOPPED = "guard not armed, or stopped"


class Limit(StrEnum):
    """Limit that an admitted action was cut to."""

    RANGE = "range"
    RATE = "rate"


_AFTER_REFUSAL = {State.RUN: State.HOLD, State.HOLD: State.SAFE, State.SAFE: State.LATCHED}


@dataclass(slots=True)
class _LimitedKey:
    """A key whose values can change only so fast."""

    index: int
    """Place of the key in an observation."""
    key: ObservationKey
    fastest_per_s: NDArray[np.float64]
    """Fastest change of each element, in the key's unit per second."""
    repeats: int = 0
    """Number of readings in a row that equalled the one before."""


class Guard:
    """Admits actions as commands, or refuses them.

    The first refusal leads to HOLD, the second in a row to SAFE, the third to LATCHED. In SAFE and
    LATCHED nothing is sent, and only `arm` leaves them.
    """

    def __init__(
        self, spec: Interface, clock: Clock, offered: Sequence[ObservationKey] | None = None
    ) -> None:
        """Start disarmed.

        Args:
            spec: actuators, their limits, and the delay after which a command takes effect.
            clock: the loop's clock.
            offered: keys of the robot's observations, in their order; the specification's by
                default.
        """
        self.state = State.DISARMED
        self.refused: Counter[Refusal] = Counter()
        """Number of ticks that sent no command, by reason, since the guard was made."""
        self.reason: Refusal | None = None
        """Reason of the last tick that sent no command."""
        self.limited: Counter[Limit] = Counter()
        """Number of actions that were sent limited, by limit."""
        self.clipped: Counter[str] = Counter()
        """Number of observations with a value outside its range, which the tokenizer clips, by
        key."""
        self.expects_motion = True
        """True if the robot is driven: a key that moves and repeats its values is then frozen."""
        self._spec = spec
        self._clock = clock
        self._low = np.array([actuator.low for actuator in spec.actuators])
        self._high = np.array([actuator.high for actuator in spec.actuators])
        self._safe = np.array([actuator.safe for actuator in spec.actuators])
        rates = [
            np.inf if actuator.rate_per_s is None else actuator.rate_per_s
            for actuator in spec.actuators
        ]
        self._rates = np.array(rates)  # (A,) per second
        self._sequence = 0
        keys = list(enumerate(offered or spec.observations))
        self._limited_keys = [
            _LimitedKey(index, key, np.array(key.fastest_per_s))
            for index, key in keys
            if key.fastest_per_s
        ]
        read = {key.name for key in spec.observations}
        self._ranged_keys = [(index, key) for index, key in keys if key.low and key.name in read]
        self._number_keys = [
            (index, key)
            for index, key in keys
            if key.fastest_per_s or (key.low and key.name in read)
        ]
        self._last_seen: Observation | None = None
        self._last_values = self._safe
        self._last_stamp_ns = 0

    def arm(self) -> None:
        """Take an operator's consent: go back to RUN, from the safe command."""
        self.state = State.RUN
        self._last_values = self._safe
        self._last_stamp_ns = self._clock.now_ns() - self._spec.period_ns
        self._last_seen = None
        for limited in self._limited_keys:
            limited.repeats = 0

    def require_units(self, observation: Observation) -> None:
        """Check, before the robot is armed, that each value can be in its key's unit.

        Raises:
            ObservationError: a value that the policy reads is far outside its range or not finite.
        """
        self._require_finite(observation)
        for index, key in self._ranged_keys:
            values = observation.values[index]
            far = key.outside(values, OTHER_UNIT_RANGES)
            if far.any():
                worst = int(np.argmax(far))
                raise ObservationError(
                    f"{key.name}: expected element {worst} within {key.low[worst]:g} to "
                    f"{key.high[worst]:g} {key.unit}, found {values.ravel()[worst]:g}; "
                    "check the unit that the robot's driver reads"
                )

    def inspect(self, observation: Observation) -> None:
        """Check age, jumps and repeats of an observation, before anything is inferred from it.

        Raises:
            ObservationError: the observation is not newer than the one before, or too old for its
                action to be in time. Or a value is not finite, or it jumped farther than its key
                can change since the last observation that passed. Or a key that moves has repeated
                its values to the last bit.
        """
        last = self._last_seen
        age_ns = self._clock.now_ns() - observation.stamp_ns
        if last is not None and observation.stamp_ns <= last.stamp_ns:
            raise ObservationError(
                "expected an observation newer than the last one, "
                f"found the same or an older one, {_ms(age_ns)} old"
            )
        if not 0 <= age_ns <= self._spec.action_delay_ns:
            raise ObservationError(
                f"expected an observation of the last {self._spec.action_delay_ms} ms, "
                f"found one {_ms(age_ns)} old"
            )

        self._require_finite(observation)
        if last is not None:
            self._refuse_jumps(observation, last)
            if self.expects_motion:
                self._refuse_repeats(observation, last)
        self._last_seen = observation
        for index, key in self._ranged_keys:
            if key.outside(observation.values[index]).any():
                self.clipped[key.name] += 1

    def _require_finite(self, observation: Observation) -> None:
        """Check shapes and values, also of limited keys that the policy does not read."""
        for index, key in self._number_keys:
            values = observation.values[index]
            if values.shape != key.shape:
                raise ObservationError(
                    f"{key.name}: expected shape {key.shape}, found {values.shape}"
                )
            finite = np.isfinite(values)
            if not finite.all():
                raise ObservationError(
                    f"{key.name}: expected finite values in {key.unit!r}, "
                    f"found {values[~finite][0]}"
                )

    def _refuse_repeats(self, observation: Observation, last: Observation) -> None:
        for limited in self._limited_keys:
            index = limited.index
            if (observation.values[index] != last.values[index]).any():
                limited.repeats = 0
                continue
            limited.repeats += 1
            if limited.repeats >= MOST_REPEATS:
                raise ObservationError(
                    f"{limited.key.name}: expected new readings, found the same values "
                    f"{limited.repeats + 1} times in a row"
                )

    def _refuse_jumps(self, observation: Observation, last: Observation) -> None:
        seconds = (observation.stamp_ns - last.stamp_ns) * 1e-9
        for limited in self._limited_keys:
            change = observation.values[limited.index] - last.values[limited.index]
            jumped = np.abs(change).ravel()
            allowed = JUMP_MARGIN * seconds * limited.fastest_per_s
            if (jumped > allowed).any():
                key = limited.key
                worst = int(np.argmax(jumped / allowed))
                raise ObservationError(
                    f"{key.name}: expected element {worst} to change by at most "
                    f"{allowed[worst]:.3g} {key.unit} in {seconds * 1e3:.0f} ms, "
                    f"found {jumped[worst]:.3g}"
                )

    def admit(self, action: NDArray[np.float64], observation: Observation) -> Command | None:
        """Return the command for an action (A,) that answers `observation`.

        Returns:
            The command within range and rate, or `None` when the action must not be sent.
        """
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
        self._last_values = values
        self._last_stamp_ns = observation.stamp_ns
        return Command(
            sequence=self._sequence,
            observation_sequence=observation.sequence,
            apply_at_ns=apply_at_ns,
            valid_for_ns=self._spec.period_ns + COMMAND_MARGIN_NS,
            values=values,
        )

    def refuse(self, reason: Refusal) -> None:
        """Count a tick that sends no command, and go one state further."""
        self.refused[reason] += 1
        self.reason = reason
        self.state = _AFTER_REFUSAL.get(self.state, self.state)

    def _limit(self, action: NDArray[np.float64], stamp_ns: int) -> NDArray[np.float64]:
        """Return a copy of the action within range and within the rate since the last one."""
        values = np.minimum(np.maximum(action, self._low), self._high)
        if (values != action).any():
            self.limited[Limit.RANGE] += 1

        reach = self._rates * ((stamp_ns - self._last_stamp_ns) * 1e-9)
        lowest = self._last_values - reach
        highest = self._last_values + reach
        slewed: NDArray[np.float64] = np.minimum(np.maximum(values, lowest), highest)
        if (slewed != values).any():
            self.limited[Limit.RATE] += 1
        return slewed


def _ms(duration_ns: int) -> str:
    return f"{duration_ns * 1e-6:.1f} ms"
