"""A link that is not perfect: delay, jitter, loss and reordering, seeded, on a real wire or in a lockstep trial.

The robot's process puts a `DelayLine` into each direction of its socket. A trial puts a `LinkedRobot` around its
simulated arm, so that a policy meets the same link there, exactly and reproducibly.
"""

from __future__ import annotations

import heapq
from typing import Generic, Literal, TypeVar

import numpy as np
from pydantic import Field, FiniteFloat, NonNegativeInt

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import (
    Command,
    State,
)
from gatort.runtime.spec import (
    Interface,
    Strict,
)

RETRY_NS = 5_000_000
"""How long a controller waits for an observation before it asks again."""
COPIES = 2
"""How often a command is sent, so that the independent loss of single messages hardly ever costs one."""
LONGEST_HOLD_BACK_NS = 100_000_000
"""A message that is to be overtaken comes this much later at most, when nothing follows that could overtake it."""
MOST_IN_FLIGHT = 1_024
"""Messages on their way at once; what comes on top is lost, as in a router whose queue is full."""

Direction = Literal["to_robot", "to_controller"]
Item = TypeVar("Item")


class LinkConditions(Strict):
    """How a link treats each message, one way; the same in both directions, drawn independently for each message."""

    delay_ms: FiniteFloat = Field(default=0.0, ge=0, le=1000)
    """How long a message takes at least, one way."""
    jitter_ms: FiniteFloat = Field(default=0.0, ge=0, le=1000)
    """Added to the delay: uniform between 0 and this. Messages keep their order, so one may wait for another."""
    loss: FiniteFloat = Field(default=0.0, ge=0, le=1)
    """Probability that a message never arrives."""
    reorder: FiniteFloat = Field(default=0.0, ge=0, le=1)
    """Probability that a message is overtaken by the next one."""
    link_seed: NonNegativeInt = 0
    """Draws the fate of each message: the same seed treats the same messages alike."""

    @property
    def perfect(self) -> bool:
        """Whether every message arrives at once."""
        return not (self.delay_ms or self.jitter_ms or self.loss or self.reorder)


class DelayLine(Generic[Item]):
    """Messages on their way in one direction."""

    def __init__(self, conditions: LinkConditions, direction: Direction) -> None:
        self.lost = 0
        """Messages that will never arrive, since construction."""
        self.overtaken = 0
        """Messages that were held back for the next one to overtake."""
        self._conditions = conditions
        self._random = np.random.default_rng((conditions.link_seed, direction == "to_robot"))
        self._flying: list[tuple[int, int, Item]] = []
        """A heap of (due_ns, order, item)."""
        self._held: tuple[int, int, Item] | None = None
        """What the next message will overtake."""
        self._order = 0
        self._last_due_ns = 0

    def __len__(self) -> int:
        """Messages on their way."""
        return len(self._flying) + (self._held is not None)

    def push(self, now_ns: int, item: Item) -> bool:
        """Send a message at `now_ns`; the line keeps it until it is due. False when it is lost."""
        # Three draws whatever becomes of it, so that more loss does not change the others' jitter.
        lost, late, behind = self._random.random(3)
        conditions = self._conditions
        if lost < conditions.loss or len(self) >= MOST_IN_FLIGHT:
            self.lost += 1
            return False
        due_ns = now_ns + round((conditions.delay_ms + late * conditions.jitter_ms) * 1e6)
        due_ns = self._last_due_ns = max(due_ns, self._last_due_ns)
        self._order += 1
        if self._held is None and behind < conditions.reorder:
            self.overtaken += 1
            self._held = (due_ns + LONGEST_HOLD_BACK_NS, self._order, item)
            return True
        heapq.heappush(self._flying, (due_ns, self._order, item))
        if self._held is not None:
            held_ns, order, overtaken = self._held
            heapq.heappush(self._flying, (min(held_ns, due_ns + 1), order, overtaken))
            self._held = None
        return True

    @property
    def next_due_ns(self) -> int | None:
        """When the next message arrives as things stand, or none when nothing is on its way."""
        first = self._flying[:1] + ([self._held] if self._held else [])
        return min((due_ns for due_ns, _, _ in first), default=None)

    def pop_due(self, now_ns: int) -> list[Item]:
        """What has arrived by `now_ns`, in the order of arrival; each message once."""
        if self._held is not None and self._held[0] <= now_ns:
            heapq.heappush(self._flying, self._held)
            self._held = None
        arrived = []
        while self._flying and self._flying[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._flying)[2])
        return arrived


