"""onnxruntime-genai: its own model builder, its cache shared between past and present, rewound."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai
from work import ACTION_TOKENS, Precision, Settings, Work


def choices(precision: Precision, cores: int) -> list[Settings]:  # noqa: ARG001 the same for both
    """Return the settings of threads and spinning to try."""
    return [
        {"threads": 1, "spinning": 0},
        {"threads": cores, "spinning": 0},
        {"threads": cores, "spinning": 1},
    ]


def prepare(folder: Path, precision: Precision) -> None:
    """Run the library's model builder, which chooses its own fusions and rounding."""
    command = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-e",
        "cpu",
        "-p",
        precision,
    ]
    paths = [
        "-i",
        str(folder / "llama"),
        "-o",
        str(folder / f"genai-{precision}"),
        "-c",
        str(folder / "genai-cache"),
    ]
    subprocess.run(command + paths, check=True, capture_output=True)


class Engine:
    """Engine with a greedy `Generator`."""

    versions = (
        f"onnxruntime-genai {version('onnxruntime-genai')}, onnxruntime {version('onnxruntime')}"
    )

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        config = genai.Config(str(folder / f"genai-{precision}"))
        options = {
            "intra_op_num_threads": settings["threads"],
            "inter_op_num_threads": 1,
            "session.intra_op.allow_spinning": str(settings["spinning"]),
            "session.set_denormal_as_zero": "1",
        }
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = genai.Model(config)

    def fill(self, work: Work) -> None:
        """Read the history at once."""
        params = genai.GeneratorParams(self._model)
        # One more than the window: the generator stops there, but never reads the last token.
        params.set_search_options(
            max_length=work.window + 1, past_present_share_buffer=True, do_sample=False
        )
        self._generator = genai.Generator(self._model, params)
        self._generator.append_tokens(np.array([work.history], np.int32))
        self._before = len(work.history)

    def rewind(self) -> None:
        """Rewind the generator."""
        self._generator.rewind_to(self._before)

    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Prefill with the first call, decode with the others, and return the tokens."""
        self._generator.append_tokens(np.array([prompt], np.int32))
        tokens = []
        for _ in range(ACTION_TOKENS):
            self._generator.generate_next_token()
            tokens.append(int(self._generator.get_next_tokens()[0]))
        return tokens
