"""A camera's own faults: exposure, blur, noise, compression, and pictures that are late or missing.

They come after drawing, so that every simulator has them.
"""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture, (H, W, 3)."""
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lens:
    """Optics and electronics of one camera in one trial. The defaults change nothing."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Exposure and white balance: factor on red, green and blue."""
    gamma: float = 1.0
    """Exponent of the brightness in [0, 1]."""
    blur_px: float = 0.0
    """Standard deviation of the blur. px"""
    noise: float = 0.0
    """Standard deviation of each pixel's noise, on the scale of 0 to 255."""
    jpeg_quality: int | None = None
    """Quality of JPEG compression in [1, 95], or `None` for no compression."""

    def expose(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Return a picture (H, W, 3) as the camera delivers it."""
        if self == CLEAR:
            return picture
        x = np.power(picture.astype(np.float32) / 255, self.gamma) * np.array(self.gain, np.float32)
        if self.blur_px > 0:
            x = _blurred(x, self.blur_px)
        x = x * 255
        if self.noise > 0:
            x += rng.normal(0.0, self.noise, x.shape)
        exposed = np.clip(np.rint(x), 0, 255).astype(np.uint8)
        return exposed if self.jpeg_quality is None else _compressed(exposed, self.jpeg_quality)


CLEAR: Final = Lens()
"""A lens without faults."""


def _blurred(x: NDArray[np.float32], std_px: float) -> NDArray[np.float32]:
    """Blur (H, W, 3) with a normal distribution, rows and columns in turn."""
    reach = max(1, round(3 * std_px))
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / std_px) ** 2).astype(np.float32)
    weights /= weights.sum()
    for axis in (0, 1):
        width = [(0, 0)] * 3
        width[axis] = (reach, reach)
        padded = np.pad(x, width, mode="edge")
        size = x.shape[axis]
        x = sum(
            weight * np.take(padded, range(first, first + size), axis=axis)
            for first, weight in enumerate(weights)
        )
    return x


def _compressed(picture: Pixels, quality: int) -> Pixels:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@dataclass(frozen=True, slots=True)
class Outages:
    """Times in which a camera's picture is frozen or black."""

    per_tick: float = 0.0
    """Probability that an outage begins at a tick at which there is none."""
    most_ticks: int = 10
    """Longest outage. Its length is drawn evenly from 1 on."""
    black: float = 0.5
    """Share of the outages in which the picture is black; otherwise the last one is repeated."""
    forever_from_ns: int | None = None
    """Time after the start of the trial from which the picture stays frozen."""


class Shutter:
    """Pictures of one camera, `latency_ns` late, with outages.

    Args:
        lens: faults of each picture.
        latency_ns: age of a picture when it is read.
        outages: frozen and black pictures.
        rng: random numbers of noise and outages.
    """

    def __init__(
        self, lens: Lens, latency_ns: int, outages: Outages, rng: np.random.Generator
    ) -> None:
        self.latency_ns = latency_ns
        self._lens = lens
        self._outages = outages
        self._rng = rng
        self._taken: deque[tuple[int, Pixels]] = deque()
        self._last: Pixels | None = None
        self._out_ticks = 0
        self._black = False

    def take(self, at_ns: int, picture: Pixels) -> None:
        """Keep a picture that was taken at an instant of the trial."""
        self._taken.append((at_ns, picture))

    def read(self, now_ns: int) -> Pixels:
        """Return the newest picture that has arrived, as the camera delivers it.

        Before the first one has arrived, the first one is returned.
        """
        while len(self._taken) > 1 and self._taken[1][0] + self.latency_ns <= now_ns:
            self._taken.popleft()
        picture = self._lens.expose(self._taken[0][1], self._rng)
        if self._last is not None and self._is_out(now_ns):
            return np.zeros_like(picture) if self._black else self._last
        self._last = picture
        return picture

    def _is_out(self, now_ns: int) -> bool:
        outages = self._outages
        if outages.forever_from_ns is not None and now_ns >= outages.forever_from_ns:
            self._black = False
            return True
        if self._out_ticks > 0:
            self._out_ticks -= 1
            return True
        if outages.per_tick > 0 and self._rng.random() < outages.per_tick:
            self._out_ticks = int(self._rng.integers(outages.most_ticks))
            self._black = bool(self._rng.random() < outages.black)
            return True
        return False
