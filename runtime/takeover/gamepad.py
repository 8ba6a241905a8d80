"""A gamepad as a takeover device: sticks, and a shoulder button that must be held to move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gatort.runtime.robots.kinematics import Array
from gatort.runtime.robots.panda import GRIPPER_OPEN_M

from .input_events import DROPPED, AxisRange, EventKind, InputEvent, bent, parse
from .tool_motion import FASTEST_M_S, FASTEST_RAD_S
from .wish import Wish

# Codes of include/uapi/linux/input-event-codes.h, as the drivers xpad and hid-playstation use them.
TAKE: Final = 0x130
"""BTN_SOUTH: A, or the cross."""
GIVE: Final = 0x131
"""BTN_EAST: B, or the circle."""
ENABLE: Final = 0x137
"""BTN_TR: the right shoulder."""
STOPS: Final = (0x13A, 0x13B)
"""BTN_SELECT and BTN_START."""
LEFT_X, LEFT_Y, LEFT_TRIGGER, RIGHT_X, RIGHT_Y, RIGHT_TRIGGER = range(6)
HAT_X, HAT_Y = 0x10, 0x11
DEFAULT_AXES: Final = {
    **dict.fromkeys((LEFT_X, LEFT_Y, RIGHT_X, RIGHT_Y), AxisRange(-32_768, 32_767)),
    **dict.fromkeys((LEFT_TRIGGER, RIGHT_TRIGGER), AxisRange(0, 255)),
    **dict.fromkeys((HAT_X, HAT_Y), AxisRange(-1, 1)),
}
"""Axes of an Xbox pad."""
DEAD_ZONE: Final = 0.12
"""Share of a stick's way that counts as its middle."""
HELP: Final = "[A] take over [B] give back [hold RB] sticks move [triggers] hand [Start] stop"


class GamepadControls:
    """Meaning of a gamepad's events."""

    help = HELP

    def __init__(self, axes: Mapping[int, AxisRange] | None = None) -> None:
        """Start with the sticks in the middle.

        Args:
            axes: range of each axis by its code; those of an Xbox pad by default.
        """
        self._axes = {**DEFAULT_AXES, **(axes or {})}
        self._shares: dict[int, float] = {}
        self._drives = self._is_enabled = self._stops = False
        self._width_m: float | None = None
        self._is_dropping = False

    def take(self, data: bytes, now_ns: int) -> None:  # noqa: ARG002
        """See `Controls.take`."""
        for event in parse(data):
            if event.kind == EventKind.SYNC:
                self._synchronise(event)
            elif not self._is_dropping:
                self._change(event)

    def _synchronise(self, event: InputEvent) -> None:
        """Let go of everything when events were lost: the release of a button may be among them."""
        self._is_dropping = event.code == DROPPED
        if self._is_dropping:
            self._is_enabled = False
            self._shares.clear()

    def _change(self, event: InputEvent) -> None:
        if event.kind == EventKind.ABSOLUTE and event.code in self._axes:
            self._shares[event.code] = self._axes[event.code].share(event.value)
            self._grip(event.code)
        elif event.kind == EventKind.KEY and event.code == ENABLE:
            self._is_enabled = bool(event.value)
        elif event.kind == EventKind.KEY and event.value == 1:
            self._stops = self._stops or event.code in STOPS
            if event.code in (TAKE, GIVE):
                self._drives = event.code == TAKE
                self._width_m = None

    def _grip(self, code: int) -> None:
        if self._drives and code in (LEFT_TRIGGER, RIGHT_TRIGGER) and self._shares[code] > 0.0:
            self._width_m = GRIPPER_OPEN_M if code == LEFT_TRIGGER else 0.0

    def wish(self, now_ns: int) -> Wish:
        """See `Controls.wish`. Away from the person is away from the arm's base."""
        enabled = float(self._is_enabled)
        return Wish(
            stamp_ns=now_ns,
            drives=self._drives,
            linear_m_s=enabled * FASTEST_M_S * self._pushed(LEFT_Y, LEFT_X, RIGHT_Y),
            angular_rad_s=enabled * FASTEST_RAD_S * self._pushed(HAT_X, HAT_Y, RIGHT_X),
            width_m=self._width_m,
            stops=self._stops,
        )

    def _pushed(self, *codes: int) -> Array:
        """Return shares of the largest speed. The axes of a pad point against those of W."""
        return -bent(np.array([self._shares.get(code, 0.0) for code in codes]), DEAD_ZONE)
