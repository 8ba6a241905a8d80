"""Franka's arm: joint torques at 1 kHz, in the arm's own cycle.

The arm compensates gravity itself. Coriolis torques and joint damping are added to the values of
the inner loop. That loop is a process of its own, `fci_loop.c`. If this process is busy, suspended
or killed, the arm fades and stops all the same. Torques are sent only while the arm is armed;
otherwise Franka's own controller holds the arm.

An arm that stops itself by a reflex, that refuses to be driven, or whose user stop is pressed, has
a fault. The driver stays up, and no controller arms the arm before its own operator has recovered
it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, NonNegativeFloat, PositiveFloat

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import TORQUE_MARGIN
from gatort.runtime.errors import MissingDependency, ObservationError, RobotError
from gatort.runtime.facts import Fact
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.packages import install_hint
from gatort.runtime.robots.driver import AT_REST, Driver
from gatort.runtime.robots.panda import ARM_ALONE, JOINT_DAMPING_NMS_RAD, PANDA, TORQUE_NM
from gatort.runtime.safety import STOPPED, State
from gatort.runtime.spec import Strict

from .fci import Fci, Mode, RefusalError, errors_named, link_lost, require_address
from .fci_loop import NO_TRACE, CycleReport, FciLoop
from .hand import Hand, start_hand
from .limits import FR3_LIMITS

TEST_CYCLES: Final = 200
"""Cycles of the arm in which its states are counted before it may be driven."""
LEAST_ARRIVED: Final = 0.9
"""Least share of them that must arrive."""
START_NS: Final = 3_000_000_000
"""Longest wait for these states, and for the arm to take torques."""
SILENT_NS: Final = 100_000_000
"""Age of the arm's newest state from which the link is lost."""
CLOSE_NS: Final = 1_000_000_000
"""Longest wait for the arm to be at rest when the driver is closed."""
NAP_NS: Final = 1_000_000
PRIORITY: Final = 80
"""Priority of the inner loop's process, where SCHED_FIFO is granted."""
REALTIME_KERNEL: Final = Path("/sys/kernel/realtime")
"""File that a kernel with PREEMPT_RT has."""
TORQUE_THRESHOLD_NM: Final = (40.0, 40.0, 38.0, 38.0, 32.0, 30.0, 24.0)
"""External torques at which the arm stops itself, each joint: twice the values that libfranka's
examples set (`examples_common.cpp`), because a policy pushes blocks."""
LATE: Final = "communication_constraints_violation"
"""Error of an arm whose torques came late: see `ERRORS`."""
STOPPED_ITSELF: Final = "the arm stopped itself"


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
    torque_rate_nm_s: PositiveFloat = 1000.0
    """Fastest change of torque that the arm allows. Some arms stop themselves above 500. N·m/s"""


