"""transformers with a StaticCache, eager or compiled; torchao rounds to int8, except the head."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, StaticCache
from work import ACTION_TOKENS, Precision, Settings, Work


def choices(precision: Precision, cores: int) -> list[Settings]:
    """Return the settings to try: threads, and for int8 also rounded activations."""
    if precision == "fp32":
        return [{"threads": 1}, {"threads": cores}]
    return [{"threads": cores, "activations": "float32"}, {"threads": cores, "activations": "int8"}]


def prepare(folder: Path, precision: Precision) -> None:
    """Do nothing: the checkpoint is in the library's own form."""


class Engine:
    """Engine with `LlamaForCausalLM` and its scaled-dot-product attention."""

    versions = f"transformers {version('transformers')}, torch {version('torch')}"
    compiled = False

    def __init__(self, folder: Path, precision: Precision, settings: Settings) -> None:
        torch.set_num_threads(int(settings["threads"]))
        self._model = LlamaForCausalLM.from_pretrained(
            folder / "llama", attn_implementation="sdpa", dtype=torch.float32
        )
        self._model.eval()
        if precision == "int8":
            self._round(str(settings["activations"]))
        self._caches: dict[int, StaticCache] = {}
        self._forward = self._model.forward
        if self.compiled:
            # Prefill and decode are two shapes; each gets its own code, with its weights packed.
            torch._inductor.config.freezing = True  # noqa: SLF001 where its documentation puts it
            self._forward = torch.compile(self._model.forward, dynamic=False)

    def _round(self, activations: str) -> None:
        from torchao.quantization import (
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )

        rounding = (
            Int8DynamicActivationInt8WeightConfig()
            if activations == "int8"
            else Int8WeightOnlyConfig()
        )
        quantize_(self._model.model, rounding)

    @torch.no_grad()
    def fill(self, work: Work) -> None:
        """Read the history at once, uncompiled.

        Each window has a cache of its own, because compiled code holds its address.
        """
        self._before = len(work.history)
        if work.prefill not in self._caches:
            cache = self._caches[work.prefill] = StaticCache(
                config=self._model.config, max_cache_len=work.window
            )
            self._model(torch.tensor([work.history]), past_key_values=cache, use_cache=True)
        self._cache = self._caches[work.prefill]

    def rewind(self) -> None:
        """Reset the counters; rows beyond them are masked."""
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(self._before)

    @torch.no_grad()
    def tick(self, prompt: Sequence[int]) -> list[int]:
        """Compute the last position's logits, as generate() does, and return the tokens."""
        ids = torch.tensor([prompt])
        tokens = []
        for _ in range(ACTION_TOKENS):
            logits = self._forward(
                ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            ).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)  # (1, 1)
            tokens.append(ids)
        return [int(token) for token in tokens]
