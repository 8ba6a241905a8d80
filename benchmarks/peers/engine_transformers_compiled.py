"""transformers with a StaticCache and torch.compile."""

from __future__ import annotations

import engine_transformers
from engine_transformers import prepare
from work import Precision, Settings

__all__ = ["Engine", "choices", "prepare"]


def choices(precision: Precision, cores: int) -> list[Settings]:
    """Return the settings with every core.

    One core was half slower in every trial, and each setting takes 20 s to compile.
    """
    return [
        settings
        for settings in engine_transformers.choices(precision, cores)
        if settings["threads"] == cores
    ]


class Engine(engine_transformers.Engine):
    """The engine of `engine_transformers`, compiled."""

    compiled = True
