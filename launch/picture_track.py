"""The pictures that a policy got during a run, kept for its film."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.robot import Observation
from gatort.runtime.spec import ObservationKey

MOST_BYTES = 1 << 29
"""Most memory for pictures: 18 minutes of two 64×64 cameras at 20 Hz."""


class PictureTrack:
    """Copies of the pictures of the first ticks, in memory that is fixed from the start.

    Args:
        keys: keys of the robot's observations. Only images are kept.
        ticks: largest number of ticks to keep; fewer where MOST_BYTES holds fewer.
    """

    def __init__(self, keys: Sequence[ObservationKey], ticks: int) -> None:
        self._images = [(index, key) for index, key in enumerate(keys) if key.encoding == "image"]
        size = sum(key.size for _, key in self._images)
        self._most = min(ticks, MOST_BYTES // size) if size else 0
        self._kept = [np.zeros((self._most, *key.shape), np.uint8) for _, key in self._images]
        self._newest: list[NDArray[np.uint8]] = []
        self._count = 0

    @property
    def newest(self) -> Sequence[NDArray[np.uint8]]:
        """The last pictures that the policy got, in the order of the keys."""
        return self._newest

    @property
    def pictures(self) -> Sequence[NDArray[np.uint8]]:
        """Pictures of each camera at each kept tick, (N, height, width, 3)."""
        return [kept[: self._count] for kept in self._kept]

    def keep(self, observation: Observation | None) -> None:
        """Keep a tick's pictures. A tick without an observation repeats the last ones."""
        if observation is not None:
            self._newest = [observation.values[index] for index, _ in self._images]
        if self._count >= self._most or not self._newest:
            return
        for kept, picture in zip(self._kept, self._newest, strict=True):
            kept[self._count] = picture
        self._count += 1
