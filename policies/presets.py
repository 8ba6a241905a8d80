"""Model sizes by name. A bundle stores the dimensions themselves, never the name."""

from __future__ import annotations

from difflib import get_close_matches

from gatort.runtime.errors import ConfigError
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims

# The gato sizes have the paper's layers, heads, head size and width (arXiv 2205.06175, table 5).
# Rotary positions replace its relative-position projections. The d×d that this frees in each layer
# widens the feed-forward part (8192/2 → 4864, 6144/2 → 3584, 3072/2 → 1792), which restores the
# paper's parameter count.
PRESETS: dict[str, ModelDims] = {
    "tiny": ModelDims(
        layers=2,
        heads=2,
        head_size=16,
        width=32,
        ff_half_width=64,
        first_token_id=0,
        local_positions=128,
    ),
    "stack": ModelDims(
        layers=3,
        heads=4,
        head_size=32,
        width=128,
        ff_half_width=384,
        first_token_id=FIRST_CONTINUOUS_ID,
        local_positions=64,
    ),
    "camera": ModelDims(
        layers=4,
        heads=8,
        head_size=32,
        width=256,
        ff_half_width=512,
        first_token_id=FIRST_CONTINUOUS_ID,
        local_positions=256,
    ),
    "gato-79m": ModelDims(
        layers=8,
        heads=24,
        head_size=32,
        width=768,
        ff_half_width=1792,
        first_token_id=0,
        local_positions=512,
    ),
    "gato-364m": ModelDims(
        layers=12,
        heads=12,
        head_size=128,
        width=1536,
        ff_half_width=3584,
        first_token_id=0,
        local_positions=512,
    ),
    "gato-1.2b": ModelDims(
        layers=24,
        heads=16,
        head_size=128,
        width=2048,
        ff_half_width=4864,
        first_token_id=0,
        local_positions=512,
    ),
}


def preset(name: str) -> ModelDims:
    """Return the dimensions of a size.

    Raises:
        ConfigError: the name is unknown. Lists the valid names.
    """
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}{hint}")
    return PRESETS[name]
