"""Pictures in training: uint8 in memory, varied and cut into patches on the device.

Letters: B sequences, F frames in a sequence, H and W the picture's size, p patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gatort.runtime.patches import PIXEL_OFFSET, PIXEL_SCALE
from gatort.runtime.spec import PATCH_PIXELS


def cut(pictures: Sequence[Tensor]) -> Tensor:
    """Cut pictures (…, H, W, 3) in [0, 255] into patches (…, p, 3, 16, 16), in [−1, 1] / 4.

    The values are those of `gatort.runtime.patches.image_patches`.
    """
    return torch.cat([_cut_one(picture) for picture in pictures], dim=-4)


def _cut_one(picture: Tensor) -> Tensor:
    *lead, height, width, colours = picture.shape
    rows = height // PATCH_PIXELS
    columns = width // PATCH_PIXELS
    tiles = picture.reshape(*lead, rows, PATCH_PIXELS, columns, PATCH_PIXELS, colours)
    at = len(lead)
    order = (*range(at), at, at + 2, at + 4, at + 1, at + 3)
    patches = tiles.permute(order).flatten(at, at + 1)  # (…, p, 3, 16, 16)
    return patches.float() * float(PIXEL_SCALE) - float(PIXEL_OFFSET)


def varied(picture: Tensor, shift_px: int, gain: float, rng: np.random.Generator) -> Tensor:
    """Return pictures (B, F, H, W, 3) of one camera, shifted and with other brightness.

    All frames of a sequence change alike. The result is float32 in [0, 255].

    Args:
        picture: the camera's pictures, uint8.
        shift_px: largest shift along rows and columns.
        gain: largest relative change of each colour.
        rng: random numbers.
    """
    count = len(picture)
    if shift_px:
        shifts = rng.integers(-shift_px, shift_px + 1, (2, count))  # rows, columns
        picture = _shifted(picture, torch.from_numpy(shifts).to(picture.device))
    gains = rng.uniform(1 - gain, 1 + gain, (count, 1, 1, 1, 3))
    factors = torch.from_numpy(gains).to(picture.device, torch.float32)
    return (picture.float() * factors).clamp(0, 255)


def _shifted(picture: Tensor, shifts: Tensor) -> Tensor:
    """Shift pictures (B, F, H, W, 3) by `shifts` (2, B) pixels, with a repeated border."""
    count, _, height, width, _ = picture.shape
    device = picture.device
    rows = (torch.arange(height, device=device) + shifts[0, :, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + shifts[1, :, None]).clamp(0, width - 1)
    each = torch.arange(count, device=device)[:, None, None]
    moved = picture.transpose(1, 2).transpose(2, 3)  # (B, H, W, F, 3)
    taken = moved[each, rows[:, :, None], columns[:, None, :]]  # (B, H, W, F, 3)
    return taken.transpose(2, 3).transpose(1, 2)
