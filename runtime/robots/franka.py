"""Franka's arm through pylibfranka: joint torques at 1 kHz, in the arm's own cycle.

The arm compensates gravity itself. This driver adds Coriolis torques and joint damping to the
values of the inner loop. It sends torques only while the arm is armed; otherwise Franka's own
controller holds the arm.

An arm that stops itself by a reflex, that refuses to be driven, or whose user stop is pressed, has
a fault. The driver stays up, and no controller arms the arm before its own operator has recovered
it.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, NonNegativeFloat, PositiveFloat

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import Envelope
from gatort.runtime.errors import MissingDependency, RobotError
from gatort.runtime.packages import install_hint
from gatort.runtime.safety import STOPPED, Command
from gatort.runtime.spec import Strict

from .driver import AT_REST, Driver
from .hand import Hand, start_hand
from .panda import ARM_ALONE, JOINT_DAMPING_NMS_RAD, PANDA, PANDA_LIMITS

TEST_CYCLES: Final = 200
"""Cycles of the arm in which its states are counted before it may be driven."""
LEAST_ARRIVED: Final = 0.9
"""Least share of them that must arrive."""
TORQUE_THRESHOLD_NM: Final = (40.0, 40.0, 38.0, 38.0, 32.0, 30.0, 24.0)
"""External torques at which the arm stops itself, each joint: twice the values that libfranka's
examples set (`examples_common.cpp`), because a policy pushes blocks."""


class FrankaConfig(Strict):
    """Connection to a Franka arm, and its settings before it may be armed."""

    address: str = "172.16.0.2"
    """IP address of the Franka control box."""
    require_realtime_kernel: bool = True
    """Refuse to drive the arm from a kernel without PREEMPT_RT, as libfranka does. Without it the
    arm may stop itself, because torques come late."""
    hand: Literal["franka", "none"] = "franka"
    """Hand on the flange. With `none`, the arm has neither a width nor a hand's actuator."""
    home_hand: bool = False
    """Home the hand before anything else: it opens, closes, and learns its largest width."""
    collision_force_n: PositiveFloat = 40.0
    """External force at which the arm stops itself. N"""
    load_kg: NonNegativeFloat = 0.0
    """Mass beyond the hand that Desk does not know of: a camera, for example. kg"""
    load_at_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.0, 0.0, 0.0)
    """Centre of that mass in the flange's frame. m"""


