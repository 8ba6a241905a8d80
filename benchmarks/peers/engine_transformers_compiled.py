"""transformers with a StaticCache and torch.compile."""

from __future__ import annotations

import engine_transformers
from engine_transformers import prepare
from work import Precision, Settings

__all__ = ["Engine", "choices", "prepare"]


def choices(precision: Precision, cores: int) -> list[Settings]:
    """Every core: one was half slower wherever it was tried, and each setting takes 20 s to compile."""
    return [
        settings
        for settings in engine_transformers.choices(precision, cores)
        if settings["threads"] == cores
    ]


class Engine(engine_transformers.Engine):
    """The same, compiled."""

    compiled = True
