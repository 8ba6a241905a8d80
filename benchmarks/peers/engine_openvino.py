"""OpenVINO: the stateful model that optimum-intel writes, run by OpenVINO itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino
from work import ACTION_TOKENS, Precision, Settings, Work


def choices(precision: Precision, cores: int) -> list[Settings]:
    """Return the settings to try: threads, and for int8 also OpenVINO's default 8-bit cache."""
    caches = ["f32", "u8"] if precision == "int8" else ["f32"]
    return [{"threads": threads, "cache": cache} for threads in (1, cores) for cache in caches]


def prepare(folder: Path, precision: Precision) -> None:
    """Convert the checkpoint with the command from OpenVINO's documentation."""
    command = [
        str(Path(sys.executable).with_name("optimum-cli")),
        "export",
        "openvino",
        "-m",
        str(folder / "llama"),
    ]
    options = [
        "--task",
        "text-generation-with-past",
        "--weight-format",
        precision,
        str(folder / f"openvino-{precision}"),
    ]
    subprocess.run(command + options, check=True, capture_output=True)


class Engine:
    """Engine with one infer request, whose state is the cache."""

    versions = f"openvino {version('openvino')}, optimum-intel {version('optimum-intel')}"

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": settings["threads"],
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": settings["cache"],
        }
        model = folder / f"openvino-{precision}" / "openvino_model.xml"
        self._request = (
            openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
        )

    def fill(self, work: Work) -> None:
        """Read the history at once and keep the state."""
        self._before = len(work.history)
        self._request.reset_state()
        self._pass(work.history, 0)
        self._kept = [(state, state.state.data.copy()) for state in self._request.query_state()]

    def rewind(self) -> None:
        """Restore copies of the states, because a state cannot be shortened in place."""
        for state, values in self._kept:
            state.state = openvino.Tensor(values)

    def _pass(self, ids: Sequence[int], past: int) -> int:
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, past + len(ids)), np.int64),
            "position_ids": np.arange(past, past + len(ids))[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.infer(inputs, share_inputs=True)
        return int(self._request.get_output_tensor(0).data[0, -1].argmax())

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Run a prefill, then decodes that feed each other, and return the tokens."""
        tokens = [self._pass(prompt, self._before)]
        for position in range(ACTION_TOKENS - 1):
            tokens.append(self._pass(tokens[-1:], self._before + len(prompt) + position))
        return tokens
