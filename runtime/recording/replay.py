"""Put recorded ticks through a policy again and compare the action tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.bundle import MANIFEST_FILE, Manifest
from gatort.runtime.decoding import Decision
from gatort.runtime.errors import EngineError, RecordingError
from gatort.runtime.guard import Refusal
from gatort.runtime.policy import Policy
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, select_keys
from gatort.runtime.wording import counted

from .messages import (
    ObservationMessage,
    PolicyRecord,
    PromptMessage,
    TickMessage,
    TokensMessage,
    arrays,
)
from .reader import Recording, Stamped


@dataclass(frozen=True, slots=True)
class Difference:
    """A token that differs from the recorded token."""

    tick: int
    """Number of the tick."""
    seconds: float
    """Time since the first tick."""
    actuator: str
    """Name of the actuator."""
    unit: str
    """Unit of the actuator."""
    recorded_bin: int
    """Bin in the recording."""
    found_bin: int
    """Bin of the replay."""
    recorded_value: float
    """Centre of the recorded bin, in the actuator's unit."""
    found_value: float
    """Centre of the replay's bin, in the actuator's unit."""
    margin: float
    """Logit of the found bin minus logit of the recorded bin, the sampler's noise included."""

    def __str__(self) -> str:
        recorded = f"recorded bin {self.recorded_bin}, {self.recorded_value:.4g} {self.unit}"
        found = f"found bin {self.found_bin}, {self.found_value:.4g} {self.unit}"
        return (
            f"tick {self.tick} ({self.seconds:.2f} s), actuator {self.actuator}: {recorded}, "
            f"{found}, by a logit margin of {self.margin:.3g}"
        )


