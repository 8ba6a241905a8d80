"""Ticks of a recording that sent a command, which episodes are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from gatort.runtime.errors import RecordingError
from gatort.runtime.spec import PolicySpec, select_keys

from .messages import CommandMessage, ObservationMessage, TickMessage, arrays
from .reader import Recording


@dataclass(frozen=True, slots=True)
class SentTick:
    """A tick that sent a command."""

    tick: TickMessage
    """Timing and result."""
    stamp_ns: int
    """Time at which the robot read its sensors."""
    values: tuple[NDArray[Any], ...]
    """One array per observation key of the policy."""
    asked: list[float]
    """Action of the policy or the person (A,)."""
    limited: list[float]
    """Action as sent to the robot (A,)."""


def sent_ticks(recording: Recording, spec: PolicySpec) -> Iterator[SentTick]:
    """Yield each tick that sent a command, and read the recording to its end.

    A refused tick stands in no context. After a lost tick none follows: its past would lack a
    frame.

    Args:
        recording: recording of a run with a policy.
        spec: keys and actuators of the policy, which the recorded robot must offer.

    Raises:
        SpecError: the recorded robot has another interface.
        RecordingError: a message is damaged.
    """
    keys = recording.run.interface.observations
    selection = select_keys(spec, recording.run.interface, str(recording.path))
    count = 0
    is_whole = True
    observation: ObservationMessage | None = None
    command: CommandMessage | None = None
    for stamped in recording.messages():
        match stamped.message:
            case ObservationMessage() as message:
                observation = message
            case CommandMessage() as message:
                command = message
            case TickMessage() as tick:
                count += 1
                is_whole = is_whole and stamped.sequence == count
                if (
                    is_whole
                    and not tick.reason
                    and observation is not None
                    and command is not None
                    and observation.tick == command.tick == tick.tick
                ):
                    yield SentTick(
                        tick=tick,
                        stamp_ns=observation.stamp_ns,
                        values=selection.select(arrays(observation.values, keys)),
                        asked=_action(recording, spec, command, command.asked),
                        limited=_action(recording, spec, command, command.limited),
                    )
                observation = command = None


def _action(
    recording: Recording,
    spec: PolicySpec,
    command: CommandMessage,
    values: list[float] | msgspec.UnsetType,
) -> list[float]:
    """Return a recorded action (A,)."""
    found = 0 if values is msgspec.UNSET else len(values)
    if values is msgspec.UNSET or found != spec.action_tokens:
        raise RecordingError(
            f"{recording.path}: tick {command.tick}: expected {spec.action_tokens} values in the "
            f"command, found {found or 'none'}"
        )
    return values
