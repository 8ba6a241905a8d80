"""The terminal's keyboard as a takeover device. A key that is held repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from gatort.runtime.errors import ConfigError
from gatort.runtime.remote.console import (
    BURST_NS,
    is_in_the_foreground,
    keys_one_by_one,
    standard_input,
)
from gatort.runtime.robots.kinematics import Array
from gatort.runtime.robots.panda import GRIPPER_OPEN_M

from .wish import Wish, still

HELD_NS: Final = 300_000_000
"""Time after a key's last byte for which it counts as held. Without a key the arm halts."""
MOVES: Final[dict[str, tuple[int, int, int]]] = {
    "w": (1, 0, 0), "s": (-1, 0, 0), "a": (0, 1, 0), "d": (0, -1, 0),
    "r": (0, 0, 1), "f": (0, 0, -1)
}  # fmt: skip
"""Direction of the tool in W: x points away from the base, y to its left, z up."""
TURNS: Final[dict[str, tuple[int, int, int]]] = {
    "q": (0, 0, 1), "e": (0, 0, -1), "i": (0, 1, 0), "k": (0, -1, 0),
    "j": (1, 0, 0), "l": (-1, 0, 0)
}  # fmt: skip
"""Axis in W about which the tool turns."""
SPEEDS: Final[dict[str, tuple[float, float]]] = {
    "1": (0.02, 0.1), "2": (0.06, 0.3), "3": (0.15, 0.6)
}  # fmt: skip
"""Speeds of a key that is held, in m/s and rad/s."""
WIDTHS_M: Final = {"o": GRIPPER_OPEN_M, "c": 0.0}
STOP: Final = " \r\n"
HELP: Final = "[t] take over [g] give back [wasdrf] move [qe ijkl] turn [o c] hand [Space] stop"


class KeyboardControls:
    """Meaning of typed bytes."""

    help = HELP

    def __init__(self) -> None:
        self._drives = False
        self._stops = False
        self._linear, self._angular = still(), still()
        self._speeds = SPEEDS["2"]
        self._width_m: float | None = None
        self._held_ns = self._typed_ns = -HELD_NS

    def take(self, data: bytes, now_ns: int) -> None:
        """See `Controls.take`. The newest key counts."""
        is_alone = len(data) == 1 and now_ns - self._typed_ns >= BURST_NS
        self._typed_ns = now_ns
        for key in data.decode("ascii", "replace"):
            self._press(key, now_ns, is_alone=is_alone)

    def _press(self, key: str, now_ns: int, *, is_alone: bool) -> None:
        self._stops = self._stops or key in STOP
        # A pasted text must not take the arm, nor give it back to the policy.
        if is_alone and key in ("t", "g"):
            self._drives = key == "t"
            self._width_m = None
            self._held_ns = now_ns - HELD_NS
        elif key in MOVES or key in TURNS:
            self._linear = _vector(MOVES.get(key))
            self._angular = _vector(TURNS.get(key))
            self._held_ns = now_ns
        elif key in SPEEDS:
            self._speeds = SPEEDS[key]
        elif key in WIDTHS_M and self._drives:
            self._width_m = WIDTHS_M[key]

    def wish(self, now_ns: int) -> Wish:
        """See `Controls.wish`."""
        fastest_m_s, fastest_rad_s = self._speeds
        is_held = now_ns - self._held_ns < HELD_NS
        return Wish(
            stamp_ns=now_ns,
            drives=self._drives,
            linear_m_s=is_held * fastest_m_s * self._linear,
            angular_rad_s=is_held * fastest_rad_s * self._angular,
            width_m=self._width_m,
            stops=self._stops,
        )


def _vector(direction: tuple[int, int, int] | None) -> Array:
    return np.array(direction, np.float64) if direction is not None else still()


def require_terminal() -> None:
    """Check that a person can type to this process.

    Raises:
        ConfigError: standard input is no terminal, or this process is in its background.
    """
    if not is_in_the_foreground(standard_input()):
        raise ConfigError(
            "--takeover keyboard: expected a terminal in the foreground as standard input, found "
            "none; give the command on a terminal, or take a gamepad or spacemouse"
        )


@contextmanager
def typed_keys() -> Iterator[int]:
    """Open the terminal: see `keys_one_by_one`. Yield its descriptor."""
    stdin = standard_input()
    with keys_one_by_one(stdin):
        yield stdin
