"""Franka's arm through pylibfranka: torques beside gravity, a thousand times a second, in the arm's own rhythm.

The arm compensates gravity itself; this adds Coriolis torques and damping to what the inner loop gives. It is driven
while it is armed, and holds itself with its own controller otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import (
    MissingDependency,
    RobotError,
)
from gatort.runtime.safety import (
    Command,
    State,
)

from .driver import Driver
from .hand import start_hand
from .panda import (
    JOINT_DAMPING_NMS_RAD,
    PANDA,
)

_AT_REST = frozenset({State.DISARMED, State.LATCHED})


class FrankaRobot(Driver):
    """One arm and its hand; joint positions and velocities and the hand's width are all that it senses."""

    own_pace = True

    def __init__(self, address: str, clock: Clock, safe_after_ns: int | None = None) -> None:
        """Connect; nothing moves.

        Args:
            address: of the arm's control, such as 172.16.0.2.
            clock: when it is.
            safe_after_ns: see `InnerLoop`.

        Raises:
            MissingDependency: pylibfranka is absent.
            RobotError: no arm or no hand answers there, or it is not ready to be driven.
        """
        super().__init__(PANDA, clock, safe_after_ns)
        self._franka = _import_pylibfranka()
        self._control: Any = None
        """Of the torques, while the arm is driven."""
        self._commanded_ns = math.inf
        """When the first command since the arm was armed takes effect."""
        try:
            self._robot = self._franka.Robot(address)
            self._model = self._robot.load_model()
            self._take(self._robot.read_once())
        except RuntimeError as error:  # All of libfranka's errors.
            raise RobotError(f"no Franka arm can be driven at {address}: {error}") from error
        if (mode := self._state.robot_mode) != self._franka.RobotMode.Idle:
            raise RobotError(
                f"{address}: expected an arm that is idle, found {mode.name}: see to it in Desk"
            )
        self._hand = start_hand(address, clock)

    def arm(self) -> None:
        """See `Robot.arm`."""
        try:
            if self._control is None:
                self._control = self._robot.start_torque_control()
        except RuntimeError as error:
            raise RobotError(f"the arm does not let itself be driven: {error}") from error
        # The age of the safe command counts from when the arm listens, which takes it a while.
        self.inner_loop.arm(self._clock.now_ns())
        self._commanded_ns = math.inf

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        if self.inner_loop.accept(command, self._clock.now_ns()):
            self._commanded_ns = min(self._commanded_ns, command.apply_at_ns)

    def _advance(self, now_ns: int) -> None:
        """One of the arm's cycles, which this waits for."""
        try:
            if self._control is None:
                self._take(self._robot.read_once())
                self._in_effect(now_ns)
            else:
                self._cycle()
        except RuntimeError as error:
            self._control = None
            raise RobotError(f"the arm stopped itself: {error}") from error
        self._hand.exchange()

    def _cycle(self) -> None:
        state, _ = self._control.readOnce()
        self._take(state)
        values = self._in_effect(self._read_ns)  # (8,)
        torque_nm = (
            values[:7]
            + np.array(self._model.coriolis(state))
            - JOINT_DAMPING_NMS_RAD * np.array(state.dq)
        )
        torques = self._franka.Torques(torque_nm.tolist())
        torques.motion_finished = self.state in _AT_REST
        self._control.writeOnce(torques)
        if torques.motion_finished:
            self._control = None
        elif self._read_ns >= self._commanded_ns:
            # Until the first command the safe width is in effect, but consent alone closes no hand.
            self._hand.tell(float(values[7]))

    def _take(self, state: Any) -> None:
        self._state, self._read_ns = state, self._clock.now_ns()

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        width_m = [self._hand.width_m()]
        return self._read_ns, [
            np.array(values, np.float32) for values in (self._state.q, self._state.dq, width_m)
        ]

    def close(self) -> None:
        """Fade the arm and end its motion, upon which it holds itself, and let go of the hand, which keeps its hold.

        Raises:
            RobotError: the arm failed.
        """
        try:
            self.stop()
            while self._control is not None:
                self.advance()
        finally:
            self._hand.close()


def _import_pylibfranka() -> Any:
    try:
        import pylibfranka
    except ImportError as error:
        raise MissingDependency(
            "Franka's arm needs pylibfranka: pip install 'gatort[franka]'"
        ) from error
    return pylibfranka
