"""gatort itself: the bundle, the ring of frames and the whole tick as the control loop runs them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from work import ACTION_TOKENS, Precision, Settings, Work

from gatort.runtime.bundle import MANIFEST_FILE, ONNX_FILE, load_manifest
from gatort.runtime.context import Context
from gatort.runtime.engine_onnx import OnnxConfig, OnnxEngine
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

FORCED = 1e9
"""A bias that no logit outweighs."""


def choices(precision: Precision, cores: int) -> list[Settings]:  # noqa: ARG001 the same for both
    """Threads and spinning to try."""
    return [{"threads": 1}, {"threads": cores}, {"threads": cores, "spinning": True}]


def prepare(folder: Path, precision: Precision) -> None:
    """Round a bundle's graph to w8a8: the peers round activations too. Float32 ones are there already."""
    from gatort.export.precision import convert

    if precision == "fp32":
        return
    for source in sorted(folder.glob("bundle-*-fp32")):
        target = folder / source.name.replace("fp32", precision)
        target.mkdir()
        shutil.copy(source / MANIFEST_FILE, target)
        convert(source / ONNX_FILE, target / ONNX_FILE, 8, half_floats=False, round_activations=True)


class Engine:
    """One frame after another until the window is full; then the last one, again and again."""

    versions = f"gatort {version('gatort')}, onnxruntime {version('onnxruntime')}"

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        self._folder, self._precision, self._config = folder, precision, OnnxConfig.model_validate(settings)

    def fill(self, work: Work) -> None:
        """Let the engine write the history, its action tokens forced."""
        bundle = self._folder / f"bundle-{work.prefill}-{self._precision}"
        manifest = load_manifest(bundle)
        self._context = Context(manifest.spec, manifest.model)
        self._engine = OnnxEngine(bundle, manifest, self._config)
        frame = self._context.frame
        for ids in np.reshape(work.history, (-1, work.prefill + ACTION_TOKENS - 1)):
            frame.bias[:] = 0.0
            frame.bias[np.arange(ACTION_TOKENS - 1), ids[work.prefill :]] = FORCED
            self.tick(ids[: work.prefill])
            self._context.end_frame(0)
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
