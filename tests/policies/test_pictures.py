"""Pictures in training: the tokenizer's patches, and variation that leaves a sequence whole."""

from __future__ import annotations

import numpy as np
import torch

from gatort.policies.pictures import cut, varied
from gatort.runtime.patches import image_patches


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_patches_cut_on_a_device_equal_the_tokenizers() -> None:
    front, wrist = drawn(2, 3, 64, 64, 3), drawn(2, 3, 32, 48, 3)
    expected = np.zeros((2, 3, 16 + 6, 3, 16, 16), np.float32)
    image_patches(front, expected[:, :, :16])
    image_patches(wrist, expected[:, :, 16:])
    found = cut([torch.from_numpy(front), torch.from_numpy(wrist)])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_no_variation_leaves_pictures_as_they_are() -> None:
    picture = torch.from_numpy(drawn(4, 2, 16, 16, 3))
    same = varied(picture, shift_px=0, gain=0.0, rng=np.random.default_rng(0))
    torch.testing.assert_close(same, picture.float(), rtol=0, atol=0)


def test_a_sequence_is_shifted_as_a_whole_and_the_border_is_repeated() -> None:
    picture = torch.from_numpy(drawn(64, 2, 16, 16, 3))
    picture[:, 1] = picture[:, 0]
    shifted = varied(picture, shift_px=2, gain=0.0, rng=np.random.default_rng(1))
    torch.testing.assert_close(shifted[:, 0], shifted[:, 1], rtol=0, atol=0)

    padded = np.pad(picture[:, 0].numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    windows = {
        (row, column): padded[:, row : row + 16, column : column + 16]
        for row in range(5)
        for column in range(5)
    }
    seen = {
        place
        for index in range(64)
        for place, window in windows.items()
        if np.array_equal(window[index], shifted[index, 0].numpy())
    }
    assert len(seen) > 15  # 64 draws of 25 places leave out 2 on average.


def test_brightness_changes_each_colour_of_a_sequence_within_its_range() -> None:
    picture = torch.full((50, 2, 16, 16, 3), 100, dtype=torch.uint8)
    bright = varied(picture, shift_px=0, gain=0.2, rng=np.random.default_rng(2))
    factors = bright / 100
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2
    torch.testing.assert_close(factors[:, 0, 0, 0], factors[:, 1, 8, 8])
