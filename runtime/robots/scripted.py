"""A robot without physics: a real inner loop, and observations from a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.spec import CONTINUOUS_BINS, ObservationKey, PolicySpec

from .driver import INNER_PERIOD_NS, Driver

SCRIPTED_OBSERVATIONS = 64
"""Number of random observations, which repeat in turn."""
NOISE = 1e-5
"""Change of a key of limited speed from one observation to the next, in its unit."""


class ScriptedRobot(Driver):
    """A fake arm with a real inner loop and watchdog. It has no physics."""

    def __init__(
        self,
        spec: PolicySpec,
        clock: Clock,
        read: Callable[[int], Sequence[NDArray[Any]]] | None = None,
    ) -> None:
        """Stand in for a robot with the policy's own interface.

        Args:
            spec: observation keys and actuators.
            clock: the clock that the inner loop follows.
            read: returns the values of the observation with a given sequence number. When absent,
                zeros, with the noise that `with_noise` adds.
        """
        super().__init__(spec, clock)
        zeros = [np.zeros(key.shape, key.dtype) for key in spec.observations]
        self._script = read or (lambda sequence: with_noise(zeros, spec, sequence))
        self._stepped_ns = clock.now_ns()
        self._ahead: Sequence[NDArray[Any]] = ()
        """Values of the next observation, whose pictures were looked at."""

    def _advance(self, now_ns: int) -> None:
        while self._stepped_ns + INNER_PERIOD_NS <= now_ns:
            self._stepped_ns += INNER_PERIOD_NS
            self._in_effect(self._stepped_ns)

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`."""
        if not self.interface.pictures:
            return None
        self._ahead = self._script(self._sequence + 1)
        if len(self._ahead) != len(self.interface.observations):  # The script leaves values out.
            return None
        return tuple(self._ahead[index] for index in self.interface.pictures)

    def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
        values, self._ahead = self._ahead or self._script(self._sequence), ()
        return self._clock.now_ns(), values

    def close(self) -> None:
        """Do nothing: a scripted robot holds nothing."""


def scripted_robot(spec: PolicySpec, clock: Clock, seed: int) -> ScriptedRobot:
    """Make a robot without physics that observes random values within the policy's ranges.

    The values are drawn before the loop starts. A key with a limited speed keeps its value but for
    the noise that `with_noise` adds: the guard would refuse its jumps.
    """
    random = np.random.default_rng(seed)
    still = {key.name: _draw(key, random) for key in spec.observations if key.fastest_per_s}
    script = [
        [still[key.name] if key.name in still else _draw(key, random) for key in spec.observations]
        for _ in range(SCRIPTED_OBSERVATIONS)
    ]

    def read(sequence: int) -> Sequence[NDArray[Any]]:
        return with_noise(script[sequence % len(script)], spec, sequence)

    return ScriptedRobot(spec, clock, read)


def with_noise(
    values: Sequence[NDArray[Any]], spec: PolicySpec, sequence: int
) -> list[NDArray[Any]]:
    """Return values whose keys of limited speed change from one observation to the next.

    The guard takes a key of something that moves for frozen when its values repeat.
    """
    noise = np.float32(NOISE * (sequence % 2))
    return [
        value + noise if key.fastest_per_s else value
        for key, value in zip(spec.observations, values, strict=True)
    ]


def _draw(key: ObservationKey, random: np.random.Generator) -> NDArray[Any]:
    if key.encoding == "image":
        return random.integers(0, 256, key.shape, np.uint8)
    if key.encoding in ("text", "discrete"):
        return random.integers(0, CONTINUOUS_BINS, key.shape, np.int32)
    low, high = (
        (np.reshape(key.low, key.shape), np.reshape(key.high, key.shape))
        if key.low
        else (-1.0, 1.0)
    )
    return random.uniform(low, high, key.shape).astype(np.float32)
