"""Weights where int4 can hold them: training on the grid, so that compiling to int8 or int4 changes nothing.

A continuous action's bins nearly tie with their neighbours, so rounding a finished policy's weights moves its tokens
even where its behaviour survives. Here the rounding is part of training instead: the forward pass sees weights on the
grid, the gradient goes past the rounding (Bengio et al., arXiv 1308.3432; Jacob et al., arXiv 1712.05877), and the
bundle gets the rounded weights themselves.

A row's weights are q · s · 2^−k: q an integer of at most 7, s one scale for the row (an output channel) with the 8
significant bits of bfloat16, and k in 0…4 for each block of 128 inputs. So int4 in blocks of 128 holds them exactly,
with scales s · 2^−k; so does int8 with one scale s / 16 for the row; and so does float16, whose 11 bits take the
product of 3 and 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

BLOCK: Final = 128
LARGEST: Final = 7
SHIFTS: Final = 4


def on_grid(weight: Tensor) -> Tensor:
    """The nearest weights on the grid for `weight` (rows, inputs)."""
    rows, inputs = weight.shape
    blocks = weight.reshape(
        rows, -1, BLOCK if inputs % BLOCK == 0 else inputs
    )  # (rows, blocks, ≤ 128)
    largest = (
        blocks.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    )  # (rows, blocks, 1)
    of_row = largest.amax(1, keepdim=True)  # (rows, 1, 1)
    shift = (of_row / largest).log2().floor().clamp(0, SHIFTS)  # (rows, blocks, 1)
    scale = (of_row / LARGEST).bfloat16().type_as(weight) * torch.exp2(-shift)
    return ((blocks / scale).round().clamp(-LARGEST, LARGEST) * scale).reshape(rows, inputs)


def matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of the products that a compiled policy may round: every linear layer's."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{name}.weight", module.weight


def straight_through(model: nn.Module) -> dict[str, Tensor]:
    """Weights by name as the forward pass should see them: on the grid, with the gradient of the weights themselves."""
    return {
        name: weight + (on_grid(weight.detach()) - weight).detach()
        for name, weight in matrices(model)
    }


@torch.no_grad()
def snap(model: nn.Module) -> None:
    """Put a model's weights on the grid for good."""
    for _, weight in matrices(model):
        weight.copy_(on_grid(weight))
