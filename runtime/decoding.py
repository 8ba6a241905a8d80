"""The one home of a tick's decision: an observation's values in, action tokens and an action out.

    see(pictures)                    optional: tokenize and prefill pictures ahead of the joints
    decide(values) → Decision        tokenize, then one prefill and A − 1 decodes
    commit()                         let the decided frame stand in the context
    force(values, action) → Decision the same frame with a given action: prompts, replays, a person

A decision that is not committed leaves no trace: the next one takes the same frame. Letters as in
`spec`: O observation tokens, A action tokens; R action bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .context import Context
from .engines.engine import Engine, Mark, no_mark
from .errors import ConfigError, EngineError
from .spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec
from .tokenizer import Tokenizer

FORCED = 1e9
"""A bias that no logit outweighs."""


class Sampler:
    """Rule that picks a bin: the likeliest by default, a random one at a temperature above 0."""

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        """Set temperature and seed.

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
        """Fill a frame's `bias` (A, R): the largest of logits + bias becomes a draw from the
        softmax.

        The bias is Gumbel noise times the temperature (Gumbel 1954; Maddison et al., arXiv
        1411.0030). Sampling is thereby a matter of input: an engine that runs a whole tick on a
        device samples like any other.
        """
        if self.temperature == 0.0:
            bias.fill(0.0)
        else:
            bias[:] = self._random.gumbel(scale=self.temperature, size=bias.shape)


@dataclass(frozen=True, slots=True)
class Decision:
    """One tick's decision."""

    frame: int
    """Number k of the frame in the context, counted from the last reset."""
    tokens: NDArray[np.int64]
    """Action tokens (A,); a copy."""
    action: NDArray[np.float64]
    """Action (A,) in each actuator's unit, before the guard; a copy."""
    logits: NDArray[np.float32]
    """Logits (A, R) of each action token; a view that the next decision overwrites."""
    bias: NDArray[np.float32]
    """Numbers (A, R) added to the logits before the largest was taken; a view like `logits`."""
    passes: int
    """Number of forward passes over action tokens that the engine ran."""
    guess_right: NDArray[np.bool_]
    """(A − 1,) true where the guess of an action token was right. Greedy engines do not use it."""


