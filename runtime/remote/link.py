"""A simulated bad link: seeded delay, jitter, loss and reordering.

`bad_link.py` puts a `DelayLine` into each direction of a simulated arm's socket. A trial puts a
`LinkedRobot` around its simulated arm, so that a policy meets the same link in lockstep.
"""

from __future__ import annotations

import heapq
from typing import Generic, Literal, TypeVar

import numpy as np
from pydantic import Field, FiniteFloat

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import Interface, Seed, Strict
from gatort.runtime.wording import counted

RETRY_NS = 5_000_000
"""Time after which a controller asks again for an observation."""
COPIES = 2
"""Number of times that each command is sent, against the loss of single messages."""
LONGEST_HOLD_BACK_NS = 100_000_000
"""Longest extra delay of a message held back for another one to overtake."""
MOST_IN_FLIGHT = 1_024
"""Most messages on their way at once. More are lost, as in a router whose queue is full."""

Direction = Literal["to_robot", "to_controller"]
Item = TypeVar("Item")


class LinkConditions(Strict):
    """Conditions of a link, the same in each direction and drawn anew for each message."""

    delay_ms: FiniteFloat = Field(default=0.0, ge=0, le=1000)
    """Shortest time that a message takes, one way."""
    jitter_ms: FiniteFloat = Field(default=0.0, ge=0, le=1000)
    """Largest extra delay, drawn uniformly from 0. Messages keep their order."""
    loss: FiniteFloat = Field(default=0.0, ge=0, le=1)
    """Probability that a message never arrives."""
    reorder: FiniteFloat = Field(default=0.0, ge=0, le=1)
    """Probability that a message is overtaken by the next one."""
    link_seed: Seed = 0
    """Seed of the draws. The same seed treats the same messages alike."""

    @property
    def perfect(self) -> bool:
        """True if every message arrives at once."""
        return not (self.delay_ms or self.jitter_ms or self.loss or self.reorder)


class DelayLine(Generic[Item]):
    """Messages on their way in one direction."""

    def __init__(self, conditions: LinkConditions, direction: Direction) -> None:
        """Begin with no message on its way.

        Args:
            conditions: delay, jitter, loss and reordering.
            direction: way of the messages. The two ways of one seed draw independently.
        """
        self.lost = 0
        """Number of messages that will never arrive."""
        self.overtaken = 0
        """Number of messages that were held back for the next one to overtake."""
        self._conditions = conditions
        self._random = np.random.default_rng((conditions.link_seed, direction == "to_robot"))
        self._flying: list[tuple[int, int, Item]] = []
        """Heap of (due_ns, order, item)."""
        self._held: tuple[int, int, Item] | None = None
        """Message that the next one will overtake, as (due_ns, order, item)."""
        self._order = 0
        self._last_due_ns = 0

    def __len__(self) -> int:
        """Return the number of messages on their way."""
        return len(self._flying) + (self._held is not None)

    def push(self, now_ns: int, item: Item) -> bool:
        """Send a message at `now_ns`. Return false if it is lost."""
        # Always three draws, so that more loss does not change the jitter of the other messages.
        lost, late, behind = self._random.random(3)
        conditions = self._conditions
        if lost < conditions.loss or len(self) >= MOST_IN_FLIGHT:
            self.lost += 1
            return False

        due_ns = now_ns + round((conditions.delay_ms + late * conditions.jitter_ms) * 1e6)
        due_ns = max(due_ns, self._last_due_ns)
        self._last_due_ns = due_ns
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
        """Instant at which the next message arrives, or `None` if none is on its way."""
        first = self._flying[:1] + ([self._held] if self._held else [])
        return min((due_ns for due_ns, _, _ in first), default=None)

    def pop_due(self, now_ns: int) -> list[Item]:
        """Return the messages that have arrived by `now_ns`, in the order of arrival."""
        if self._held is not None and self._held[0] <= now_ns:
            heapq.heappush(self._flying, self._held)
            self._held = None
        arrived = []
        while self._flying and self._flying[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._flying)[2])
        return arrived


class LinkedRobot:
    """A simulated arm behind a link, in lockstep. Implements `Robot`; every delay is exact.

    The arm has a virtual clock of its own, which this robot advances: each message finds the arm at
    the instant of its arrival. The two clocks agree, as if the offset of two hosts were known.
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
            robot_clock: the arm's own clock, not ahead of `clock`.
            clock: the controller's clock. `observe` and `arm` let the link's time pass on it.
            conditions: delay, jitter, loss and reordering of each direction.
        """
        self.lost_commands = 0
        """Number of commands of which no copy will arrive."""
        self._driver = driver
        self._robot_clock = robot_clock
        self._clock = clock
        self._delay_ns = round(conditions.delay_ms * 1e6)
        self._up: DelayLine[int | Command] = DelayLine(conditions, "to_robot")
        """Way to the arm: numbers of requests for an observation, and commands."""
        self._down: DelayLine[tuple[int, Observation]] = DelayLine(conditions, "to_controller")
        """Way back: numbers of requests, each with the observation that answers it."""
        self._request = 0
        self._delivered = -1
        """Sequence of the last command that reached the arm."""

    @property
    def interface(self) -> Interface:
        """See `Robot.interface`."""
        return self._driver.interface

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self._driver.state

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`."""
        return self._driver.stop_reason

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self._driver.succeeded

    def arm(self) -> None:
        """See `Robot.arm`. It takes the link's delay twice, and is repeated until it arrives."""
        self._pass_until(self._clock.now_ns() + self._delay_ns)
        self._driver.arm()
        self._delivered = -1
        self._pass_until(self._clock.now_ns() + self._delay_ns)

    def look(self) -> None:
        """See `Robot.look`. Pictures come over the wire with the joints."""

    def observe(self) -> Observation:
        """See `Robot.observe`. Ask again every `RETRY_NS` until an answer comes.

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
            f"expected an observation within {self.interface.action_delay_ms} ms, "
            f"found no answer to {counted(self._request - first + 1, 'request')}"
        )

    def _wait_for(self, request: int, until_ns: int) -> Observation | None:
        """Return the newest answer to this request or a later one, or `None` if none comes."""
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
        """Let time pass. Each message reaches the arm at its own instant."""
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
        """See `Robot.command`. The command is sent `COPIES` times, as over a wire."""
        now_ns = self._clock.now_ns()
        copies = [self._up.push(now_ns, command) for _ in range(COPIES)]
        if not any(copies):
            self.lost_commands += 1
        self._pass_until(now_ns)

    def stop(self) -> None:
        """See `Robot.stop`. A stop is repeated until it arrives."""
        self._pass_until(self._clock.now_ns() + self._delay_ns)
        self._driver.stop()

    def close(self) -> None:
        """See `Robot.close`."""
        self._driver.close()