class LinkedRobot:
    """A simulated arm behind a link, in lockstep: implements `Robot`, and every delay is exact.

    The arm lives on a clock of its own, which this robot brings along: whatever arrives at an instant finds the arm at
    that instant. The two clocks agree, as if the offset between two hosts were known exactly.
    """

    def __init__(
        self,
        driver: Driver,
        robot_clock: VirtualClock,
        clock: VirtualClock,
        conditions: LinkConditions,
    ):
        """Put a link between an arm and its controller.

        Args:
            driver: the arm.
            robot_clock: the arm's clock, no other's, not ahead of `clock`.
            clock: the controller's clock; `observe` and `arm` let the link's time pass on it.
            conditions: how the link treats each message.
        """
        self.lost_commands = 0
        """Commands of which no copy will arrive, since construction."""
        self._driver, self._robot_clock, self._clock = driver, robot_clock, clock
        self._delay_ns = round(conditions.delay_ms * 1e6)
        self._up: DelayLine[int | Command] = DelayLine(conditions, "to_robot")
        """A request for an observation by its number, or a command."""
        self._down: DelayLine[tuple[int, Observation]] = DelayLine(conditions, "to_controller")
        """An observation and the number of the request that it answers."""
        self._request = 0
        self._delivered = -1
        """Sequence of the last command that the arm was handed."""

    @property
    def interface(self) -> Interface:
        """See `Robot.interface`."""
        return self._driver.interface

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self._driver.state

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self._driver.succeeded

    def arm(self) -> None:
        """See `Robot.arm`: there and back takes the link's delay twice; consent is repeated until it arrives."""
        self._pass_until(self._clock.now_ns() + self._delay_ns)
        self._driver.arm()
        self._delivered = -1
        self._pass_until(self._clock.now_ns() + self._delay_ns)

    def observe(self) -> Observation:
        """See `Robot.observe`: asks, and asks again every `RETRY_NS` until an answer is there or would be too late.

        Raises:
            ObservationError: no answer within the action delay.
            RobotError: the arm failed.
        """
        asked_ns = self._clock.now_ns()
        self._pass_until(asked_ns)
        first = self._request + 1
        deadline_ns = asked_ns + self.interface.action_delay_ns
        for retry_ns in range(asked_ns, deadline_ns, RETRY_NS):
            self._request += 1
            self._up.push(retry_ns, self._request)
            answer = self._wait_for(first, min(retry_ns + RETRY_NS, deadline_ns))
            if answer is not None:
                return answer
        raise ObservationError(
            f"expected an observation within {self.interface.action_delay_ms} ms, and no answer came to "
            f"{self._request - first + 1} requests"
        )

    def _wait_for(self, request: int, until_ns: int) -> Observation | None:
        """The newest observation that answers this request or a later one, as soon as there is one."""
        while True:
            answers = [
                observed
                for number, observed in self._down.pop_due(self._clock.now_ns())
                if number >= request
            ]
            if answers:
                return max(answers, key=lambda observed: observed.sequence)
            if self._clock.now_ns() >= until_ns:
                return None
            arrivals = [
                due_ns
                for due_ns in (self._up.next_due_ns, self._down.next_due_ns)
                if due_ns is not None
            ]
            self._pass_until(min([until_ns, *arrivals]))

    def _pass_until(self, now_ns: int) -> None:
        """Let time pass; each message reaches the arm at its own instant."""
        while (due_ns := self._up.next_due_ns) is not None and due_ns <= now_ns:
            self._robot_clock.sleep_until_ns(due_ns)
            self._driver.advance()
            for message in self._up.pop_due(due_ns):
                self._deliver(message, due_ns)
        self._robot_clock.sleep_until_ns(now_ns)
        self._clock.sleep_until_ns(now_ns)

    def _deliver(self, message: int | Command, at_ns: int) -> None:
        if not isinstance(message, Command):
            self._down.push(at_ns, (message, self._driver.observe()))
        elif message.sequence != self._delivered:  # The second copy is no fault.
            self._delivered = message.sequence
            self._driver.command(message)

    def command(self, command: Command) -> None:
        """See `Robot.command`; sent `COPIES` times, as over a wire."""
        now_ns = self._clock.now_ns()
        copies = [self._up.push(now_ns, command) for _ in range(COPIES)]
        self.lost_commands += not any(copies)
        self._pass_until(now_ns)

    def stop(self) -> None:
        """See `Robot.stop`; a stop is repeated until it arrives."""
        self._pass_until(self._clock.now_ns() + self._delay_ns)
        self._driver.stop()

    def close(self) -> None:
        """See `Robot.close`."""
        self._driver.close()
