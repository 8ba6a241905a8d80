"""From logits to action tokens: one prefill, then A − 1 decodes, constrained to the actuators' bins."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .context import Context
from .engine import Engine
from .errors import ConfigError, EngineError
from .spec import FIRST_CONTINUOUS_ID


class Sampler:
    """Picks a bin from logits: the largest by default, by chance at a temperature above 0."""

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        """Fix how bins are picked.

        Raises:
            ConfigError: the temperature is negative or not finite.
        """
        if not math.isfinite(temperature) or temperature < 0.0:
            raise ConfigError(f"temperature: expected a finite number of 0 or more, found {temperature}")
        self.temperature = temperature
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start the random numbers again from the seed."""
        self._random = np.random.default_rng(self._seed)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """Bin in [0, R) for logits (R,).

        Raises:
            EngineError: the logits hold NaN or infinity; the whole action is void.
        """
        best = int(logits.argmax())
        # NumPy's argmax returns the first NaN if there is one, so this one value answers for all.
        if not math.isfinite(logits[best]):
            raise EngineError(f"expected finite logits, found {logits[best]} at bin {best}")
        if self.temperature == 0.0:
            return best
        odds = np.exp((logits.astype(np.float64) - float(logits[best])) / self.temperature)
        return min(int(np.searchsorted(odds.cumsum(), self._random.random() * odds.sum(), "right")), len(odds) - 1)


class Decoder:
    """The passes of a tick over an engine and a context."""

    def __init__(self, engine: Engine, context: Context, sampler: Sampler) -> None:
        self.engine, self.context, self.sampler = engine, context, sampler
        self._first_position = context.spec.observation_tokens + 1
        """Frame position of the separator, whose logits give action token 0."""

    def prefill(self) -> int:
        """Run the block of O + 2 positions and return the first action token.

        Raises:
            EngineError: the pass failed or its logits are not finite.
        """
        return FIRST_CONTINUOUS_ID + self.sampler.pick(self.engine.forward(self.context.prefill))

    def decode(self, index: int, token: int) -> int:
        """Feed action token `index` − 1 and return token `index` ≥ 1.

        Raises:
            EngineError: as `prefill`.
        """
        self.context.feed(self._first_position + index, token)
        return FIRST_CONTINUOUS_ID + self.sampler.pick(self.engine.forward(self.context.decode))

    def replay(self, tokens: NDArray[np.int64]) -> None:
        """Run a whole frame whose action tokens (A,) are given, as a prompt does, and complete it.

        Raises:
            EngineError: a pass failed.
        """
        self.engine.forward(self.context.prefill)
        for index in range(1, len(tokens)):
            self.context.feed(self._first_position + index, int(tokens[index - 1]))
            self.engine.forward(self.context.decode)
        self.context.end_frame(int(tokens[-1]))
