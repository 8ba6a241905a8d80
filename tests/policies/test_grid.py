"""Weights that int4, int8 and float16 hold exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gatort.policies.grid import BLOCK, LARGEST, on_grid, snap, straight_through


@pytest.fixture
def weight() -> torch.Tensor:
    """Weights (32, 384): three blocks a row, the last one sixteen times smaller."""
    torch.manual_seed(0)
    return torch.randn(32, 384) * torch.tensor([1.0, 0.3, 1 / 16]).repeat_interleave(BLOCK)


def test_int4_in_blocks_of_128_holds_every_weight_exactly(weight: torch.Tensor) -> None:
    blocks = on_grid(weight).reshape(32, 3, BLOCK)
    exact = torch.zeros(32, 3, 1, dtype=torch.bool)
    for largest in range(1, LARGEST + 1):  # the integer that the block's largest weight is
        scale = blocks.abs().amax(-1, keepdim=True) / largest
        integers = (blocks / scale).round()
        exact |= ((integers * scale == blocks) & (integers.abs() <= LARGEST)).all(-1, keepdim=True)
    assert exact.all()


def test_int8_with_one_scale_a_row_holds_every_weight_exactly(weight: torch.Tensor) -> None:
    snapped = on_grid(weight)
    scale = snapped.abs().amax(-1, keepdim=True) / (16 * LARGEST)
    integers = (snapped / scale).round()
    assert integers.abs().max() <= 127
    assert torch.equal(integers * scale, snapped)


def test_float16_holds_every_weight_exactly(weight: torch.Tensor) -> None:
    snapped = on_grid(weight)
    assert torch.equal(snapped.half().float(), snapped)


def test_the_grid_is_near_and_weights_on_it_stay(weight: torch.Tensor) -> None:
    snapped = on_grid(weight)
    assert torch.equal(on_grid(snapped), snapped)
    step = weight.abs().amax(-1, keepdim=True) / LARGEST
    # Half a step, and the share of 2^-8 by which bfloat16 may cut the largest weight.
    assert ((snapped - weight).abs() <= step * (0.5 + 7 / 256)).all()


def test_a_row_of_zeros_stays_zero() -> None:
    assert not on_grid(torch.zeros(2, 256)).any()


def test_the_gradient_goes_past_the_rounding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(BLOCK, 4, bias=False))
    seen = straight_through(model)["0.weight"]
    assert torch.equal(seen, on_grid(model[0].weight.detach()))
    seen.sum().backward()
    assert torch.equal(model[0].weight.grad, torch.ones(4, BLOCK))


def test_snapping_leaves_embeddings_and_norms_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(8, BLOCK), nn.Linear(BLOCK, 4), nn.LayerNorm(4))
    embedding, bias = model[0].weight.clone(), model[1].bias.clone()
    snap(model)
    assert torch.equal(model[0].weight, embedding)
    assert torch.equal(model[1].bias, bias)
    assert torch.equal(model[1].weight, on_grid(model[1].weight))