class Decoder:
    """A tokenizer, a context, an engine and a sampler, which turn values into a decision."""

    def __init__(
        self,
        spec: PolicySpec,
        dims: ModelDims,
        engine: Engine,
        sampler: Sampler | None = None,
        most_passes: int | None = None,
    ) -> None:
        """Allocate the context.

        Args:
            spec: keys, actuators and window.
            dims: dimensions of the model behind the engine.
            engine: an engine that runs the model; one decoder at a time.
            sampler: rule that picks a bin; the likeliest bin by default.
            most_passes: largest number of passes of an exact tick; as many as it takes by default.

        Raises:
            SpecError: the model's dimensions cannot carry the policy's frame, or a range cannot
                be cut into bins.
        """
        self.spec = spec
        self.engine = engine
        self.sampler = sampler or Sampler()
        self.tokenizer = Tokenizer(spec)
        self._context = Context(spec, dims)
        self._context.frame.most_runs = most_passes or spec.action_tokens
        self._last_token: int | None = None
        self._seen: tuple[NDArray[Any], ...] = ()
        """Pictures that stand in the frame; empty before `see`."""

    @property
    def frames(self) -> int:
        """Number of frames that stand in the context since the last reset."""
        return self._context.frames

    def reset(self, sampler: Sampler | None = None) -> None:
        """Forget every frame and start the random numbers again.

        Args:
            sampler: a new rule that picks a bin; the present one starts again by default.
        """
        self.sampler = sampler or self.sampler
        self.sampler.reset()
        self.engine.reset()
        self._context.reset()
        self._last_token = None
        self._seen = ()

    def see(self, pictures: Sequence[NDArray[Any]]) -> None:
        """Tokenize and prefill the pictures of the next `decide`, before the joints are read.

        `decide` then runs only what follows the pictures in the frame. It does the same by itself
        when its values hold other arrays, so this call changes times alone. It gives up a decision
        that is not committed.

        Args:
            pictures: one array per image key, in the specification's order. Nobody may write to
                them before `decide`.

        Raises:
            ObservationError: a picture has the wrong shape or dtype.
            EngineError: the pass failed.
        """
        self._seen = ()
        self._last_token = None  # The pictures overwrite the rows of an open decision.
        frame = self._context.frame
        if frame.sight is None:
            return
        self.tokenizer.encode_pictures(pictures, self._context.patches)
        self.engine.see(frame)
        self._seen = tuple(pictures)

    def decide(self, values: Sequence[NDArray[Any]], mark: Mark = no_mark) -> Decision:
        """Decide on an action for an observation.

        Args:
            values: one array per key of `spec.observations`, in that order.
            mark: called at the end of each stage: tokenize, each pass, detokenize.

        Raises:
            ObservationError: a value has the wrong shape or dtype, or is not finite.
            EngineError: a pass failed, its logits are not finite, or a token is no action token.
                The whole action is void.
        """
        self._tokenize(values, mark)
        self.sampler.draw(self._context.frame.bias)
        return self._infer(mark)

    def force(
        self, values: Sequence[NDArray[Any]], action: ArrayLike, mark: Mark = no_mark
    ) -> Decision:
        """Run a frame whose action is given. Its logits rate that action.

        Args:
            values: as for `decide`.
            action: (A,) in each actuator's unit, clipped to its range.
            mark: as for `decide`.

        Raises:
            ObservationError: a value or the action is refused.
            EngineError: as `decide`.
        """
        self._tokenize(values, mark)
        bins = self.tokenizer.encode_action(action) - FIRST_CONTINUOUS_ID  # (A,)
        bias = self._context.frame.bias
        bias.fill(0.0)
        bias[np.arange(len(bins)), bins] = FORCED
        self._context.frame.guess[:] = bins[:-1] + FIRST_CONTINUOUS_ID
        return self._infer(mark)

    def commit(self) -> None:
        """Let the last decision's frame stand in the context.

        Raises:
            RuntimeError: there is no decision since the last commit or reset.
        """
        if self._last_token is None:
            raise RuntimeError("commit: expected a decision since the last commit, found none")
        frame = self._context.frame
        frame.guess[:] = frame.tokens[:-1]  # The best guess of the next tick's tokens.
        self._context.end_frame(self._last_token)
        self._last_token = None

    def _tokenize(self, values: Sequence[NDArray[Any]], mark: Mark) -> None:
        self._last_token = None
        context = self._context
        seen, self._seen = self._seen, ()
        context.frame.seen = bool(seen) and self._are_in(values, seen)
        if context.frame.seen:
            self.tokenizer.encode_without_pictures(values, context.observation_ids)
        else:
            self.tokenizer.encode(values, context.observation_ids, context.patches)
        mark()

    def _are_in(self, values: Sequence[NDArray[Any]], pictures: Sequence[NDArray[Any]]) -> bool:
        """Check if the pictures of an observation are these arrays."""
        return len(values) == len(self.spec.observations) and all(
            values[index] is picture
            for index, picture in zip(self.spec.pictures, pictures, strict=True)
        )

    def _infer(self, mark: Mark) -> Decision:
        frame = self._context.frame
        self.engine.tick(frame, mark)
        largest = frame.logits.max(axis=1)  # (A,), NaN where a row has one
        if not np.isfinite(largest).all():
            raise EngineError(
                f"expected finite logits, found {largest.tolist()} as the largest of each pass"
            )

        action = self.tokenizer.decode_action(frame.tokens)
        mark()
        self._last_token = int(frame.tokens[-1])
        return Decision(
            frame=self._context.frames,
            tokens=frame.tokens.copy(),
            action=action,
            logits=frame.logits,
            bias=frame.bias,
            passes=frame.runs,
            guess_right=frame.guess == frame.tokens[:-1],
        )
