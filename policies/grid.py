"""Weights that int4 holds exactly, so that compiling to int8 or int4 changes nothing.

The logits of neighbouring bins of a continuous action nearly tie. Rounding a finished policy's
weights therefore moves its tokens, even if its behaviour survives. Here the rounding is part of
training. The forward pass sees weights on the grid, and the gradient ignores the rounding (Bengio
et al., arXiv 1308.3432; Jacob et al., arXiv 1712.05877). The bundle gets the rounded weights.

A row's weights are `q · s · 2^−k`. The integer `q` has a magnitude of 7 at most. The row (an
output channel) has one scale `s`, with the 8 significant bits of bfloat16. Each block of 128 inputs
has one `k` in 0…4. Three formats hold such weights exactly:

- int4 in blocks of 128, with scales s · 2^−k;
- int8 with one scale s / 16 for the row;
- float16, whose 11 significant bits hold the product of 3 and 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

BLOCK: Final = 128
"""Inputs that share a shift."""
LARGEST: Final = 7
"""Largest magnitude of an int4 code."""
SHIFTS: Final = 4
"""Largest shift of a block."""


def on_grid(weight: Tensor) -> Tensor:
    """Return the weights on the grid that are nearest to `weight` (rows, inputs)."""
    rows, inputs = weight.shape
    block = BLOCK if inputs % BLOCK == 0 else inputs
    smallest = torch.finfo(weight.dtype).tiny
    blocks = weight.reshape(rows, -1, block)  # (rows, blocks, block)
    largest = blocks.abs().amax(-1, keepdim=True).clamp_min(smallest)  # (rows, blocks, 1)
    row_largest = largest.amax(1, keepdim=True)  # (rows, 1, 1)

    shift = (row_largest / largest).log2().floor().clamp(0, SHIFTS)  # (rows, blocks, 1)
    scale = (row_largest / LARGEST).bfloat16().type_as(weight) * torch.exp2(-shift)
    return ((blocks / scale).round().clamp(-LARGEST, LARGEST) * scale).reshape(rows, inputs)


def matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and weight of every linear layer, which a compiled policy may round."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{name}.weight", module.weight


def straight_through(model: nn.Module) -> dict[str, Tensor]:
    """Return weights on the grid by name, whose gradient goes to the weights before rounding."""
    return {
        name: weight + (on_grid(weight.detach()) - weight).detach()
        for name, weight in matrices(model)
    }


@torch.no_grad()
def snap(model: nn.Module) -> None:
    """Replace a model's weights by the nearest ones on the grid."""
    for _, weight in matrices(model):
        weight.copy_(on_grid(weight))
