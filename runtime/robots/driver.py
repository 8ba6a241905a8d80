"""The contract of an arm that this process drives: subclass `Driver` to connect your own.

A driver is one file. It states an interface, steps the arm and reads its sensors:

    class MyArm(Driver):
        def __init__(self, clock: Clock) -> None:
            super().__init__(MY_INTERFACE, clock)      # observation keys, actuators, control rate
            self._port = open_my_port()

        def _advance(self, now_ns: int) -> None:       # about once a millisecond
            self._port.send_torques(self._in_effect(now_ns))

        def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
            return self._clock.now_ns(), [self._port.joint_positions()]

        def close(self) -> None:
            self._port.close()

Everything else is done here, alike for every arm: consent, commands, limits and the watchdog. A
driver knows nothing of policies, tasks or wires. `gatort.runtime.remote.serve.serve` runs it in a
process that a controller drives; the tests in `tests/contracts/test_robot.py` say whether it does
what every robot must do. `franka.py` is a complete example.

Time comes from the clock alone, in integer nanoseconds. A simulated arm steps its physics up to
the clock's present, so that one class serves the wall clock and a virtual one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import ArmLimits, Envelope
from gatort.runtime.facts import Fact
from gatort.runtime.inner_loop import FADE_NS, Drop, InnerLoop
from gatort.runtime.robot import Observation
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import Interface

INNER_PERIOD_NS = 1_000_000
"""Period of the inner loop: 1 kHz."""

AT_REST = frozenset({State.DISARMED, State.LATCHED})
"""States in which an arm gets no torque and holds itself."""

BY_CONTROLLER = "stopped by its controller"


class Watched(Protocol):
    """An inner loop, in this process or in another: see `InnerLoop`."""

    safe_after_ns: int

    @property
    def state(self) -> State:
        """Watchdog's state."""
        ...

    @property
    def reason(self) -> str | None:
        """Reason for which the arm was stopped since it was last armed."""
        ...

    @property
    def dropped(self) -> Counter[Drop]:
        """Number of dropped commands, by reason."""
        ...

    @property
    def in_effect(self) -> NDArray[np.float64]:
        """(A,) values in effect at the last step."""
        ...

    def arm(self, now_ns: int) -> None:
        """Start a session with the safe command as target."""
        ...

    def stop(self, now_ns: int, reason: str) -> None:
        """Fade to the safe command from now, then latch."""
        ...

    def accept(self, command: Command, now_ns: int) -> bool:
        """Queue a command."""
        ...

    def step(self, now_ns: int) -> NDArray[np.float64]:
        """Return the values (A,) in effect at an instant."""
        ...


OnStep = Callable[[int, State, NDArray[np.float64]], None]
"""Callback after each inner step: instant in ns, state of the watchdog, values (A,) in effect.

The array changes with the next step.
"""


