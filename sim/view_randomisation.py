"""Variation of the look of a trial: surfaces, lights, cameras, lenses and latency.

It keeps a policy from learning one picture by heart (Tobin et al. 2017, arXiv 1703.06907). The
random numbers come from a stream of their own, so that layout and physics are the same with and
without.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from gatort.runtime.spec import Strict

from .lens import Lens, Outages
from .randomisation import Range
from .simulators.look import (
    MOST_CLUTTER,
    MOST_LIGHTS,
    PLAIN,
    TEXTURE_PIXELS,
    Array,
    CameraShift,
    Clutter,
    Light,
    Look,
)

_STREAM: Final = 2
"""Sets this stream of a seed apart from the layout's and from the physics'."""

HUES: Final = {"red": 0.0, "blue": 222.0, "green": 130.0}
"""Hue of each block, in degrees of the colour circle."""
HUE_SPREAD: Final = {"red": 14.0, "blue": 16.0, "green": 22.0}
"""Largest difference from the hue at which the block still has its name."""
# Table, arm and background stay paler than any block.
PALEST_BLOCK: Final = 0.6
BRIGHTEST_TABLE_SATURATION: Final = 0.4


@dataclass(frozen=True, slots=True)
class View:
    """One trial's look and cameras."""

    look: Look
    lenses: tuple[Lens, ...]
    """Lens of each camera."""
    latency_ns: int
    """Age of the pictures when they are read."""
    outages: tuple[Outages, ...]
    """Outages of each camera."""


class ViewRandomisation(Strict):
    """Ranges from which a trial's look is drawn."""

    surfaces: bool = True
    """Draw colours and textures of table, arm and background."""
    lamps: bool = True
    """Draw number, place, strength and shadows of the lamps."""
    clutter: bool = True
    """Put things beside the table."""
    block_colours: FiniteFloat = Field(default=1.0, ge=0, le=3)
    """Spread of the blocks' colours: 0 keeps them, 1 still names them red, blue and green."""
    light: Range = (0.65, 1.2)
    """Factor on all light."""
    camera_shift_m: Range = (0.0, 0.02)
    """Largest displacement of the front camera along its axes."""
    camera_turn_deg: Range = (0.0, 3.0)
    """Largest rotation of a camera about its axes."""
    camera_wider_deg: Range = (0.0, 3.0)
    """Difference of the vertical field of view, to either side."""
    bracket_m: Range = (0.0, 0.006)
    """Largest displacement of the wrist camera, which is bolted to the hand."""
    exposure: Range = (0.8, 1.2)
    """Factor on a picture's brightness, after the lamps."""
    white_balance: FiniteFloat = 0.08
    """Largest relative error of one colour."""
    gamma: Range = (0.8, 1.25)
    """Exponent of a picture's brightness."""
    blur_px: Range = (0.0, 0.8)
    """Standard deviation of the blur. px"""
    noise: Range = (0.0, 6.0)
    """Standard deviation of a pixel's noise, on the scale of 0 to 255."""
    jpeg_quality: tuple[int, int] | None = (40, 95)
    """Quality of JPEG compression, which half of the trials have. `None` for no compression."""
    latency_ms: Range = (0.0, 0.0)
    """Age of a picture when it is read. A real camera is 20 to 60 ms late."""
    outages_per_tick: FiniteFloat = 0.0
    """Probability that a camera's picture freezes or goes black for some ticks."""
    frozen_camera: str | None = None
    """Camera whose picture stays frozen from some time on, or `None`. For trials only."""
    frozen_from_s: FiniteFloat = 3.0
    """Time from the start of the trial at which that camera freezes."""

    def stream(self, seed: int) -> np.random.Generator:
        """Return the random numbers of a trial, independent of layout and physics."""
        return np.random.default_rng((seed, _STREAM))

    def draw(self, rng: np.random.Generator, cubes: Sequence[str], cameras: Sequence[str]) -> View:
        """Draw one trial's look.

        Args:
            rng: the trial's `stream`.
            cubes: names of the scene's cubes.
            cameras: names of the cameras that are read.
        """
        # The order of the draws is part of what a seed means.
        look = self._draw_look(rng, cubes, cameras)
        lenses = tuple(self._draw_lens(rng) for _ in cameras)
        return View(
            look=look,
            lenses=lenses,
            latency_ns=round(rng.uniform(*self.latency_ms)) * 1_000_000,
            outages=tuple(self._outages(name) for name in cameras),
        )

    def _outages(self, camera: str) -> Outages:
        frozen_ns = round(self.frozen_from_s * 1e9) if camera == self.frozen_camera else None
        return Outages(per_tick=self.outages_per_tick, forever_from_ns=frozen_ns)

    def _draw_look(
        self, rng: np.random.Generator, cubes: Sequence[str], cameras: Sequence[str]
    ) -> Look:
        light = rng.uniform(*self.light)
        lamps = draw_lamps(rng, light) if self.lamps else Look(brightness=light)
        surfaces = draw_surfaces(rng) if self.surfaces else PLAIN
        return replace(
            surfaces,
            cubes=draw_colours(rng, cubes, self.block_colours) if self.block_colours else None,
            brightness=lamps.brightness,
            ambient=lamps.ambient,
            headlight=lamps.headlight,
            lights=lamps.lights,
            cameras=tuple((name, self._draw_shift(rng, name)) for name in cameras),
            clutter=draw_clutter(rng) if self.clutter else (),
        )

    def _draw_shift(self, rng: np.random.Generator, camera: str) -> CameraShift:
        largest = self.bracket_m if camera == "wrist" else self.camera_shift_m
        return CameraShift(
            offset_m=_in_a_cube(rng) * rng.uniform(*largest),
            turn_rad=np.radians(_in_a_cube(rng) * rng.uniform(*self.camera_turn_deg)),
            wider_rad=float(np.radians(rng.choice((-1, 1)) * rng.uniform(*self.camera_wider_deg))),
        )

    def _draw_lens(self, rng: np.random.Generator) -> Lens:
        balance = rng.uniform(1 - self.white_balance, 1 + self.white_balance, 3)
        red, green, blue = balance * rng.uniform(*self.exposure)
        quality = None
        compressed = rng.random() < 0.5
        if self.jpeg_quality is not None and compressed:
            low, high = self.jpeg_quality
            quality = int(rng.integers(low, high + 1))
        return Lens(
            gain=(float(red), float(green), float(blue)),
            gamma=rng.uniform(*self.gamma),
            blur_px=rng.uniform(*self.blur_px),
            noise=rng.uniform(*self.noise),
            jpeg_quality=quality,
        )


