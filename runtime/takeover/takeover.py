"""The arm belongs to the policy, or to a person with a device.

    policy ──give back── person ──silent for 0.3 s──▶ the arm halts ──silent for 1 s──▶ no commands

Taking over changes only where a tick's action comes from. The guard admits it, the context keeps
it, and consent to motion is asked for as ever: a person's tick arms nothing.
"""

from __future__ import annotations

from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.errors import TakeoverError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.kinematics import Array
from gatort.runtime.spec import Interface

from .tool_motion import ToolMotion
from .wish import TakeoverDevice, Wish

SILENT_NS: Final = 300_000_000
"""Age of the device's last sign of life from which its velocities count as zero."""
LOST_NS: Final = 1_000_000_000
"""Age of that sign from which ticks are refused: HOLD, then SAFE.

The policy never gets the arm back by itself, because a person took it away for a reason."""


class Takeover:
    """A device, and the motion of the tool that a person makes with it."""

    def __init__(self, device: TakeoverDevice, interface: Interface, clock: Clock) -> None:
        """Prepare. The policy has the arm.

        Args:
            device: device of the person.
            interface: keys and actuators of the robot.
            clock: the loop's clock.

        Raises:
            ConfigError: the robot is no Panda and no FR3.
        """
        self.device = device
        self.by_person = False
        """True while a person has the arm."""
        self.times = 0
        """Number of times that a person has taken the arm."""
        self.ticks = 0
        """Number of ticks for which a person had the arm."""
        self._motion = ToolMotion(interface)
        self._clock = clock
        self._silent_ns = 0
        self._is_first = True

    def action(self, observation: Observation) -> Array | None:
        """Return the person's action (A,) for a tick, or `None` if the policy has the arm.

        Raises:
            TakeoverError: the person has the arm, and their device is lost.
            KeyboardInterrupt: the person asks for the operator's stop, as Ctrl-C does.
        """
        is_first, self._is_first = self._is_first, False
        wish = self.device.wish(observation)
        if wish.stops:
            raise KeyboardInterrupt
        self._silent_ns = self._clock.now_ns() - wish.stamp_ns
        if self._silent_ns > SILENT_NS:
            # A device that is silent can neither take the arm nor give it back.
            wish = Wish(wish.stamp_ns, drives=self.by_person)

        if not wish.drives:
            self.by_person = False
            return None
        if self.is_lost:
            raise TakeoverError(
                f"the {self.device.name} of the person who has the arm: expected a sign of life "
                f"every {SILENT_NS * 1e-6:.0f} ms, found none for {self._silent_ns * 1e-6:.0f} ms"
            )
        if not self.by_person:
            self.by_person = True
            self.times += 1
            self._motion.begin(observation, is_commanded=not is_first)
        self.ticks += 1
        return self._motion.action(observation, wish)

    @property
    def is_lost(self) -> bool:
        """True if the device gives no sign of life any more."""
        return self._silent_ns > LOST_NS

    @property
    def status(self) -> str:
        """Sentence on who has the arm, for the live table."""
        name = self.device.name
        if self.is_lost:
            return f"{'nobody' if self.by_person else 'the policy'}: the {name} is lost"
        if self.by_person:
            return f"a person ({name}); {self.device.help}"
        return f"the policy; {self.device.help}"
