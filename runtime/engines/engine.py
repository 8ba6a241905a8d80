"""Contract of an engine: one call per tick reads a frame's inputs and writes its action tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

from gatort.runtime.context import Frame
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

Mark = Callable[[], None]
Decoding = Literal["greedy", "exact", "parallel"]
"""Way to a tick's tokens: `greedy` runs a pass for each, `exact` begins with a guess of them all.

An exact tick takes the guess along in its first pass. Then it runs the rest of the frame again from
the first wrong guess on, until none is wrong. That gives the tokens of `greedy`. A `parallel` tick
is one pass, in which no action token sees another one. Its tokens are not those of `greedy`."""


def named(name: str, decoding: Decoding) -> str:
    """Return the name of an engine for reports, with its decoding unless that is greedy."""
    return name if decoding == "greedy" else f"{name} {decoding}"


def no_mark() -> None:
    """Do nothing: the default callback at the end of a pass."""


class Engine(Protocol):
    """A model with its KV cache; each pass writes its keys and values at `write_index`."""

    @property
    def name(self) -> str:
        """Name for reports, for example `onnx cpu`."""
        ...

    @property
    def stepwise(self) -> bool:
        """True if the host sees each pass end; false if a device runs them in one piece."""
        ...

    def see(self, frame: Frame) -> None:
        """Run `frame.sight`, which needs no joint state. A tick with `frame.seen` builds on it.

        An engine that cannot split a prefill does nothing here, and all of it in `tick`.

        Raises:
            EngineError: the pass failed.
        """
        ...

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """Write the tokens and logits of the frame's A passes.

        The prefill is run in the same two parts whether its pictures were seen before or not. So
        both ways give the same logits to the bit.

        A pass's token is the bin with the largest logits + bias; the next pass reads it. A stepwise
        engine calls `mark` at the end of each pass, another one once at the end of all passes.

        Raises:
            EngineError: a pass failed.
        """
        ...

    def reset(self) -> None:
        """Forget the cache's contents; the buffers keep their addresses."""
        ...


@runtime_checkable
class SharedEngine(Engine, Protocol):
    """An engine whose weights can serve several robots, each with a cache of its own."""

    def another(self) -> Engine:
        """Return an engine over the same weights with a cache of its own.

        Both may run at the same time, each in one thread.

        Raises:
            EngineError: no memory or no threads are left.
        """
        ...


class ScriptedEngine:
    """Fake engine that emits the given action tokens in turn, over and over."""

    name = "scripted"
    stepwise = True

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self.reset()

    def see(self, frame: Frame) -> None:
        """Do nothing: the script has no pictures."""

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        for index in range(len(frame.passes)):
            token = self._tokens[self.passes % len(self._tokens)]
            frame.logits[index] = 0.0
            frame.logits[index, token - FIRST_CONTINUOUS_ID] = 1.0

            best = int((frame.logits[index] + frame.bias[index]).argmax())
            frame.tokens[index] = FIRST_CONTINUOUS_ID + best
            self.passes += 1
            mark()

    def reset(self) -> None:
        """Start the script again."""
        self.passes = 0
        """Number of passes since the last reset."""