NOMINAL_VIEW: Final = ViewRandomisation(
    surfaces=False,
    lamps=False,
    clutter=False,
    block_colours=0.0,
    light=(1.0, 1.0),
    camera_shift_m=(0.0, 0.0),
    camera_turn_deg=(0.0, 0.0),
    camera_wider_deg=(0.0, 0.0),
    bracket_m=(0.0, 0.0),
    exposure=(1.0, 1.0),
    white_balance=0.0,
    gamma=(1.0, 1.0),
    blur_px=(0.0, 0.0),
    noise=(0.0, 0.0),
    jpeg_quality=None,
)
"""Ranges that hold the nominal look alone. Sweeps widen one of them."""


TRAINING_VIEW: Final = ViewRandomisation(latency_ms=(0.0, 60.0), outages_per_tick=0.004)
"""Ranges of training. Pictures are late and fail for moments as well."""


def _in_a_cube(rng: np.random.Generator) -> Array:
    """Return a vector (3,) whose largest component is 1 or −1, its direction spread evenly."""
    x = rng.uniform(-1, 1, 3)
    scaled: Array = x / np.abs(x).max()
    return scaled


# -- Surfaces ------------------------------------------------------------------------------------


def draw_surfaces(rng: np.random.Generator) -> Look:
    """Draw table, background, arm and grain, all paler than the blocks."""
    pattern = draw_pattern(rng)[..., None]
    first, second = draw_pale(rng), draw_pale(rng)
    second = first + (second - first) * rng.uniform(0.05, 1.0)
    table = 255 * (first * (1 - pattern) + second * pattern)  # (64, 64, 3)
    shells = draw_pale(rng, darkest=0.35)
    joints = draw_pale(rng, darkest=0.1)
    grain = 255 * (1 - rng.uniform(0, 0.35) * draw_pattern(rng))  # (64, 64)
    return Look(
        table=table.astype(np.uint8),
        table_repeats=rng.uniform(1.5, 12.0),
        background=np.stack([draw_pale(rng), draw_pale(rng)]),
        arm=np.stack([shells, joints]),
        grain=grain.astype(np.uint8),
    )


def draw_pale(rng: np.random.Generator, darkest: float = 0.15) -> Array:
    """Draw a colour (3,) of low saturation."""
    saturation = BRIGHTEST_TABLE_SATURATION * rng.random() ** 1.5
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(darkest, 1.0)))


