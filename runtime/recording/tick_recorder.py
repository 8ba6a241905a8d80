"""Recording of a control loop's ticks and of a robot's inner steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatort.runtime.decoding import Decision
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.robot import Observation
from gatort.runtime.safety import State
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ObservationKey

from .messages import (
    AnyMessage,
    CommandMessage,
    FaultMessage,
    Image,
    ObservationMessage,
    PromptMessage,
    StateMessage,
    StepMessage,
    TickMessage,
    TokensMessage,
    Values,
    field_names,
    numbers,
)
from .recorder import Recorder

_PROMPT_S = 10.0
_STEPS_A_PACKET = 50


class TickRecorder:
    """Recorder of a control loop; `ControlLoop.run` calls it after each tick, in the slack."""

    def __init__(self, recorder: Recorder, loop: ControlLoop) -> None:
        self._recorder = recorder
        self._loop = loop
        self._keys = loop.robot.interface.observations
        self._names = field_names(self._keys)
        self._policy = loop.decoder.spec
        self._states: tuple[State, State] | None = None

    def prompt(
        self, at_ns: int, frames: Iterable[tuple[Sequence[NDArray[Any]], ArrayLike]]
    ) -> None:
        """Record the frames that `ControlLoop.prime` was given.

        Call it before the robot is armed, because it waits for room in the link.
        """
        # A robot may offer more keys than the policy and its prompt have.
        keys = self._policy.observations
        names = field_names(keys)
        for values, action in frames:
            message = PromptMessage(
                values=_named(names, keys, values), action=numbers(np.asarray(action))
            )
            self._recorder.add(at_ns, message)
            # Waiting is of no use any more once a frame was lost.
            self._recorder.flush(wait_s=_PROMPT_S if self._recorder.degraded is None else 0.0)

    def __call__(self, tick: TickRecord) -> None:
        """Record a tick. See `record`."""
        self.record(tick)

    def record(self, tick: TickRecord) -> TickMessage:
        """Record a completed or refused tick, and return its timing.

        An interrupt keeps all its messages out.
        """
        timing = self._timing(tick)
        self._recorder.add(tick.wake.woke_ns, *self._decision(tick), *self._changes(tick), timing)
        self._recorder.flush()
        return timing

    def _decision(self, tick: TickRecord) -> list[AnyMessage]:
        """Return the messages from the observation to the command, as far as the tick came."""
        number = tick.wake.tick
        messages: list[AnyMessage] = []
        if tick.observation is not None:
            messages.append(self._observation(number, tick.observation))
        if tick.decision is not None:
            completed = tick.command is not None
            messages.append(self._tokens(number, tick.decision, completed=completed))
        if tick.observation is not None:
            messages.append(_command(number, tick, tick.observation))
        return messages

    def _observation(self, number: int, observation: Observation) -> ObservationMessage:
        return ObservationMessage(
            tick=number,
            sequence=observation.sequence,
            stamp_ns=observation.stamp_ns,
            values=_named(self._names, self._keys, observation.values),
        )

    def _tokens(self, number: int, decision: Decision, *, completed: bool) -> TokensMessage:
        raw = decision.logits.argmax(axis=1) + FIRST_CONTINUOUS_ID  # (A,)
        return TokensMessage(
            tick=number,
            frame=decision.frame,
            slot=decision.frame % self._policy.window_frames,
            completed=completed,
            raw=raw.tolist(),
            sampled=decision.tokens.tolist(),
            passes=decision.passes,
        )

    def _changes(self, tick: TickRecord) -> list[AnyMessage]:
        """Return a message for a change of state and one for a refusal, if there are any."""
        messages: list[AnyMessage] = []
        states = (self._loop.guard.state, self._loop.robot.state)
        if states != self._states:
            self._states = states
            messages.append(StateMessage(guard=states[0], robot=states[1]))
        if tick.refusal is not None:
            messages.append(FaultMessage(component="loop", sentence=tick.refusal))
        return messages

    def _timing(self, tick: TickRecord) -> TickMessage:
        telemetry = self._loop.telemetry
        usage = telemetry.usage
        stamps_ns = telemetry.stamps[(telemetry.ticks - 1) % len(telemetry.stamps)]
        reason = self._loop.guard.reason if tick.refusal is not None else None
        return TickMessage(
            tick=tick.wake.tick,
            deadline_ns=tick.wake.deadline_ns,
            woke_ns=tick.wake.woke_ns,
            lateness_ns=tick.wake.lateness_ns,
            skipped=tick.wake.skipped,
            stamps_ns=stamps_ns[stamps_ns > 0].tolist(),
            cpu_ns=usage.cpu_ns,
            waited_ns=usage.waited_ns,
            page_faults=usage.page_faults,
            disk_faults=usage.disk_faults,
            preempted=usage.preempted,
            slept=usage.slept,
            others_preempted=usage.others_preempted,
            slack_cpu_ns=telemetry.slack.cpu_ns,
            slack_waited_ns=telemetry.slack.waited_ns,
            by_person=tick.by_person,
            reason=reason or "",
            refusal=tick.refusal or "",
        )


def _named(
    names: Sequence[str], keys: Sequence[ObservationKey], values: Sequence[NDArray[Any]]
) -> Values:
    # Not strict: an observation refused for its number of arrays is recorded as far as it goes.
    return {name: _value(key, array) for name, key, array in zip(names, keys, values, strict=False)}


def _value(key: ObservationKey, array: NDArray[Any]) -> list[float] | Image:
    if key.encoding == "image":
        return Image(list(array.shape), array.tobytes())
    return numbers(array)


def _command(number: int, tick: TickRecord, observation: Observation) -> CommandMessage:
    applied = numbers(observation.applied)
    asked = msgspec.UNSET if tick.decision is None else numbers(tick.decision.action)
    command = tick.command
    if command is None:
        return CommandMessage(tick=number, applied=applied, asked=asked)

    return CommandMessage(
        tick=number,
        applied=applied,
        asked=asked,
        limited=numbers(command.values),
        sequence=command.sequence,
        observation_sequence=command.observation_sequence,
        apply_at_ns=command.apply_at_ns,
        valid_for_ns=command.valid_for_ns,
    )


class StepRecorder:
    """Recorder of a robot's inner loop: assign it to `Driver.on_step`, and close its recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._steps = 0
        self._state: State | None = None

    def __call__(self, at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        """Record a step; send a packet every 50 steps, and at once when the state changes."""
        self._recorder.add(at_ns, StepMessage(state=state, values=values.tolist()))
        self._steps += 1
        if self._steps % _STEPS_A_PACKET == 0 or state is not self._state:
            self._state = state
            self._recorder.flush()
