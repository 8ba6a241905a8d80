"""Franka's arm through pylibfranka: joint torques at 1 kHz, in the arm's own cycle.

The arm compensates gravity itself. This driver adds Coriolis torques and joint damping to the
values of the inner loop. It sends torques only while the arm is armed; otherwise Franka's own
controller holds the arm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import Envelope
from gatort.runtime.errors import MissingDependency, RobotError
from gatort.runtime.packages import install_hint
from gatort.runtime.safety import Command, State

from .driver import Driver
from .hand import start_hand
from .panda import JOINT_DAMPING_NMS_RAD, PANDA, PANDA_LIMITS

_AT_REST = frozenset({State.DISARMED, State.LATCHED})


class FrankaRobot(Driver):
    """One Franka arm and its hand. It senses joint positions, joint velocities and hand width."""

    own_pace = True

    def __init__(self, address: str, clock: Clock, safe_after_ns: int | None = None) -> None:
        """Connect; nothing moves.

        Args:
            address: IP address of the Franka control box, such as 172.16.0.2.
            clock: the only source of time.
            safe_after_ns: age of a command at which SAFE begins. See `InnerLoop`.

        Raises:
            MissingDependency: pylibfranka is absent.
            RobotError: no arm or no hand answers there, or the arm is not ready to be driven.
        """
        super().__init__(PANDA, clock, safe_after_ns, PANDA_LIMITS)
        self._franka = _import_pylibfranka()
        self._control: Any = None
        """Torque control of pylibfranka while the arm is driven, otherwise `None`."""
        self._commanded_ns = math.inf
        """Instant at which the first command since the last consent takes effect."""
        try:
            self._robot = self._franka.Robot(address)
            self._model = self._robot.load_model()
            self._take(self._robot.read_once())
        except RuntimeError as error:  # Base class of all libfranka errors.
            raise RobotError(f"no Franka arm can be driven at {address}: {error}") from error

        mode = self._state.robot_mode
        if mode != self._franka.RobotMode.Idle:
            raise RobotError(
                f"{address}: expected an idle arm, found {mode.name}: make it ready in Desk"
            )
        self._hand = start_hand(address, clock)

    def arm(self) -> None:
        """See `Robot.arm`."""
        try:
            if self._control is None:
                self._control = self._robot.start_torque_control()
                # The arm has held itself meanwhile: its first torque is one step from zero.
                self.envelope = Envelope(PANDA_LIMITS)
        except RuntimeError as error:
            raise RobotError(f"the arm refused torque control: {error}") from error

        self._reset_envelope()
        # The age of the safe command counts from the moment at which the arm listens, not earlier.
        self.inner_loop.arm(self._clock.now_ns())
        self._commanded_ns = math.inf

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        if self.inner_loop.accept(command, self._clock.now_ns()):
            self._commanded_ns = min(self._commanded_ns, command.apply_at_ns)

    def _advance(self, now_ns: int) -> None:
        """Wait for the arm's next cycle and take part in it."""
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
        is_at_rest = self.state in _AT_REST
        if is_at_rest and self.envelope is not None:
            written = np.array(self.envelope.let_go())
        else:
            written = self._within_envelope(
                torque_nm, np.array(state.q), np.array(state.dq), self._read_ns
            )
        torques = self._franka.Torques(written.tolist())
        # Damping and brakes may outlast the fade: the arm takes over from no torque.
        torques.motion_finished = is_at_rest and not written.any()
        self._control.writeOnce(torques)
        if torques.motion_finished:
            self._control = None
        elif self._read_ns >= self._commanded_ns:
            # Before the first command the safe width is in effect, but consent alone closes no
            # hand.
            self._hand.tell(float(values[7]))

    def _take(self, state: Any) -> None:
        self._state = state
        self._read_ns = self._clock.now_ns()

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        readings = (self._state.q, self._state.dq, [self._hand.width_m()])
        return self._read_ns, [np.array(values, np.float32) for values in readings]

    def close(self) -> None:
        """Fade the arm, end its motion and close the link to the hand.

        The arm then holds itself, and the hand keeps its grip.

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
            f"Franka's arm needs pylibfranka: {install_hint('pylibfranka', 'franka')}"
        ) from error
    return pylibfranka