def draw_pattern(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pattern (64, 64) in [0, 1]: plain, checks, stripes, or clouds."""
    size = TEXTURE_PIXELS
    row, column = np.indices((size, size)) / size
    match rng.integers(4):
        case 0:
            pattern = np.zeros((size, size))
        case 1:
            squares = int(rng.integers(1, 5)) * 2
            pattern = (np.floor(row * squares) + np.floor(column * squares)) % 2
        case 2:
            stripes = int(rng.integers(1, 9))
            pattern = 0.5 + 0.5 * np.sin(2 * np.pi * (stripes * column + 0.3 * np.sin(6 * row)))
        case _:
            coarse = rng.random((int(rng.integers(3, 12)),) * 2)
            pattern = _enlarged(coarse, size)
    speckle = rng.uniform(0, 0.15) * rng.random((size, size))
    return np.clip(pattern * rng.uniform(0.3, 1.0) + speckle, 0, 1)


def _enlarged(coarse: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return (n, n) as (size, size), linear between the points."""
    at = np.linspace(0, len(coarse) - 1, size)
    known = np.arange(len(coarse))
    rows = np.stack([np.interp(at, known, line) for line in coarse])  # (n, size)
    return np.stack([np.interp(at, known, line) for line in rows.T], axis=1)


def draw_colours(rng: np.random.Generator, cubes: Sequence[str], spread: float) -> Array:
    """Draw the colour of each cube, (cubes, 3). A cube without a hue of its own gets a random one.

    Args:
        rng: random numbers.
        cubes: names of the cubes.
        spread: difference from the nominal colours. Up to 1 the colours keep their names.
    """
    return np.stack([_colour(rng, name, spread) for name in cubes])


def _colour(rng: np.random.Generator, name: str, spread: float) -> Array:
    turn, pale, dark = rng.uniform(-1, 1), rng.random(), rng.uniform(-1, 1)
    hue_deg = HUES.get(name, rng.uniform(0, 360)) + spread * HUE_SPREAD.get(name, 0.0) * turn
    saturation = 0.84 + spread * (0.12 - (0.96 - PALEST_BLOCK) * pale)
    value = 0.75 + spread * 0.25 * dark
    clipped = np.clip((saturation, value), (0.2, 0.15), 1.0)
    return np.array(colorsys.hsv_to_rgb(hue_deg / 360 % 1, *clipped))


# -- Lamps and clutter ---------------------------------------------------------------------------


def draw_lamps(rng: np.random.Generator, light: float) -> Look:
    """Draw lamps that together give about the nominal light times `light`."""
    number = int(rng.integers(1, MOST_LIGHTS + 1))
    shares = rng.dirichlet(np.ones(number + 2)) * 1.1 + 0.04  # ambient, headlight, lamps
    # Two trials in three have no shadows: a shadow map is half of a picture's cost.
    shadows = rng.random() < 1 / 3
    tints = 1 + rng.uniform(-0.1, 0.1, (number + 2, 3))
    tints[0] = 1
    ambient = light * max(0.25, shares[0]) * tints[0]
    headlight = light * shares[1] * tints[1]
    lights = tuple(
        _lamp(rng, light * share * tint, shadow=shadows and index == 0)
        for index, (share, tint) in enumerate(zip(shares[2:], tints[2:], strict=True))
    )
    return Look(ambient=ambient, headlight=headlight, lights=lights)


def _lamp(rng: np.random.Generator, colour: Array, *, shadow: bool) -> Light:
    position = rng.uniform((-0.6, -1.2, 0.9), (1.4, 1.2, 2.2))
    target = rng.uniform((0.3, -0.3, 0.0), (0.7, 0.3, 0.1))
    return Light(
        position=position,
        direction=target - position,
        colour=colour,
        casts_shadow=shadow,
    )


def draw_clutter(rng: np.random.Generator) -> tuple[Clutter, ...]:
    """Draw things that lie outside the blocks' area, of any colour."""
    return tuple(_thing(rng) for _ in range(int(rng.integers(MOST_CLUTTER + 1))))


def _thing(rng: np.random.Generator) -> Clutter:
    size_m = rng.uniform(0.015, 0.07, 3)
    side = rng.choice((-1.0, 1.0))
    place = (
        (rng.uniform(0.1, 0.9), side * rng.uniform(0.40, 0.75))
        if rng.random() < 0.75
        else (rng.uniform(-0.5, -0.2), rng.uniform(-0.5, 0.5))
    )
    colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.random(), rng.uniform(0.1, 1.0)))
    return Clutter(
        round=bool(rng.random() < 0.4),
        position=np.array([*place, size_m.max()]),
        size_m=size_m,
        colour=colour,
    )
