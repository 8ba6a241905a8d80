"""transformers with a StaticCache and torch.compile."""

from __future__ import annotations

import engine_transformers
from engine_transformers import choices, prepare

__all__ = ["Engine", "choices", "prepare"]


class Engine(engine_transformers.Engine):
    """The same, compiled."""

    compiled = True
