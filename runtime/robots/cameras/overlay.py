"""A live picture, the simulated one, and the edges of the simulated arm over the live picture."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .opencv import cv2

EDGE_COLOUR: Final = (255, 0, 255)
"""Magenta, RGB: no arm, table or block has it."""
_CANNY: Final = (40, 120)
"""Weakest and strongest gradient of an edge inside the arm."""


def beside(
    live: NDArray[np.uint8], simulated: NDArray[np.uint8], arm: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return three pictures in a row, (H, 3·W, 3) RGB: live, simulated, overlay.

    Args:
        live: (H, W, 3) RGB.
        simulated: (H, W, 3) RGB.
        arm: (H, W), true where the simulated arm is seen.
    """
    overlay = live.copy()
    overlay[_edges(simulated, arm)] = EDGE_COLOUR
    return np.hstack([live, simulated, overlay])


def _edges(simulated: NDArray[np.uint8], arm: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the outline of the arm and the edges inside it, (H, W)."""
    grey: Any = cv2.cvtColor(simulated, cv2.COLOR_RGB2GRAY)
    inside = (cv2.Canny(grey, *_CANNY) > 0) & arm
    outlines, _ = cv2.findContours(arm.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = np.zeros(arm.shape, np.uint8)
    cv2.drawContours(outline, outlines, -1, 1, 1)
    edges: NDArray[np.bool_] = inside | (outline > 0)
    return edges
