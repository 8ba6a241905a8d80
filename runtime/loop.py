"""The control loop: a few calls in order. Only commands that the guard returned reach the robot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from gatort.runtime.takeover.takeover import Takeover

from .decoding import Decision, Decoder
from .errors import EngineError, ObservationError, TakeoverError
from .guard import Guard, Refusal
from .pacer import Pacer, Wake
from .robot import Observation, Robot
from .safety import STOPPED, Command, State
from .spec import KeySelection
from .telemetry import Telemetry

PromptFrame = tuple[Sequence[NDArray[Any]], ArrayLike]
"""Observed values in the policy's key order, and an action (A,) in the actuators' units."""


@dataclass(slots=True)
class TickRecord:
    """Record of one tick. A refused tick lacks everything that follows the refusal."""

    wake: Wake
    """Wake-up that began the tick."""
    observation: Observation | None = None
    """Observation that the robot gave, with every key that the robot offers."""
    decision: Decision | None = None
    """Decision of the policy; its logits last until the next tick."""
    command: Command | None = None
    """Command that the guard admitted and the robot received."""
    by_person: bool = False
    """True if a person chose the action, or should have. The decision then rates it."""
    refusal: str | None = None
    """Reason why no command was sent."""


class ControlLoop:
    """One robot, one policy, one pace."""

    def __init__(
        self,
        robot: Robot,
        decoder: Decoder,
        selection: KeySelection,
        guard: Guard,
        pacer: Pacer,
        telemetry: Telemetry,
    ) -> None:
        self.robot = robot
        self.decoder = decoder
        self.selection = selection
        self.guard = guard
        self.pacer = pacer
        self.telemetry = telemetry
        self.takeover: Takeover | None = None
        """Device with which a person may take the arm; `None` without one."""
        self.refusal: str | None = None
        """Sentence of the last refused tick."""

    def step(self, record: TickRecord) -> None:
        """Look, observe, decide, guard, command, commit. Fills `record` as far as the tick comes.

        Raises:
            ObservationError: nothing was sent; the next tick takes the same frame.
            EngineError: nothing was sent; the next tick takes the same frame.
            TakeoverError: nothing was sent, because the device of a person is lost.
        """
        mark = self.telemetry.mark

        if self.selection.pictures:
            pictures = self.robot.look()
            if pictures is not None:
                self.decoder.see(self.selection.select_pictures(pictures))
            mark()

        observation = self.robot.observe()
        record.observation = observation
        mark()

        values = self.selection.select(observation.values)
        self.guard.inspect(observation)
        action = self.takeover.action(observation) if self.takeover is not None else None
        if action is None:
            decision = self.decoder.decide(values, mark)
        else:  # A person's. The policy then goes on from the true history.
            decision = self.decoder.force(values, action, mark)
        record.decision = decision

        command = self.guard.admit(decision.action, observation)
        record.command = command
        mark()

        if command is not None:
            self.robot.command(command)
            # An action that was not sent must not stand in the context as if it had been.
            self.decoder.commit()
            mark()

    def run(self, ticks: int, on_tick: Callable[[TickRecord], bool | None] | None = None) -> int:
        """Arm the robot, run at most `ticks` ticks, stop the robot. Return how many ticks ran.

        The context goes on from where it is: a prompt may stand in it. `Policy.reset` begins a
        new session.

        Args:
            ticks: largest number of ticks.
            on_tick: called in the slack after each tick with its record. The run ends when it
                returns true, and when the guard or the robot is in SAFE or LATCHED.

        Raises:
            ObservationError: the robot's first observation is missing or in other units. The robot
                was not armed.
        """
        # Before anyone consents to motion, the robot must answer and its clock must have caught up.
        self.guard.require_units(self.robot.observe())
        try:
            self.guard.arm()
            # Within the try: consent may have arrived although its answer has not.
            self.robot.arm()
            self.pacer.start()
            for done in range(1, ticks + 1):
                record = self._paced_step()
                if (on_tick is not None and on_tick(record)) or self.stopped:
                    return done
        finally:
            self.robot.stop()
        return ticks

    @property
    def stopped(self) -> bool:
        """True if the guard or the robot takes no more commands."""
        return self.guard.state in STOPPED or self.robot.state in STOPPED

    @property
    def state(self) -> State:
        """State of guard or robot, whichever is further from RUN."""
        return max(self.guard.state, self.robot.state, key=list(State).index)

    @property
    def stop_sentence(self) -> str | None:
        """Sentence on the stop of the robot or the guard, with its causes; `None` without one."""
        if not self.stopped:
            return None
        if self.guard.state in STOPPED:
            cause = "the guard"
        else:
            cause = f"the robot: {self.robot.stop_reason or 'it does not say why'}"
        reasons = "".join(f"; {count}× {reason}" for reason, count in self.guard.refused.items())
        newest = f"; the newest: {self.refusal}" if self.refusal is not None else ""
        return f"stopped in {self.state} (by {cause}{reasons}{newest})"

    def _paced_step(self) -> TickRecord:
        record = TickRecord(self.pacer.wait())
        self.telemetry.begin(record.wake)
        for _ in range(record.wake.skipped):
            self.guard.refuse(Refusal.SKIPPED)

        try:
            self.step(record)
        except (ObservationError, EngineError, TakeoverError) as error:
            self.guard.refuse(_refusal_of(error))
            self.refusal = str(error)
            record.refusal = self.refusal
        else:
            if record.command is None and self.guard.reason is not None:
                record.refusal = self.guard.reason.value

        record.by_person = self.takeover is not None and self.takeover.by_person
        if record.decision is not None and not record.by_person:
            self.telemetry.decided(record.decision)
        self.telemetry.record()
        return record

    def prime(self, frames: Iterable[PromptFrame]) -> None:
        """Put prompt frames into the context before the first observation; call it before `run`.

        This is Gato's deployment by demonstration (arXiv 2205.06175, section 2.5).

        Raises:
            ObservationError: a value of a frame is refused.
            EngineError: a pass failed.
        """
        for values, action in frames:
            self.decoder.force(values, action)
            self.decoder.commit()


def _refusal_of(error: ObservationError | EngineError | TakeoverError) -> Refusal:
    if isinstance(error, EngineError):
        return Refusal.ENGINE
    return Refusal.TAKEOVER if isinstance(error, TakeoverError) else Refusal.OBSERVATION
