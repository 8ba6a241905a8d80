"""Pictures of the faces of a tagged cube."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.placement import TAGS

from .cubes import TaggedCube


def draw_face(cube: TaggedCube, face: int, pixels: int) -> NDArray[np.uint8]:
    """Return a whole face as it is printed, (pixels, pixels), white margin included."""
    square_pixels = round(pixels * cube.tag_m / cube.edge_m)
    family = cv2.aruco.getPredefinedDictionary(TAGS)
    tag = cv2.aruco.generateImageMarker(family, cube.tags[face], square_pixels)
    picture = np.full((pixels, pixels), 255, np.uint8)
    margin = (pixels - square_pixels) // 2
    picture[margin : margin + square_pixels, margin : margin + square_pixels] = tag
    return picture
