"""What runs the transformer: one call a tick, a frame's inputs in, its action tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gatort.runtime.context import Frame
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

Mark = Callable[[], None]


def no_mark() -> None:
    """For who does not time the passes."""


class Engine(Protocol):
    """A model with its KV cache; each pass writes its keys and values at the block's `write_index`."""

    @property
    def name(self) -> str:
        """What to call it in reports, for example `onnx cpu`."""
        ...

    @property
    def stepwise(self) -> bool:
        """Whether the passes end one by one under the host's eye; a device may run them as one piece."""
        ...

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """Run the frame's A passes and write its tokens and logits.

        The token of each pass is the bin where logits + bias is largest, and is the next pass's input. `mark` is
        called at the end of each pass, or once at the end of all where the engine is not stepwise.

        Raises:
            EngineError: a pass failed.
        """
        ...

    def reset(self) -> None:
        """Forget the cache's contents; buffers stay where they are."""
        ...


class ScriptedEngine:
    """A fake that emits given action tokens in turn, again from the start when they run out."""

    name = "scripted"
    stepwise = True

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self.reset()

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        for index in range(len(frame.passes)):
            frame.logits[index] = 0.0
            frame.logits[
                index, self._tokens[self.passes % len(self._tokens)] - FIRST_CONTINUOUS_ID
            ] = 1.0
            frame.tokens[index] = FIRST_CONTINUOUS_ID + int(
                np.argmax(frame.logits[index] + frame.bias[index])
            )
            self.passes += 1
            mark()

    def reset(self) -> None:
        """Start the script again."""
        self.passes = 0
        """Passes since the last reset."""
