"""The loop: a few calls in order. Nothing reaches the robot but what the guard returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decoding import Decoder
from .errors import (
    EngineError,
    ObservationError,
)
from .guard import (
    Guard,
    Refusal,
)
from .pacer import (
    Pacer,
    Wake,
)
from .robot import (
    Observation,
    Robot,
)
from .safety import (
    STOPPED,
    Command,
)
from .telemetry import Telemetry
from .tokenizer import Tokenizer


@dataclass(slots=True)
class Tick:
    """What one tick saw and did, as far as it came; refused ones lack what follows the refusal."""

    wake: Wake
    observation: Observation | None = None
    tokens: NDArray[np.int64] | None = None
    """(A,) action tokens; a copy."""
    action: NDArray[np.float64] | None = None
    """(A,) what the policy asked for, in each actuator's unit."""
    command: Command | None = None
    """What the guard made of it and the robot was handed."""
    refusal: str | None = None
    """Why nothing was sent."""


class ControlLoop:
    """One robot, one policy, one pace; `decoder` holds the engine, the context and the sampler."""

    def __init__(
        self,
        robot: Robot,
        tokenizer: Tokenizer,
        decoder: Decoder,
        guard: Guard,
        pacer: Pacer,
        telemetry: Telemetry,
    ) -> None:
        self.robot, self.tokenizer, self.decoder = robot, tokenizer, decoder
        self.guard, self.pacer, self.telemetry = guard, pacer, telemetry
        self.refusal: str | None = None
        """The last refused tick's sentence."""

    def tick(self, tick: Tick) -> None:
        """Observe, tokenize, decode (one prefill, then a pass a token), detokenize, guard, command; fills `tick`.

        Raises:
            ObservationError: nothing was sent; the next tick takes this one's frame.
            EngineError: as above.
        """
        mark, context = self.telemetry.mark, self.decoder.context
        context.begin_frame()

        observation = tick.observation = self.robot.observe()
        mark()
        self.tokenizer.encode(observation.values, context.observation_ids, context.patches)
        self.guard.inspect(observation)
        mark()
        tokens = self.decoder.decode(mark)
        tick.tokens = tokens.copy()
        tick.action = self.tokenizer.decode_action(tokens)
        mark()
        tick.command = self.guard.admit(tick.action, observation)
        mark()
        if tick.command is not None:
            self.robot.command(tick.command)
            context.end_frame(
                int(tokens[-1])
            )  # What was not done must not stand in the context as if it had been.
            mark()

    def run(self, ticks: int, on_tick: Callable[[Tick], bool | None] | None = None) -> int:
        """Arm, run at most `ticks` ticks, and stop the robot; returns how many ran.

        The context goes on from where it is, so that a prompt may stand in it: `Policy.reset` begins a new session.

        `on_tick` runs in the slack after each tick with what it did; the run ends when it returns true, and when the
        guard or the robot has gone to SAFE or LATCHED.
        """
        self.robot.observe()  # It answers, and its clock has caught up, before anyone consents to motion.
        try:
            self.guard.arm()
            self.robot.arm()  # Within the try: consent may have arrived though its answer has not.
            self.pacer.start()
            for done in range(1, ticks + 1):
                tick = self._paced_tick()
                if (on_tick is not None and on_tick(tick)) or self.stopped:
                    return done
        finally:
            self.robot.stop()
        return ticks

    @property
    def stopped(self) -> bool:
        """Whether the guard or the robot takes no more commands."""
        return self.guard.state in STOPPED or self.robot.state in STOPPED

    def _paced_tick(self) -> Tick:
        tick = Tick(self.pacer.wait())
        self.telemetry.begin(tick.wake)
        for _ in range(tick.wake.skipped):
            self.guard.refuse(Refusal.SKIPPED)
        try:
            self.tick(tick)
        except (ObservationError, EngineError) as error:
            self.guard.refuse(
                Refusal.ENGINE if isinstance(error, EngineError) else Refusal.OBSERVATION
            )
            tick.refusal = self.refusal = str(error)
        else:
            if tick.command is None:
                tick.refusal = self.guard.reason.value if self.guard.reason else None
        self.telemetry.record()
        return tick

    def prime(self, frames: Iterable[tuple[Sequence[NDArray[Any]], ArrayLike]]) -> None:
        """Put prompt frames (observation values, action (A,)) into the context before the first observation.

        Gato's deployment by demonstration (arXiv 2205.06175, section 2.5). Call it before `run`.

        Raises:
            ObservationError: a value of a frame is refused.
            EngineError: a pass failed.
        """
        context = self.decoder.context
        tokenizer = Tokenizer(
            context.spec
        )  # A robot may offer keys that the policy, and so its prompt, does not have.
        for values, action in frames:
            context.begin_frame()
            tokenizer.encode(values, context.observation_ids, context.patches)
            self.decoder.replay(tokenizer.encode_action(action))
