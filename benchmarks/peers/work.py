"""The work of every engine: one random Llama, one full window, the same ticks.

It needs the standard library only, so every engine's process can read it. A size's folder holds the
checkpoint as the peers load it (`llama/`) and as gatort does (`bundle-<prefill>-<precision>/`),
each engine's own conversion of it, and the work.

Letters: t prefill tokens, A action tokens, T = t + A − 1 tokens in a frame, n frames, W = n·T the
window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Precision = Literal["fp32", "int8"]
Settings = dict[str, Any]
"""Flags of an engine, under the engine's own names."""

PREFILLS = (45, 60)
ACTION_TOKENS = 8
VOCABULARY = 1_024
"""Number of Gato's action bins: no engine computes other logits."""
WINDOW_TOKENS = 1_024
"""Largest window; all engines use the largest whole number of frames in it."""
PROMPTS = 8
"""Number of different ticks that an engine is checked with, in turn."""


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of a Llama with as many key heads as query heads, and a tied output head."""

    layers: int
    """Number of layers."""
    heads: int
    """Number of heads."""
    head_size: int
    """Numbers in a head."""
    ff_width: int
    """Width of the feed-forward layer."""

    @property
    def width(self) -> int:
        """Width D of the model."""
        return self.heads * self.head_size

    @property
    def weights(self) -> int:
        """Number of weights that a pass reads: every matrix, the head included."""
        return (
            self.layers * self.width * (4 * self.width + 3 * self.ff_width)
            + VOCABULARY * self.width
        )


SIZES = {
    "5M": Size(layers=6, heads=8, head_size=32, ff_width=704),
    "26M": Size(layers=8, heads=8, head_size=64, ff_width=1408),
}
"""A size that two cores run at 20 Hz with ease, and about the largest that they can run."""


@dataclass(frozen=True, slots=True)
class Work:
    """Ticks of one prefill length; token 0 is the first action bin."""

    prefill: int
    """Number of tokens t that a tick reads at once."""
    history: list[int]
    """Tokens (W − T,) in the window before the tick."""
    prompts: list[list[int]]
    """Tokens (8, t) that ticks read in turn."""

    @property
    def window(self) -> int:
        """Size W of the window in tokens."""
        return len(self.history) + self.prefill + ACTION_TOKENS - 1

    def save(self, folder: Path) -> None:
        """Write `work-<prefill>.json`."""
        (folder / f"work-{self.prefill}.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path, prefill: int) -> Work:
        """Read the file of `save`."""
        return cls(**json.loads((folder / f"work-{prefill}.json").read_text()))


@dataclass(frozen=True, slots=True)
class Run:
    """Results of one engine in one turn."""

    ticks_ms: list[float]
    """Time of each tick."""
    tokens: list[list[int]]
    """Action tokens (8, 8) of each prompt."""
    versions: str
    """Packages that did the work, with their versions."""


class Engine(Protocol):
    """Class that each `engine_*.py` offers.

    Each module also has `choices(precision, cores)` and `prepare(folder, precision)`.
    """

    versions: str
    """Packages that do the work, with their versions."""

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        """Load the model."""

    def fill(self, work: Work) -> None:
        """Make a cache that holds the history."""

    def rewind(self) -> None:
        """Bring the cache back to the history; this is not timed."""

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Read the prompt and return the action's 8 tokens, each the likeliest."""