class FrankaRobot(Driver):
    """One Franka arm, with its hand or without. It senses joints and the width of the hand."""

    own_pace = True

    def __init__(
        self, config: FrankaConfig, clock: Clock, safe_after_ns: int | None = None
    ) -> None:
        """Connect, test the link and set the arm up. No joint moves.

        Args:
            config: connection and settings.
            clock: the only source of time.
            safe_after_ns: age of a command at which SAFE begins. See `InnerLoop`.

        Raises:
            MissingDependency: pylibfranka is absent.
            RobotError: no arm or no hand answers there, its states do not arrive, or it refuses the
                settings.
        """
        interface = PANDA if config.hand == "franka" else ARM_ALONE
        super().__init__(interface, clock, safe_after_ns, PANDA_LIMITS)
        self._franka = _import_pylibfranka()
        self._errors = (RuntimeError, self._franka.FrankaException)
        self._fault: str | None = None
        self._control: Any = None
        """Torque control of pylibfranka while the arm is driven, otherwise `None`."""
        self._commanded_ns = math.inf
        """Instant at which the first command since the last consent takes effect."""
        self._robot = self._connect(config)
        self._set_up(config)
        self._hand = _start_hand(config, clock)

    # -- Connection ----------------------------------------------------------------------------

    def _connect(self, config: FrankaConfig) -> Any:
        realtime = self._franka.RealtimeConfig
        kernel = realtime.kEnforce if config.require_realtime_kernel else realtime.kIgnore
        where = f"no Franka arm can be driven at {config.address}"
        try:
            robot = self._franka.Robot(config.address, kernel)
            self._model = robot.load_model()
            self._arrived = self._test_link(robot)
        except self._franka.RealtimeException as error:
            raise RobotError(
                f"{where}: {error} Use a kernel with PREEMPT_RT, "
                "or give --no-require-realtime-kernel"
            ) from error
        except self._franka.NetworkException as error:
            raise RobotError(f"{where}: {error}") from error
        except self._errors as error:
            raise RobotError(
                f"{where}: {error} This driver is for an FR3 whose system is 5.9.0 or newer, "
                "and for no Panda"
            ) from error
        if self._arrived < LEAST_ARRIVED:
            raise RobotError(
                f"{where}: expected at least {LEAST_ARRIVED:.0%} of its states to arrive in time, "
                f"found {self._arrived:.0%}; connect the control box to a network card of its own"
            )
        return robot

    def _test_link(self, robot: Any) -> float:
        """Return the share of the arm's states that arrived, of those that it sent."""
        began_s: float = self._take(robot.read_once()).time.to_sec()
        for _ in range(TEST_CYCLES):
            state = self._take(robot.read_once())
        ended_s: float = state.time.to_sec()
        sent = round((ended_s - began_s) * 1e3)
        return TEST_CYCLES / max(sent, TEST_CYCLES)

    def _set_up(self, config: FrankaConfig) -> None:
        """Set the thresholds of contact and the load, which the arm keeps from its last user."""
        torques, forces = list(TORQUE_THRESHOLD_NM), [config.collision_force_n] * 6
        try:
            self._robot.set_collision_behavior(torques, torques, forces, forces)
            self._robot.set_load(config.load_kg, list(config.load_at_m), [0.0] * 9)
        except self._errors as error:
            raise RobotError(f"the arm refused its settings: {error}") from error

    @property
    def setup(self) -> tuple[str, ...]:
        """Settings in force, a line each, for the operator before the arm is armed."""
        state = self._state
        return (
            f"{self._arrived:.0%} of the arm's states arrived in time",
            f"the arm stops itself at external torques of {TORQUE_THRESHOLD_NM} N·m",
            f"load {state.m_load:g} kg, hand and tool {state.m_ee:g} kg",
        )

    # -- Driver --------------------------------------------------------------------------------

    @property
    def fault(self) -> str | None:
        """See `Driver.fault`."""
        return self._fault

    def recover(self) -> None:
        """See `Driver.recover`. An arm whose user stop is still pressed keeps its fault."""
        if self._fault is None:
            return
        try:
            if self._state.robot_mode == self._franka.RobotMode.Reflex:
                self._robot.automatic_error_recovery()
            self._fault = None
            self._take(self._robot.read_once())
        except self._errors as error:
            self._fault = f"the arm could not be recovered: {_words(error)}"

    def arm(self) -> None:
        """See `Robot.arm`. An arm that refuses has a fault afterwards and stays at rest."""
        if self._fault is not None:
            return
        try:
            if self._control is None:
                self._control = self._robot.start_torque_control()
                # The arm has held itself meanwhile: its first torque is one step from zero.
                self.envelope = Envelope(PANDA_LIMITS)
        except self._errors as error:
            self._fault = f"the arm refused torque control: {_words(error)}"
            return

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
        except self._franka.NetworkException as error:
            self._control = None
            raise RobotError(f"the link to the arm was lost: {error}") from error
        except self._errors as error:
            self._stop_itself(_words(error))
        if self._hand is not None:
            self._hand.exchange()

    def _stop_itself(self, reason: str) -> None:
        """Take note that the arm has ended the motion. Its own controller holds it now."""
        self._control = None
        self._fault = f"the arm stopped itself: {reason}"
        self.inner_loop.stop(self._clock.now_ns(), self._fault)

    def _cycle(self) -> None:
        before_ns = self._read_ns
        state, _ = self._control.readOnce()
        self._take(state)
        values = self._in_effect(self._read_ns)  # (8,), or (7,) without a hand
        torque_nm = (
            values[:7]
            + np.array(self._model.coriolis(state))
            - JOINT_DAMPING_NMS_RAD * np.array(state.dq)
        )
        written = self._within_envelope(
            torque_nm,
            np.array(state.q),
            np.array(state.dq),
            self._read_ns,
            elapsed_s=(self._read_ns - before_ns) * 1e-9,
        )
        torques = self._franka.Torques(written.tolist())
        # Damping and brakes may outlast the fade: the arm takes over from no torque.
        torques.motion_finished = self.state in AT_REST and not written.any()
        self._control.writeOnce(torques)
        if torques.motion_finished:
            self._control = None
        is_commanded = self._read_ns >= self._commanded_ns
        # Consent alone moves no hand, and a stop leaves it as it is.
        if self._hand is not None and is_commanded and self.state not in STOPPED:
            self._hand.tell(float(values[7]))

    def _take(self, state: Any) -> Any:
        """Keep the arm's newest state. An arm that its user stopped or guides has a fault."""
        self._state = state
        self._read_ns = self._clock.now_ns()
        modes = self._franka.RobotMode
        if self._fault is None and state.robot_mode not in (modes.Idle, modes.Move):
            self._fault = f"the arm is in the mode {state.robot_mode.name}"
        return state

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        readings = [self._state.q, self._state.dq]
        if self._hand is not None:
            readings.append([self._hand.width_m()])
        return self._read_ns, [np.array(values, np.float32) for values in readings]

    def close(self) -> None:
        """Fade the arm, end its motion and close the link to the hand.

        The arm then holds itself, and the hand keeps its grip.

        Raises:
            RobotError: the link to the arm was lost.
        """
        try:
            self.stop()
            while self._control is not None:
                self.advance()
        finally:
            if self._hand is not None:
                self._hand.close()


def _start_hand(config: FrankaConfig, clock: Clock) -> Hand | None:
    return start_hand(config.address, clock, config.home_hand) if config.hand == "franka" else None


def _words(error: BaseException) -> str:
    return " ".join(str(error).removeprefix("libfranka: ").split())


def _import_pylibfranka() -> Any:
    try:
        import pylibfranka
    except ImportError as error:
        raise MissingDependency(
            f"Franka's arm needs pylibfranka: {install_hint('pylibfranka', 'franka')}"
        ) from error
    return pylibfranka
