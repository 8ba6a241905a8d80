"""Pictures for a calibration, taken by themselves whenever they show something new."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ObservationError
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.placement import find_board

from .calibrate import FEWEST_TILTED, BoardView, HandView, guess_tilt_rad
from .finder import CubeFinder

BOARDS: Final = 20
"""Number of pictures of a board that are taken for a lens."""
HANDS: Final = 15
"""Number of postures of the hand that are taken for a place."""
NEW_PX: Final = 40.0
"""A board is somewhere new if its corners moved by this much from those of each picture."""
TILT_PX_RAD: Final = 80.0
"""A board that is tilted by another 30° counts as moved by 40 px."""
CLEARLY_TILTED_RAD: Final = np.radians(25.0)
"""Guessed angle at which a board is taken as tilted. At focal lengths of 0.6 to 2 widths, a board
that is tilted by 15° is guessed below it in 49 of 50 pictures, and one of 45° always above it."""
NEW_RAD: Final = 0.15
"""A posture is new if a joint moved by this much from those of each posture."""
STILL_RAD: Final = 0.002
"""An arm is at rest while no joint is further than this from its place at the start of the rest."""
STILL_NS: Final = 500_000_000
"""Time for which the arm must rest, because a picture is older than the joints."""

Floats = NDArray[np.float64]


class BoardPictures:
    """Pictures of a board that somebody moves in front of a camera."""

    def __init__(self, board: Board) -> None:
        self.views: list[BoardView] = []
        self._board = board
        self._centres: list[Floats] = []
        self.tilted_left = FEWEST_TILTED
        """Number of pictures of a tilted board that are still missing."""

    @property
    def left(self) -> int:
        """Number of pictures that are still missing."""
        return BOARDS - len(self.views)

    def offer(self, grey: NDArray[np.uint8]) -> str:
        """Look at a picture (height, width). Return why it is not taken, or nothing."""
        try:
            points, pixels = find_board(grey, self._board)
        except ObservationError:
            return "the board is not seen"
        view = BoardView(points, pixels)
        height, width = grey.shape
        tilt_rad = guess_tilt_rad(view, (width, height))
        centre = np.array([*pixels.mean(axis=0), *pixels.std(axis=0), TILT_PX_RAD * tilt_rad])
        if any(np.abs(centre - other).sum() < NEW_PX for other in self._centres):
            return "move the board, tilt it, or bring it nearer"
        if tilt_rad > CLEARLY_TILTED_RAD:
            self.tilted_left = max(self.tilted_left - 1, 0)
        elif self.left <= self.tilted_left:
            return "tilt the board by about 45°"
        self._centres.append(centre)
        self.views.append(view)
        return ""


class HandPictures:
    """Pictures of a cube in the hand of an arm that somebody guides from posture to posture."""

    def __init__(self, finder: CubeFinder, held: str) -> None:
        """Look for a cube.

        Args:
            finder: finder of the cubes.
            held: name of the cube in the hand.
        """
        self.views: list[HandView] = []
        self._finder = finder
        self._held = held
        self._postures: list[Floats] = []
        self._rest: tuple[Floats, int] | None = None
        """Joints at the start of the rest, (7,), and that instant."""

    @property
    def left(self) -> int:
        """Number of postures that are still missing."""
        return HANDS - len(self.views)

    def is_ready(self, position_rad: Floats, now_ns: int) -> str:
        """Look at the joints, (7,). Return why no picture is taken now, or nothing.

        The joints' places tell a rest, because a measured speed is not zero at rest.
        """
        if self._rest is None or np.abs(position_rad - self._rest[0]).max() > STILL_RAD:
            self._rest = position_rad.copy(), now_ns
        if any(np.abs(position_rad - other).max() < NEW_RAD for other in self._postures):
            return "guide the arm to another posture, and turn the hand"
        return "" if now_ns - self._rest[1] >= STILL_NS else "let the arm rest"

    def offer(
        self, grey: NDArray[np.uint8], position_rad: Floats, tool_m: Floats, tool_rotation: Floats
    ) -> str:
        """Look at a picture (height, width). Return why it is not taken, or nothing.

        Args:
            grey: the picture.
            position_rad: joints, (7,).
            tool_m: tool in W, (3,).
            tool_rotation: R_world_tool, (3, 3).
        """
        corners = self._finder.corners(grey).get(self._held)
        if corners is None:
            return f"{self._held} is not seen"
        try:
            corners.require_enough()
        except ObservationError as error:
            return f"{self._held}: {error}"
        self._postures.append(position_rad.copy())
        self.views.append(HandView(tool_m.copy(), tool_rotation.copy(), corners))
        return ""
