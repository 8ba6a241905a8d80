"""Names and shapes of a policy graph's inputs and outputs, for every engine and for the export.

    inputs   ids, [patches], local, cos, sin, mask, write_index, bias: the fields of a `Block`
             k_0, v_0, k_1, v_1, …: the cache, keys and values of each layer
    outputs  logits, token, and k_0_out, v_0_out, …: the cache, updated in place

Letters: H heads, W window tokens, h head size.
"""

from __future__ import annotations

from gatort.runtime.spec import ModelDims, PolicySpec

BLOCK_INPUTS = ("ids", "local", "cos", "sin", "mask", "write_index", "bias")
"""Fields of a `Block` that every policy reads."""
PATCHES = "patches"
"""Field of a `Block` that only a policy with images reads."""


def block_inputs(spec: PolicySpec) -> tuple[str, ...]:
    """Return the fields of a `Block` that a policy reads."""
    return (*BLOCK_INPUTS, PATCHES) if spec.image_tokens else BLOCK_INPUTS


def cache_names(layers: int) -> list[str]:
    """Return the cache's inputs: keys and values of each layer."""
    return [f"{kind}_{layer}" for layer in range(layers) for kind in "kv"]


def cache_output(name: str) -> str:
    """Return the output that updates a cache input."""
    return f"{name}_out"


def cache_shape(spec: PolicySpec, dims: ModelDims) -> tuple[int, int, int, int]:
    """Return the shape of a layer's keys, and of its values (1, H, W, h)."""
    return (1, dims.heads, spec.window_tokens, dims.head_size)