class Driver(ABC):
    """An arm with its inner loop and watchdog. Implements `Robot`.

    A subclass adds `_advance`, `_read` and `close`. All methods are called from one thread.
    """

    own_pace: ClassVar[bool] = False
    """True if `advance` waits for the arm's own next cycle. The caller then never waits itself."""

    def __init__(
        self,
        interface: Interface,
        clock: Clock,
        safe_after_ns: int | None = None,
        limits: ArmLimits | None = None,
    ) -> None:
        """Start disarmed. The arm stays at rest until `arm`.

        Args:
            interface: observation keys, actuators with their limits and safe values, control rate.
            clock: the only source of time.
            safe_after_ns: age of a command at which SAFE begins. See `InnerLoop` for the default.
            limits: limits of the arm, for `_within_envelope`. Its joints are the first actuators.

        Raises:
            ConfigError: the age is out of range, or SAFE would fade faster than the arm allows.
        """
        self.envelope = Envelope(limits) if limits is not None else None
        """Limits of the arm itself; `None` for an arm that has none of its own."""
        if self.envelope is not None:
            torques = [max(-each.low, each.high) for each in interface.actuators]
            self.envelope.require_fade(torques[: len(self.envelope.limits.low_rad)], FADE_NS * 1e-9)
        self.interface = interface
        self.inner_loop: Watched = InnerLoop(interface, safe_after_ns)
        self.on_step: OnStep | None = None
        """Callback after each inner step. It must return at once."""
        self._clock = clock
        self._sequence = 0

    # -- To implement --------------------------------------------------------------------------

    @abstractmethod
    def _advance(self, now_ns: int) -> None:
        """Bring the arm to the present: one inner step per millisecond since the last call.

        Each step applies the values that `_in_effect` returns for its instant, also while the arm
        is disarmed: they are then the safe command. Commanded torque leaves out gravity and
        Coriolis forces. The arm adds them, and joint damping.

        Args:
            now_ns: the clock's present.

        Raises:
            RobotError: the arm failed. It is then faded and its process ends.
        """

    @abstractmethod
    def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
        """Read the sensors, just after `advance`.

        Returns:
            The instant at which the oldest sensor was read, in ns on the clock, and one array per
            key in the interface's order. The arrays must be copies: they belong to the caller.

        Raises:
            ObservationError: a sensor gives nothing. The next reading may succeed.
            RobotError: the arm failed. It is then faded and its process ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Bring the arm to rest and release it. A second call does nothing."""

    def _in_effect(self, at_ns: int) -> NDArray[np.float64]:
        """Return the values to apply in the inner step at an instant. Call it once per step.

        The watchdog and the limits have been applied.

        Args:
            at_ns: the step's instant, not before the last one's.

        Returns:
            Values (A,), each in its actuator's unit. The array changes with the next step.
        """
        values = self.inner_loop.step(at_ns)
        if self.on_step is not None:
            self.on_step(at_ns, self.inner_loop.state, values)
        return values

    def _within_envelope(
        self,
        torque_nm: NDArray[np.float64],
        position_rad: NDArray[np.float64],
        velocity_rad_s: NDArray[np.float64],
        at_ns: int,
    ) -> NDArray[np.float64]:
        """Return the torques (J,) to write in this cycle, and stop an arm that must not go on.

        See `Envelope.limit`.
        """
        envelope = self.envelope
        if envelope is None:
            return torque_nm
        if self.state in AT_REST:  # The arm holds itself, whatever its readings say.
            return np.array(envelope.let_go())
        written = envelope.limit(
            torque_nm.tolist(),
            position_rad.tolist(),
            velocity_rad_s.tolist(),
            is_driven=self.state not in STOPPED,
        )
        if envelope.reason is not None:
            self.inner_loop.stop(at_ns, envelope.reason)
        return np.array(written)

    # -- Robot ---------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self.inner_loop.state

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`."""
        return self.inner_loop.reason

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Settings and measurements for the operator's checklist before consent. Default: none."""
        return ()

    @property
    def fault(self) -> str | None:
        """Clause that says why the arm cannot be armed before its own operator has recovered it.

        `None` by default.
        """
        return None

    def recover(self) -> None:
        """Recover an arm that has a fault, because its own operator asks for it.

        It stays at rest. By default there is nothing to recover.

        Raises:
            RobotError: the arm failed.
        """
        return

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`. A driver cannot tell, so the answer is false by default."""
        return False

    def arm(self) -> None:
        """See `Robot.arm`."""
        self.advance()
        self._reset_envelope()
        self.inner_loop.arm(self._clock.now_ns())

    def _reset_envelope(self) -> None:
        """Forget why the envelope stopped the arm, if the arm is at rest.

        Consent that is repeated while the arm is driven must not restart the rules.
        """
        if self.envelope is not None and self.state in AT_REST:
            self.envelope.reset()

    def advance(self) -> None:
        """Bring the arm to the clock's present. The caller does so every millisecond.

        Raises:
            RobotError: the arm failed.
        """
        self._advance(self._clock.now_ns())

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`. By default an arm gives its pictures with the joints."""
        return None

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        self.advance()
        self._sequence += 1
        stamp_ns, values = self._read()
        return Observation(
            self._sequence, stamp_ns, tuple(values), self.inner_loop.in_effect.copy()
        )

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.inner_loop.accept(command, self._clock.now_ns())

    def stop(self, reason: str = BY_CONTROLLER) -> None:
        """See `Robot.stop`.

        Args:
            reason: clause for `stop_reason`.
        """
        self.inner_loop.stop(self._clock.now_ns(), reason)
