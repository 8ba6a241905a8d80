"""Batches of sequences, prepared in a thread while the device computes.

Letters as in `train`: B sequences, F frames in a sequence, T tokens and p patches in a frame, A
action tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .demos import Frames

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of frames. The arrays are copies that belong to the batch."""

    ids: NDArray[np.int64]
    """(B, F, T − p) tokens without patches."""
    pictures: tuple[NDArray[np.uint8], ...]
    """(B, F, H, W, 3) pictures of each camera; (B / 2, …) of pairs, which see the same ones."""
    targets: NDArray[np.float32]
    """(B, F, A) the expert's actions on the scale of bins."""
    places: NDArray[np.float32]
    """(B, F, bodies, 3) places in the tool's frame, in m; empty if unknown."""
    labelled: NDArray[np.bool_]
    """(B, F) true where the targets are to be learned."""

    @classmethod
    def of(cls, frames: Frames, starts: NDArray[np.int64], length: int) -> Batch:
        """Copy sequences of `length` frames that begin at `starts` (B,)."""
        index = starts[:, None] + np.arange(length)  # (B, F)
        return cls(
            ids=frames.ids[index],
            pictures=tuple(picture[index] for picture in frames.pictures),
            targets=frames.targets[index],
            places=frames.places[index] if len(frames.places) else frames.places,
            labelled=frames.labelled[index],
        )

    def paired(self) -> Batch:
        """Return a batch that holds each sequence twice: B of them, then the same B."""
        places = np.tile(self.places, (2, 1, 1, 1)) if len(self.places) else self.places
        return Batch(
            ids=np.tile(self.ids, (2, 1, 1)),
            pictures=self.pictures,
            targets=np.tile(self.targets, (2, 1, 1)),
            places=places,
            labelled=np.tile(self.labelled, (2, 1)),
        )


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items in order, each made in a thread while its predecessor is in use."""
    end = object()
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