class FrankaRobot(Driver):
    """One Franka arm, with its hand or without. It senses joints and the width of the hand."""

    def __init__(
        self,
        config: FrankaConfig,
        clock: Clock,
        safe_after_ns: int | None = None,
        trace: int = NO_TRACE,
    ) -> None:
        """Connect, test the link and set the arm up. No joint moves.

        Args:
            config: connection and settings.
            clock: the machine's monotonic clock, on which the inner loop's process reckons too.
            safe_after_ns: age of a command at which SAFE begins. See `InnerLoop`.
            trace: descriptor of a file that gets a `CycleReport` of every cycle; -1 for none.

        Raises:
            MissingDependency: GCC is absent, or pylibfranka for the hand.
            RobotError: no arm or no hand answers there, its states do not arrive, or it refuses the
                settings.
        """
        require_address(config.address)
        super().__init__(PANDA if config.hand == "franka" else ARM_ALONE, clock, safe_after_ns)
        if config.hand == "franka" and find_spec("pylibfranka") is None:
            raise MissingDependency(
                f"Franka's hand needs pylibfranka: {install_hint('pylibfranka', 'franka')}, "
                "or give --hand none"
            )
        if config.require_realtime_kernel:
            _require_realtime_kernel()
        self._config = config
        self._fault: str | None = None
        self._heard_ns = 0
        """Instant at which the newest report was taken: a pause of this process is no silence."""
        self._success_rate: float | None = None
        """Share of the arm's control commands that arrived, as of its last driven cycle."""
        self._hand: Hand | None = None
        self._fci = Fci(config.address)
        try:
            self._set_up(config)
            self.inner_loop = self._loop = FciLoop(
                self._fci,
                self.interface,
                replace(FR3_LIMITS, torque_rate_nm_s=(config.torque_rate_nm_s,) * 7),
                self.inner_loop.safe_after_ns,
                JOINT_DAMPING_NMS_RAD,
                PRIORITY,
                trace,
            )
            self._loop.on_report = self._take
        except BaseException:
            self._fci.close()
            raise
        try:
            self._arrived = self._test_link()
            self._hand = _start_hand(config, clock)
        except BaseException:
            self.close()
            raise

    def _set_up(self, config: FrankaConfig) -> None:
        """Set the thresholds of contact and the load, which the arm keeps from its last user."""
        self._fci.set_collision_thresholds(TORQUE_THRESHOLD_NM, config.collision_force_n)
        self._fci.set_load(config.load_kg, config.load_at_m)

    def _test_link(self) -> float:
        """Return the share of the arm's states that arrived, of those that it sent."""
        newest = self._loop.newest
        # The first report is of states that came before the inner loop listened; many were lost.
        self._wait_until(lambda: newest.number > 1, START_NS)
        began, first = newest.message_id, newest.arrived
        if not self._wait_until(lambda: newest.message_id >= began + TEST_CYCLES, START_NS):
            raise RobotError(
                f"expected {TEST_CYCLES} states of the arm within {START_NS * 1e-9:g} s, found "
                f"{newest.arrived - first}; see if a firewall drops the arm's datagrams (UDP)"
            )
        share: float = (newest.arrived - first) / (newest.message_id - began)
        if share < LEAST_ARRIVED:
            raise RobotError(
                f"expected at least {LEAST_ARRIVED:.0%} of the arm's states to arrive, "
                f"found {share:.0%}; connect the control box to a network card of its own"
            )
        return share

    def _wait_until(self, holds: Callable[[], bool], within_ns: int) -> bool:
        """Take reports until a condition holds, and return whether it does in time."""
        deadline_ns = self._clock.now_ns() + within_ns
        while not holds():
            now_ns = self._clock.now_ns()
            if now_ns >= deadline_ns:
                return False
            self._clock.sleep_until_ns(now_ns + NAP_NS)
            self._loop.step(now_ns)
        return True

    # -- Driver --------------------------------------------------------------------------------

    @property
    def facts(self) -> tuple[Fact, ...]:
        """See `Driver.facts`: the link, and the settings in force."""
        newest, config = self._loop.newest, self._config
        step_nm = TORQUE_MARGIN * config.torque_rate_nm_s * 1e-3
        stop_ms = max(FADE_NS * 1e-6, max(TORQUE_NM) / step_nm)
        torques = ", ".join(f"{each:g}" for each in TORQUE_THRESHOLD_NM)
        return (
            Fact("mode", _mode_name(newest.robot_mode), self._fault or ""),
            self._link_fact(),
            self._loop_fact(),
            Fact(
                "limits",
                "an FR3's joints, speeds and torques; torques change by at most "
                f"{step_nm:.3g} N·m a cycle; a stop takes {stop_ms:.0f} ms",
            ),
            Fact(
                "contact", f"it stops itself at {torques} N·m and at {config.collision_force_n:g} N"
            ),
            Fact("load", f"{newest.load_kg:.3g} kg, hand and tool {newest.hand_kg:.3g} kg"),
            self._hand_fact(),
        )

    def _link_fact(self) -> Fact:
        """Return the success rate of the control commands.

        The arm counts it over its last 100 cycles, and only while it is driven.
        """
        if self._success_rate is None:
            return Fact("link", f"{self._arrived:.0%} of its states arrived; not driven yet")
        attention = (
            f"expected at least {LEAST_ARRIVED:.0%}, and none late for long: the arm stops itself "
            "when torques come late; `gatort doctor --address` names causes"
        )
        was_late = self._fault is not None and LATE in self._fault
        is_poor = was_late or self._success_rate < LEAST_ARRIVED
        return Fact(
            "link",
            f"{self._success_rate:.0%} of the control commands arrived in the last motion",
            attention if is_poor else "",
        )

    def _loop_fact(self) -> Fact:
        """Return the scheduling that the inner loop's process got."""
        pid = self._loop.process.pid
        try:
            is_fifo = os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
        except ProcessLookupError:
            return Fact("inner loop", "ended", "start `gatort robot` again")
        if is_fifo:
            return Fact("inner loop", f"SCHED_FIFO {os.sched_getparam(pid).sched_priority}")
        attention = (
            f"SCHED_FIFO {PRIORITY} was refused, so torques may come late: `gatort doctor` says "
            "how to grant it"
        )
        return Fact("inner loop", "ordinary scheduling", attention)

    def _hand_fact(self) -> Fact:
        if self._hand is None:
            return Fact("hand", "none")
        try:
            return Fact("hand", f"open by {self._hand.width_m() * 1e3:.0f} mm")
        except ObservationError as error:
            return Fact("hand", "silent", str(error))

    @property
    def fault(self) -> str | None:
        """See `Driver.fault`."""
        return self._fault

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`. A reflex is named."""
        reason = self._loop.reason
        is_reflex = reason == STOPPED_ITSELF and self._fault is not None
        return self._fault if is_reflex else reason

    def recover(self) -> None:
        """See `Driver.recover`. An arm whose user stop is still pressed keeps its fault."""
        if self._fault is None:
            return
        try:
            if self._loop.newest.robot_mode == Mode.REFLEX:
                self._fci.recover()
                recovers = (Mode.REFLEX, Mode.RECOVERING)
                self._wait_until(lambda: self._loop.newest.robot_mode not in recovers, START_NS)
            self._fault = None
            self._judge(self._loop.newest)
        except RefusalError as error:
            self._fault = f"the arm could not be recovered: {error}"

    def arm(self) -> None:
        """See `Robot.arm`. An arm that refuses has a fault afterwards and stays at rest."""
        loop = self._loop
        self.advance()
        if self._fault is not None or loop.state is State.SAFE:
            return
        if loop.state not in STOPPED:  # Consent that is repeated.
            loop.arm(self._clock.now_ns())
            return
        try:
            if not self._wait_until(self._fci.motion_ended, START_NS):
                raise RefusalError("the motion before this one has not ended")
            loop.arm(self._clock.now_ns())
            self._fci.start_torque_control()
            if not self._wait_until(
                lambda: loop.state not in STOPPED or self._fault is not None, START_NS
            ):
                raise RefusalError("the arm does not take torques")
        except RefusalError as error:
            loop.do_not_arm()
            self._fault = str(error)

    def _advance(self, now_ns: int) -> None:
        """Take the cycles that the inner loop's process has reported."""
        loop = self._loop
        loop.step(now_ns)
        silent_ns = now_ns - self._heard_ns
        if silent_ns > SILENT_NS:
            raise link_lost(f"no state of the arm for {silent_ns * 1e-6:.0f} ms")
        if self._hand is not None:
            # Consent alone moves no hand, and a stop leaves it as it is.
            if loop.newest.is_commanded and loop.state not in STOPPED:
                self._hand.tell(float(loop.newest.values[7]))
            self._hand.exchange()

    def _take(self, report: CycleReport) -> None:
        self._heard_ns = self._clock.now_ns()
        if report.is_driven:
            self._success_rate = report.success_rate
        self._judge(report)
        if self.on_step is not None:
            self.on_step(report.read_ns, self._loop.state, self._loop.in_effect)

    def _judge(self, report: CycleReport) -> None:
        """Give the arm a fault in a mode in which it cannot be driven."""
        mode = report.robot_mode
        if self._fault is not None or mode in (Mode.IDLE, Mode.MOVE):
            return
        if mode == Mode.REFLEX:
            names = errors_named(report.reflex_reason | report.errors) or "a reflex without a name"
            self._fault = f"{STOPPED_ITSELF}: {names}"
        else:
            self._fault = f"the arm is in the mode {_mode_name(mode)}"

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        newest = self._loop.newest
        readings: list[Any] = [list(newest.position), list(newest.velocity)]
        if self._hand is not None:
            readings.append([self._hand.width_m()])
        return newest.read_ns, [np.array(values, np.float32) for values in readings]

    def close(self) -> None:
        """Fade the arm, end its motion and close the links to arm and hand.

        The arm then holds itself, and the hand keeps its grip. A second call does nothing.
        """
        loop = self._loop
        try:
            if loop.process.poll() is None and self._fci.tcp.fileno() >= 0:
                self.stop()
                self._wait_until(
                    lambda: loop.state in AT_REST and not loop.newest.is_driven, CLOSE_NS
                )
        finally:
            loop.close()
            self._fci.close()
            if self._hand is not None:
                self._hand.close()


def _start_hand(config: FrankaConfig, clock: Clock) -> Hand | None:
    return start_hand(config.address, clock, config.home_hand) if config.hand == "franka" else None


def _mode_name(mode: int) -> str:
    names = {each.value: each.name.lower().replace("_", " ") for each in Mode}
    return names.get(mode, str(mode))


def has_realtime_kernel() -> bool:
    """Check if this machine runs a kernel with PREEMPT_RT."""
    try:
        return REALTIME_KERNEL.read_text().strip() == "1"
    except OSError:
        return False


def _require_realtime_kernel() -> None:
    """Refuse a kernel without PREEMPT_RT.

    Raises:
        RobotError: the kernel has none.
    """
    if not has_realtime_kernel():
        raise RobotError(
            "a Franka arm: expected a kernel with PREEMPT_RT, found one without; boot one, or give "
            "--no-require-realtime-kernel and accept that late torques make the arm stop itself"
        )
