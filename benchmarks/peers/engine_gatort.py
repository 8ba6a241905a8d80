"""gatort itself by its native engine: the bundle, the ring of frames and the tick as the control loop runs them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from work import ACTION_TOKENS, Precision, Settings, Work

from gatort.runtime.bundle import (
    Manifest,
    load_manifest,
)
from gatort.runtime.context import Context
from gatort.runtime.engines import engine
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

FORCED = 1e9
"""A bias that no logit outweighs."""


def choices(precision: Precision, cores: int) -> list[Settings]:  # noqa: ARG001 the same for both
    """Threads to try."""
    return [{"threads": 1}, {"threads": cores}]


def prepare(folder: Path, precision: Precision) -> None:
    """Nothing: the engine rounds weights when it reads them."""


class Engine:
    """One frame after another until the window is full; then the last one, again and again."""

    versions = f"gatort {version('gatort')}"

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        self._folder, self._precision, self._settings = folder, precision, settings

    def load(self, prefill: int) -> tuple[Manifest, engine.Engine]:
        """The engine for frames of that prefill, at w8a8 when asked for int8: the peers round activations too."""
        bundle = self._folder / f"bundle-{prefill}-fp32"
        manifest = load_manifest(bundle)
        precision = "w8a8" if self._precision == "int8" else "fp32"
        return manifest, NativeEngine(
            bundle, manifest, self._settings["threads"], precision, "llama"
        )

    def fill(self, work: Work) -> None:
        """Let the engine write the history, its action tokens forced."""
        manifest, self._engine = self.load(work.prefill)
        self._context = Context(manifest.spec, manifest.model)
        frame = self._context.frame
        for ids in np.reshape(work.history, (-1, work.prefill + ACTION_TOKENS - 1)):
            frame.bias[:] = 0.0
            frame.bias[np.arange(ACTION_TOKENS - 1), ids[work.prefill :]] = FORCED
            self.tick(ids[: work.prefill])
            self._context.end_frame(FIRST_CONTINUOUS_ID)
        frame.bias[:] = 0.0

    def rewind(self) -> None:
        """Nothing to do: a frame that was not ended is begun again in the same slot."""

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Angles, masks and ids of the frame, then its passes."""
        frame = self._context.frame
        self._context.begin_frame()
        frame.prefill.ids[0] = np.add(prompt, FIRST_CONTINUOUS_ID)
        self._engine.tick(frame)
        return [int(token) - FIRST_CONTINUOUS_ID for token in frame.tokens]
