"""The work that every engine does: one random Llama, one full window, the same ticks.

Standard library only, so that every engine's process can read it. A size's folder holds the checkpoint as the peers
load it (`llama/`), as gatort does (`bundle-<prefill>-<precision>/`), what each engine makes of it, and the work.

Letters: t prefill tokens, A action tokens, T = t + A − 1 tokens in a frame, n frames, W = n·T the window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Precision = Literal["fp32", "int8"]
Settings = dict[str, Any]
"""An engine's own flags, by the engine's own names."""

PREFILLS = (45, 60)
ACTION_TOKENS = 8
VOCABULARY = 1_024
"""Gato's action bins and nothing else: gatort computes no other logits, and nobody else has to either."""
WINDOW_TOKENS = 1_024
"""At most so many; gatort takes a whole number of frames of it, and the peers the same."""
PROMPTS = 8
"""Different ticks that an engine is checked with, in turn."""


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of a Llama with as many key heads as query heads and its head tied to its embeddings."""

    layers: int
    heads: int
    head_size: int
    ff_width: int

    @property
    def width(self) -> int:
        """D."""
        return self.heads * self.head_size

    @property
    def weights(self) -> int:
        """Numbers that a pass reads: every matrix, the head included."""
        return (
            self.layers * self.width * (4 * self.width + 3 * self.ff_width)
            + VOCABULARY * self.width
        )


SIZES = {
    "5M": Size(layers=6, heads=8, head_size=32, ff_width=704),
    "26M": Size(layers=8, heads=8, head_size=64, ff_width=1408),
}
"""About what two cores run at 20 Hz with ease, and about the most that they can."""


@dataclass(frozen=True, slots=True)
class Work:
    """The ticks of one prefill length; tokens are counted from 0, the first action bin."""

    prefill: int
    history: list[int]
    """(W − T,) what lies in the window before the tick."""
    prompts: list[list[int]]
    """(8, t) what a tick reads, by turns."""

    @property
    def window(self) -> int:
        """W."""
        return len(self.history) + self.prefill + ACTION_TOKENS - 1

    def save(self, folder: Path) -> None:
        """Write `work-<prefill>.json`."""
        (folder / f"work-{self.prefill}.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path, prefill: int) -> Work:
        """Read what `save` wrote."""
        return cls(**json.loads((folder / f"work-{prefill}.json").read_text()))


@dataclass(frozen=True, slots=True)
class Run:
    """What one engine did in one turn."""

    ticks_ms: list[float]
    tokens: list[list[int]]
    """(8, 8) of each prompt."""
    versions: str


class Engine(Protocol):
    """What `engine_*.py` offers; each also has `choices(precision, cores)` and `prepare(folder, precision)`."""

    versions: str
    """The packages that do the work."""

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        """Load the model."""

    def fill(self, work: Work) -> None:
        """Make a cache that holds the history."""

    def rewind(self) -> None:
        """Bring the cache back to that; not timed."""

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Read the prompt and give the action's 8 tokens, the likeliest each."""