class Comparison:
    """Recorded ticks, put through a policy in their order.

    A refused tick completes no frame, as when it ran. A tick of a person is put into the context
    and not compared, because no policy chose it. After a difference the context goes on with the
    recorded tokens, so each later token is compared on the same past.
    """

    def __init__(self, recording: Recording, policy: Policy) -> None:
        self.ticks = 0
        """Number of compared ticks."""
        self.equal_ticks = 0
        """Number of ticks whose tokens are all equal."""
        self.tokens = 0
        """Number of compared tokens."""
        self.equal_tokens = 0
        """Number of equal tokens."""
        self.first: Difference | None = None
        """First difference; `None` while all tokens are equal."""
        self.gap: str | None = None
        """Sentence on lost messages after which nothing can be compared; `None` without a loss."""
        self._keys = recording.run.interface.observations
        self._policy = policy
        self._selection = select_keys(policy.spec, recording.run.interface, "the recording")
        self._observation: ObservationMessage | None = None
        self._tokens: TokensMessage | None = None
        self._first_ns: int | None = None
        self._recorded_ticks = 0

    def take(self, stamped: Stamped) -> None:
        """Process one message.

        Raises:
            RecordingError, ObservationError: an observation does not match its specification.
            EngineError: a pass failed that succeeded when it was recorded.
        """
        if self.gap is not None:
            return
        match stamped.message:
            case PromptMessage(values=values, action=action):
                if len(action) != self._policy.spec.action_tokens:
                    raise RecordingError(
                        f"prompt: expected {self._policy.spec.action_tokens} action values, "
                        f"found {len(action)}"
                    )
                self._policy.force(arrays(values, self._policy.spec.observations), action)
                self._policy.commit()
            case ObservationMessage() as message:
                self._observation = message
            case TokensMessage() as message:
                self._tokens = message
            case TickMessage() as message:
                self._take_tick(stamped, message)
                self._observation = None
                self._tokens = None

    def sentence(self, engine: str) -> str:
        """Return the verdict in one or two lines.

        Args:
            engine: name of the engine.
        """
        counts = (
            f"{self.equal_ticks} of {counted(self.ticks, 'tick')} and {self.equal_tokens} of "
            f"{counted(self.tokens, 'token')} are equal, through {engine}"
        )
        return counts if self.first is None else f"first difference: {self.first}\n{counts}"

    def _take_tick(self, stamped: Stamped, tick: TickMessage) -> None:
        self._recorded_ticks += 1
        if self._first_ns is None:
            self._first_ns = stamped.at_ns
        if self._lost(stamped.sequence):
            self.gap = (
                f"messages before tick {tick.tick} were dropped, and with them the context of all "
                "later ticks"
            )
            return
        if self._observation is None:
            return

        if tick.reason == Refusal.ENGINE:
            # The pass failed when it was recorded and may fail again; the sampler drew its noise.
            with suppress(EngineError):
                self._policy.decide(self._read(self._observation))
        elif self._tokens is not None and tick.by_person:
            self._follow(self._read(self._observation), self._tokens)
        elif self._tokens is not None:
            seconds = (stamped.at_ns - self._first_ns) * 1e-9
            self._compare(self._read(self._observation), self._tokens, seconds)

    def _lost(self, sequence: int) -> bool:
        """Return true if messages before this tick are missing.

        The loss of a prompt's last frame shows in no sequence, but in the number of the next frame.
        """
        frames = self._policy.frames
        misnumbered = self._tokens is not None and self._tokens.frame != frames
        return sequence != self._recorded_ticks or misnumbered

    def _read(self, observation: ObservationMessage) -> tuple[NDArray[Any], ...]:
        return self._selection.select(arrays(observation.values, self._keys))

    def _compare(
        self, values: tuple[NDArray[Any], ...], message: TokensMessage, seconds: float
    ) -> None:
        recorded = self._recorded(message)  # (A,)
        try:
            action = self._policy.tokenizer.decode_action(recorded)
            decision = self._policy.decide(values)
        except EngineError as error:
            raise EngineError(f"tick {message.tick}: {error}") from error

        equal = decision.tokens == recorded  # (A,)
        if not equal.all():
            noise = decision.bias.copy()
            if self.first is None:
                self.first = self._difference(message.tick, seconds, recorded, decision)
            # A second pass on the recorded tokens fills the context and gives each token's choice
            # on the recorded past.
            forced = self._policy.force(values, action)
            equal = (forced.logits + noise).argmax(axis=1) + FIRST_CONTINUOUS_ID == recorded

        self.ticks += 1
        self.equal_ticks += int(equal.all())
        self.tokens += len(recorded)
        self.equal_tokens += int(equal.sum())
        if message.completed:
            self._policy.commit()

    def _follow(self, values: tuple[NDArray[Any], ...], message: TokensMessage) -> None:
        """Put a tick of a person into the context."""
        self._policy.force(values, self._policy.tokenizer.decode_action(self._recorded(message)))
        if message.completed:
            self._policy.commit()

    def _recorded(self, message: TokensMessage) -> NDArray[np.int64]:
        """Return the recorded tokens of a tick (A,).

        Raises:
            RecordingError: they are not the tokens of an action.
        """
        bins = range(FIRST_CONTINUOUS_ID, FIRST_CONTINUOUS_ID + CONTINUOUS_BINS)
        tokens = message.sampled
        count = self._policy.spec.action_tokens
        if len(tokens) != count or any(token not in bins for token in tokens):
            raise RecordingError(
                f"tick {message.tick}: expected {count} tokens from {bins.start} to "
                f"{bins.stop - 1}, found others"
            )
        return np.array(tokens, np.int64)

    def _difference(
        self, tick: int, seconds: float, recorded: NDArray[np.int64], decision: Decision
    ) -> Difference:
        """Return the first token of a tick that differs from the recorded tokens (A,)."""
        found = decision.tokens
        scores = decision.logits + decision.bias  # (A, R)
        index = int(np.argmax(found != recorded))
        actuator = self._policy.spec.actuators[index]
        recorded_bin = int(recorded[index]) - FIRST_CONTINUOUS_ID
        found_bin = int(found[index]) - FIRST_CONTINUOUS_ID
        return Difference(
            tick=tick,
            seconds=seconds,
            actuator=actuator.name,
            unit=actuator.unit,
            recorded_bin=recorded_bin,
            found_bin=found_bin,
            recorded_value=float(self._policy.tokenizer.decode_action(recorded)[index]),
            found_value=float(self._policy.tokenizer.decode_action(found)[index]),
            margin=float(scores[index, found_bin] - scores[index, recorded_bin]),
        )


def ignore_progress(_: int) -> None:
    """Do nothing: the default callback."""


def replay_recording(
    recording: Recording, policy: Policy, on_progress: Callable[[int], None] = ignore_progress
) -> Comparison:
    """Compare every recorded tick.

    Args:
        recording: a recording of a run with a policy.
        policy: policy to replay with.
        on_progress: called with the number of bytes that were read.

    Raises:
        RecordingError: no tick can be compared.
        ObservationError, EngineError: see `Comparison.take`.
    """
    comparison = Comparison(recording, policy)
    for stamped in recording.messages():
        comparison.take(stamped)
        on_progress(recording.read_bytes)
    on_progress(recording.read_bytes)

    if not comparison.tokens:
        cause = comparison.gap or "no tick has both an observation and tokens"
        raise RecordingError(
            f"{recording.path}: expected ticks that can be compared, found none: {cause}"
        )
    return comparison


def changed_files(recorded: PolicyRecord, manifest: Manifest, manifest_sha256: str) -> list[str]:
    """Return the names of the files in which a bundle differs from the recorded one.

    Args:
        recorded: policy of the recording.
        manifest: manifest of the bundle, which vouches for its other files.
        manifest_sha256: hash of that manifest.
    """
    expected = {MANIFEST_FILE: recorded.manifest_sha256, **recorded.files}
    found = {MANIFEST_FILE: manifest_sha256, **manifest.files}
    return [name for name, hashed in expected.items() if found.get(name) != hashed]
