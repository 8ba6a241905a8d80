"""gatort's native engine: bundle, ring of frames and tick as in the control loop."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from work import ACTION_TOKENS, Precision, Settings, Work

from gatort.runtime.bundle import Manifest, load_manifest
from gatort.runtime.context import Context
from gatort.runtime.engines import engine
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

FORCED = 1e9
"""Bias that no logit outweighs."""


class LlamaEngine(NativeEngine):
    """The native engine, compiled with Llama's norms and gates."""

    source = Path(__file__).with_name("llama.c")
    norm_biases = False


def choices(precision: Precision, cores: int) -> list[Settings]:  # noqa: ARG001 the same for both
    """Return the numbers of threads to try."""
    return [{"threads": 1}, {"threads": cores}]


def prepare(folder: Path, precision: Precision) -> None:
    """Do nothing: the engine rounds weights when it reads them."""


class Engine:
    """Engine that fills the window frame by frame, then repeats the last frame."""

    versions = f"gatort {version('gatort')}"

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        self._folder = folder
        self._precision = precision
        self._settings = settings

    def load(self, prefill: int) -> tuple[Manifest, engine.Engine]:
        """Return the manifest and the engine of a prefill length.

        int8 means w8a8 here, because the peers round activations too.
        """
        bundle = self._folder / f"bundle-{prefill}-fp32"
        manifest = load_manifest(bundle)
        precision = "w8a8" if self._precision == "int8" else "fp32"
        return manifest, LlamaEngine(bundle, manifest, self._settings["threads"], precision)

    def fill(self, work: Work) -> None:
        """Write the history into the cache, with its action tokens forced."""
        manifest, self._engine = self.load(work.prefill)
        self._context = Context(manifest.spec, manifest.model)
        frame = self._context.frame
        decoded = np.arange(ACTION_TOKENS - 1)
        for ids in np.reshape(work.history, (-1, work.prefill + ACTION_TOKENS - 1)):
            frame.bias[:] = 0.0
            frame.bias[decoded, ids[work.prefill :]] = FORCED
            self.tick(ids[: work.prefill])
            self._context.end_frame(FIRST_CONTINUOUS_ID)
        frame.bias[:] = 0.0

    def rewind(self) -> None:
        """Do nothing: a frame that was not ended begins again in the same slot."""

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Set up the frame, write its ids, run its passes and return its tokens."""
        # In the control loop, the set-up of the next frame is a part of each tick. Here, the same
        # slot is set up again.
        self._context.frames -= 1
        self._context.end_frame(FIRST_CONTINUOUS_ID)

        frame = self._context.frame
        frame.prefill.ids[0] = np.add(prompt, FIRST_CONTINUOUS_ID)
        self._engine.tick(frame)
        return [int(token) - FIRST_CONTINUOUS_ID for token in frame.tokens]
