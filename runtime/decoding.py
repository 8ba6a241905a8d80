"""From a frame to action tokens: what is added to the logits before the engine takes the largest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.engines.engine import (
    Engine,
    Mark,
    no_mark,
)

from .context import Context
from .errors import (
    ConfigError,
    EngineError,
)
from .spec import FIRST_CONTINUOUS_ID

FORCED = 1e9
"""A bias that no logit outweighs."""


class Sampler:
    """How bins are picked: the likeliest by default, by chance at a temperature above 0."""

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        """Fix how bins are picked.

        Raises:
            ConfigError: the temperature is negative or not finite.
        """
        if not math.isfinite(temperature) or temperature < 0.0:
            raise ConfigError(
                f"temperature: expected a finite number of 0 or more, found {temperature}"
            )
        self.temperature = temperature
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start the random numbers again from the seed."""
        self._random = np.random.default_rng(self._seed)

    def draw(self, bias: NDArray[np.float32]) -> None:
        """Fill a frame's `bias` (A, R) so that the largest of logits + bias is a draw from the softmax.

        That is Gumbel noise times the temperature (Gumbel 1954; Maddison et al., arXiv 1411.0030), and it makes
        sampling a matter of input: an engine that runs a whole tick on a device samples as any other does.
        """
        if self.temperature == 0.0:
            bias.fill(0.0)
        else:
            bias[:] = self._random.gumbel(scale=self.temperature, size=bias.shape)


class Decoder:
    """An engine over a context: the tokens of a tick's action."""

    def __init__(self, engine: Engine, context: Context, sampler: Sampler) -> None:
        self.engine, self.context, self.sampler = engine, context, sampler

    def decode(self, mark: Mark = no_mark) -> NDArray[np.int64]:
        """Prefill, then A − 1 decodes: action tokens (A,), the frame's own array.

        Raises:
            EngineError: a pass failed or its logits are not finite; the whole action is void.
        """
        frame = self.context.frame
        self.sampler.draw(frame.bias)
        self._tick(mark)
        return frame.tokens

    def force(self, tokens: NDArray[np.int64]) -> None:
        """Run a whole frame whose action tokens (A,) are given; its logits are what the model thought of them.

        Raises:
            EngineError: as `decode`.
        """
        frame = self.context.frame
        frame.bias.fill(0.0)
        frame.bias[np.arange(len(tokens)), tokens - FIRST_CONTINUOUS_ID] = FORCED
        self._tick(no_mark)

    def replay(self, tokens: NDArray[np.int64]) -> None:
        """Force a frame's tokens, as a prompt does, and complete it.

        Raises:
            EngineError: as `decode`.
        """
        self.force(tokens)
        self.context.end_frame(int(tokens[-1]))

    def _tick(self, mark: Mark) -> None:
        frame = self.context.frame
        self.engine.tick(frame, mark)
        largest = frame.logits.max(axis=1)  # (A,), NaN where a row has one
        if not np.isfinite(largest).all():
            raise EngineError(
                f"expected finite logits, found {largest.tolist()} as the largest of each pass"
            )
