"""The look of a trial: surfaces, lights, cameras and clutter. Physics does not depend on it.

A part that is `None` or empty stays as the scene has it. Colours are RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TEXTURE_PIXELS: Final = 64
"""Height and width of a texture."""
MOST_LIGHTS: Final = 3
"""Number of lamps that the arm's scene holds; all but the first are off in the nominal look."""
MOST_CLUTTER: Final = 4
"""Number of things beside the table that the arm's scene holds; none is seen in the nominal
look."""


@dataclass(frozen=True, slots=True)
class Light:
    """A lamp of parallel light."""

    position: Array
    """Place in W, (3,) m."""
    direction: Array
    """Direction of the light in W, (3,)."""
    colour: Array
    """Diffuse intensity, (3,)."""
    casts_shadow: bool


@dataclass(frozen=True, slots=True)
class CameraShift:
    """Difference of a camera from its nominal place, in the camera's own axes."""

    offset_m: Array
    """(3,): right, up, backwards."""
    turn_rad: Array
    """Rotation vector (3,)."""
    wider_rad: float
    """Vertical field of view beyond the nominal one."""


@dataclass(frozen=True, slots=True)
class Clutter:
    """A thing that lies beside the table and touches nothing."""

    round: bool
    """True for a ball, false for a box."""
    position: Array
    """Centre in W, (3,) m."""
    size_m: Array
    """Half edges, (3,); a ball's radius is the first."""
    colour: Array


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that a camera sees differently from trial to trial."""

    table: NDArray[np.uint8] | None = None
    """Texture of the table, (64, 64, 3)."""
    table_repeats: float = 8.0
    """Number of copies of the texture along the table."""
    background: Array | None = None
    """Colours of the background at the top and the bottom, (2, 3)."""
    arm: Array | None = None
    """Colours of the arm's shells and its joints, (2, 3)."""
    grain: NDArray[np.uint8] | None = None
    """Brightness of arm and cubes over their surface, (64, 64); 255 is nominal."""
    cubes: Array | None = None
    """Colour of each cube in the scene's order, (cubes, 3)."""
    brightness: float = 1.0
    """Factor on the scene's own light. Lights below that are given replace that light."""
    ambient: Array | None = None
    """Light from everywhere, (3,)."""
    headlight: Array | None = None
    """Light from the camera's place, (3,)."""
    lights: tuple[Light, ...] = ()
    """Lamps, at most `MOST_LIGHTS`. Empty keeps the scene's."""
    cameras: tuple[tuple[str, CameraShift], ...] = ()
    """Displaced cameras by name."""
    clutter: tuple[Clutter, ...] = ()
    """Things beside the table, at most `MOST_CLUTTER`."""


PLAIN: Final = Look()
"""The nominal look."""
