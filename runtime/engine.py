"""What runs the transformer: one call, a block of positions in, the last position's logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .context import Block
from .spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID


class Engine(Protocol):
    """A model with its KV cache; `forward` writes the block's keys and values at `write_index`."""

    @property
    def name(self) -> str:
        """What to call it in reports, for example `onnx cpu`."""
        ...

    def forward(self, block: Block) -> NDArray[np.float32]:
        """Logits (R,) of the block's last position over the actuators' bins.

        The array belongs to the engine and holds until the next `forward`.

        Raises:
            EngineError: the pass failed.
        """
        ...

    def reset(self) -> None:
        """Forget the cache's contents; buffers stay where they are."""
        ...


class ScriptedEngine:
    """A fake that emits given action tokens in turn, again from the start when they run out."""

    name = "scripted"

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self._logits = np.zeros(CONTINUOUS_BINS, np.float32)
        self.reset()

    def forward(self, block: Block) -> NDArray[np.float32]:  # noqa: ARG002 a script looks at nothing
        """See `Engine.forward`."""
        self._logits[:] = 0.0
        self._logits[self._tokens[self.passes % len(self._tokens)] - FIRST_CONTINUOUS_ID] = 1.0
        self.passes += 1
        return self._logits

    def reset(self) -> None:
        """Start the script again."""
        self.passes = 0
        """Passes since the last reset."""
