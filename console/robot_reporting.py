"""Reports of a robot's process to its console."""

from __future__ import annotations

from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.facts import Fact
from gatort.runtime.remote.server import RobotStatus
from gatort.runtime.robots.driver import Driver

from .link import ConsoleLink
from .messages import ActuatorBar, Checklist, Event, Opening, Status, Tick

REPORT_NS: Final = 100_000_000
"""Time between two reports. The robot's process takes a turn each millisecond."""
NO_RATE: Final = (0.0, 0.0, 0.0)


class RobotReporter:
    """Tells a console about a robot, from the thread that drives it."""

    def __init__(self, link: ConsoleLink, name: str, driver: Driver, clock: Clock) -> None:
        """Tell the opening.

        Args:
            link: console of the robot's process.
            name: name of the robot.
            driver: the arm.
            clock: the driver's clock.
        """
        self._link = link
        self._driver = driver
        self._clock = clock
        self._began_ns = self._told_ns = clock.now_ns()
        self._reports = 0
        self._known = RobotStatus(driver.state)
        interface = driver.interface
        bars = [
            ActuatorBar(each.name, each.unit, each.low, each.high) for each in interface.actuators
        ]
        link.offer(
            Opening(
                "robot",
                f"{name}, the robot's own side",
                tuple(bars),
                stages=(),
                control_hz=interface.control_hz,
                budget_ms=0.0,
                deadline_ms=0.0,
                longest_s=0.0,
                held=False,
            )
        )
        link.offer(Checklist(driver.facts))

    def look(self, status: RobotStatus) -> None:
        """Tell a change of state at once, and the rest ten times a second. Never wait."""
        now_ns = self._clock.now_ns()
        changed = status.state is not self._known.state
        if changed:
            self._link.offer(Event.change(self._known.state, status.state, status.reason))
        if status.controlled is not self._known.controlled:
            came = "a controller connected" if status.controlled else "the controller is gone"
            self._link.offer(Event.now(came, "note"))
        self._known = status
        if changed or now_ns - self._told_ns >= REPORT_NS:
            self._told_ns = now_ns
            self._report(status, now_ns)

    def _report(self, status: RobotStatus, now_ns: int) -> None:
        self._reports += 1
        applied = self._driver.inner_loop.in_effect.tolist()
        self._link.offer(
            Tick(
                number=self._reports,
                at_ns=now_ns,
                took_ms=0.0,
                lateness_ms=0.0,
                stages_ms=[],
                applied=applied,
            )
        )
        self._link.offer(
            Status(
                at_ns=now_ns,
                state=status.state,
                elapsed_s=(now_ns - self._began_ns) * 1e-9,
                rate_hz=NO_RATE,
                tick_ms=NO_RATE,
                misses=0,
                refused={},
                cause=status.fault or status.reason or "",
                successes=status.successes,
                task=True,
                facts=_facts(status),
                dropped=self._link.dropped,
            )
        )


def _facts(status: RobotStatus) -> tuple[Fact, ...]:
    """Return who drives the arm, whether it may be armed, and the counts that are not zero."""
    control = "a controller is connected" if status.controlled else "no controller is connected"
    arming = Fact("arming", "a controller may arm it")
    if status.fault is not None or status.blocked:
        attention = "only the keys a and Enter at the robot's terminal allow arming again"
        arming = Fact("arming", "stopped here", attention)
    refusals = (Fact(name, count) for name, count in status.refusals.items())
    return (Fact("control", control), arming, *refusals)
