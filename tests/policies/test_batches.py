"""Batches: the right frames, in order, prepared in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from gatort.policies.batches import Batch, ahead
from gatort.policies.demos import Frames

FRAMES = Frames(
    ids=np.arange(20).reshape(10, 2),
    pictures=(np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1),),
    targets=np.arange(10, dtype=np.float32)[:, None],
    starts=np.array([0, 10]),
    places=np.arange(60, dtype=np.float32).reshape(10, 2, 3),
    labelled=np.arange(10) % 2 == 0,
)


def test_a_batch_holds_the_frames_after_each_start() -> None:
    batch = Batch.of(FRAMES, np.array([6, 2]), 3)
    assert batch.ids.shape == (2, 3, 2)
    assert batch.targets[..., 0].tolist() == [[6, 7, 8], [2, 3, 4]]
    assert batch.pictures[0][:, :, 0, 0, 0].tolist() == [[6, 7, 8], [2, 3, 4]]
    assert batch.places.shape == (2, 3, 2, 3)
    assert batch.labelled.tolist() == [[True, False, True]] * 2
    assert batch.paired().labelled.shape == (4, 3)


def test_a_batch_is_a_copy() -> None:
    batch = Batch.of(FRAMES, np.array([0]), 2)
    batch.ids[:] = -1
    batch.pictures[0][:] = 255
    assert FRAMES.ids[0, 0] == 0
    assert FRAMES.pictures[0][0].max() == 0


def test_items_come_in_order_and_are_made_in_another_thread() -> None:
    makers = set()

    def items() -> Iterator[int]:
        for item in range(5):
            makers.add(threading.current_thread().name)
            yield item

    assert list(ahead(items())) == [0, 1, 2, 3, 4]
    assert threading.current_thread().name not in makers


def test_an_error_of_the_maker_reaches_the_consumer() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="no more"):
        next(coming)
