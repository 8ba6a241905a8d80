"""A SpaceMouse as a takeover device: its cap is pushed and turned as the tool shall move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gatort.runtime.robots.kinematics import Array
from gatort.runtime.robots.panda import GRIPPER_OPEN_M

from .input_events import DROPPED, AxisRange, EventKind, InputEvent, bent, parse
from .tool_motion import FASTEST_M_S, FASTEST_RAD_S
from .wish import Wish

VENDORS: Final = (0x046D, 0x256F)
"""Logitech, which sold the older ones, and 3Dconnexion."""
LEFT: Final = 0x100
RIGHT: Final = 0x101
FULL: Final = AxisRange(-350, 350)
"""Range of each axis: to the right, towards the person, down; then the turns about these."""
HELD_NS: Final = 100_000_000
"""Time for which a relative axis keeps its last value. A cap that is held reports a hundred times a
second. The kernel leaves out the zeros after it was let go."""
DEAD_ZONE: Final = 0.06
HELP: Final = "[left] take over, then open or close the hand [right] give back [Ctrl-C] stop"


class SpaceMouseControls:
    """Meaning of a SpaceMouse's events."""

    help = HELP

    def __init__(self, axes: Mapping[int, AxisRange] | None = None) -> None:
        """Start with the cap in the middle.

        Args:
            axes: range of each absolute axis by its code; older devices have relative ones.
        """
        self._ranges = {**dict.fromkeys(range(6), FULL), **(axes or {})}
        self._shares = np.zeros(6)
        self._until_ns = np.zeros(6)
        """(6,) instant from which a value no longer counts."""
        self._drives = False
        self._is_open = True
        self._width_m: float | None = None
        self._is_dropping = False

    def take(self, data: bytes, now_ns: int) -> None:
        """See `Controls.take`."""
        for event in parse(data):
            if event.kind == EventKind.SYNC:
                self._is_dropping = event.code == DROPPED
                if self._is_dropping:
                    self._shares[:] = 0.0
            elif not self._is_dropping:
                self._change(event, now_ns)

    def _change(self, event: InputEvent, now_ns: int) -> None:
        if event.kind in (EventKind.RELATIVE, EventKind.ABSOLUTE) and event.code < len(
            self._shares
        ):
            self._shares[event.code] = self._ranges[event.code].share(event.value)
            is_relative = event.kind == EventKind.RELATIVE
            self._until_ns[event.code] = now_ns + HELD_NS if is_relative else np.inf
        elif event.kind == EventKind.KEY and event.value == 1:
            self._press(event.code)

    def _press(self, code: int) -> None:
        if code == RIGHT:
            self._drives = False
            self._width_m = None
        elif code == LEFT and not self._drives:
            self._drives = True
            self._is_open = True
        elif code == LEFT:
            self._is_open = not self._is_open
            self._width_m = GRIPPER_OPEN_M if self._is_open else 0.0

    def wish(self, now_ns: int) -> Wish:
        """See `Controls.wish`. Away from the person is away from the arm's base."""
        held = np.where(now_ns < self._until_ns, self._shares, 0.0)  # (6,)
        return Wish(
            stamp_ns=now_ns,
            drives=self._drives,
            linear_m_s=FASTEST_M_S * _in_world(held[:3]),
            angular_rad_s=FASTEST_RAD_S * _in_world(held[3:]),
            width_m=self._width_m,
        )


def _in_world(shares: Array) -> Array:
    """Return a vector of the device, to the right, back and down, as one in W (3,)."""
    right, back, down = bent(shares, DEAD_ZONE)
    return np.array([-back, -right, -down])
