"""Smoothness of a motion: the spectral arc length of its speed (SPARC)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.robot import Observation
from gatort.runtime.robots.panda import JOINT_VELOCITY
from gatort.runtime.spec import Interface

CUT_OFF_HZ: Final = 10.0
"""Highest frequency that counts: a person's motions have none above it."""
LEAST_MAGNITUDE: Final = 0.05
"""Share of the largest magnitude below which the end of a spectrum is left out."""
PADDING: Final = 4
"""Factor by which zeros lengthen a motion, for a finer spectrum."""


def sparc(speed: NDArray[np.float64], rate_hz: float) -> float | None:
    """Return the spectral arc length of a motion; 0 is smoothest, jerky motions are far below.

    After Balasubramanian et al. 2015 (J. NeuroEng. Rehabil. 12:112), equations 5 and 6.

    Args:
        speed: speeds (N,) at equal times, in any unit. Their scale does not count.
        rate_hz: number of speeds in a second.

    Returns:
        The length, or `None` for a motion of fewer than two speeds or one that stands still.
    """
    if len(speed) < 2 or not speed.any():
        return None
    length = PADDING << (len(speed) - 1).bit_length()
    magnitude = np.abs(np.fft.rfft(speed, length))
    magnitude /= magnitude.max()
    frequency_hz = np.fft.rfftfreq(length, 1 / rate_hz)

    counts = (magnitude >= LEAST_MAGNITUDE) & (frequency_hz <= CUT_OFF_HZ)
    end = max(int(np.flatnonzero(counts)[-1]) + 1, 2)
    along, across = np.diff(frequency_hz[:end]), np.diff(magnitude[:end])
    return -float(np.hypot(along / frequency_hz[end - 1], across).sum())


class Motion:
    """Speed of an arm's joints over a trial."""

    def __init__(self, interface: Interface) -> None:
        names = [key.name for key in interface.observations]
        self._place = names.index(JOINT_VELOCITY) if JOINT_VELOCITY in names else None
        self._rate_hz = interface.control_hz
        self._speeds: list[float] = []

    def add(self, observation: Observation | None) -> None:
        """Add the speed of one tick. A tick without an observation, or without that key, is left
        out.
        """
        if observation is not None and self._place is not None:
            self._speeds.append(float(np.linalg.norm(observation.values[self._place])))

    @property
    def sparc(self) -> float | None:
        """Smoothness of the motion: see `sparc`."""
        return sparc(np.array(self._speeds), self._rate_hz)
