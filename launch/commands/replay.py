"""`gatort replay`: a recording's observations through an engine again, and the first token that differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gatort.launch.report import (
    progress_bar,
    require_writable,
    screen,
    write_json,
)
from gatort.policies.loading import PROVIDERS, EngineName, PolicyOptions, load_policy
from gatort.runtime.bundle import (
    MANIFEST_FILE,
    sha256_of,
)
from gatort.runtime.decoding import Decision, Sampler
from gatort.runtime.errors import (
    EngineError,
    RecordingError,
)
from gatort.runtime.guard import Refusal
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import (
    ObservationMessage,
    PolicyRecord,
    PromptMessage,
    TickMessage,
    TokensMessage,
    arrays,
)
from gatort.runtime.recording.reader import Recording, Stamped
from gatort.runtime.spec import (
    FIRST_CONTINUOUS_ID,
    Precision,
    select_keys,
)


def replay(
    file: Path,
    *,
    bundle: Path | None = None,
    engine: EngineName | None = None,
    precision: Precision | None = None,
    json: Path | None = None,
) -> int:
    """Feed a recording's observations through an engine and compare every action token with the recorded one.

    After a difference the context goes on with what was recorded, so that each later token is compared on the same
    past. Exit status 1 when a token differs.

    Parameters
    ----------
    file
        What `gatort run` recorded.
    bundle
        Directory of the policy; the recorded one when it is not given.
    engine
        What computes the passes; the recorded one when it is not given.
    precision
        Of its weights; with the recorded engine the recorded one when it is not given. ONNX Runtime takes the bundle's
        own.
    json
        Write the comparison to this file as well.
    """
    require_writable(json)
    recording = Recording(file)
    if (recorded := recording.policy) is None:
        raise RecordingError(
            f"{file}: expected a run of a policy, found a recording of the robot alone"
        )
    options = _options(recorded, bundle, engine, precision)
    policy = load_policy(options, Sampler(recorded.temperature, recorded.seed))
    comparison = _replay(recording, policy)
    console = screen()
    notes = list(_notes(recorded, options.bundle, recording, comparison))
    console.print(*notes, comparison.sentence(policy.engine.name), sep="\n")
    write_json(json, _record(comparison, policy, notes))
    return int(comparison.first is not None)


def _record(comparison: Comparison, policy: Policy, notes: list[str]) -> dict[str, Any]:
    return {
        "engine": policy.engine.name,
        "ticks": comparison.ticks,
        "equal_ticks": comparison.equal_ticks,
        "tokens": comparison.tokens,
        "equal_tokens": comparison.equal_tokens,
        "first_difference": asdict(comparison.first) if comparison.first else None,
        "notes": notes,
        "machine": asdict(this_machine()),
    }


def _options(
    recorded: PolicyRecord,
    bundle: Path | None,
    engine: EngineName | None,
    precision: Precision | None,
) -> PolicyOptions:
    """The recorded ones, and over them what was asked for; another engine chooses its precision itself.

    So does the recorded one where it takes the bundle's own, and another bundle was asked for.
    """
    chooses = engine not in (None, recorded.engine) or (
        bundle is not None and recorded.engine in PROVIDERS
    )
    try:
        return PolicyOptions(
            bundle=bundle or recorded.directory,
            engine=engine or recorded.engine,  # type: ignore[arg-type]  # checked here, since a file may say anything
            precision=precision or (None if chooses else recorded.precision),
            threads=recorded.threads,
            spinning=recorded.spinning,
        )
    except ValidationError as error:
        valid = ", ".join(get_args(EngineName))
        raise RecordingError(
            f"the recorded engine: expected one of {valid}, found {recorded.engine!r}"
        ) from error


# -- The comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A token that is not the recorded one."""

    tick: int
    seconds: float
    """Since the first tick."""
    actuator: str
    unit: str
    recorded_bin: int
    found_bin: int
    recorded_value: float
    """Of the bin's centre, in the actuator's unit."""
    found_value: float
    margin: float
    """By how much the found bin's logit, a sampler's noise added, exceeds the recorded bin's."""

    def __str__(self) -> str:
        return (
            f"tick {self.tick} ({self.seconds:.2f} s), actuator {self.actuator}: recorded bin {self.recorded_bin}, "
            f"{self.recorded_value:.4g} {self.unit}, found bin {self.found_bin}, {self.found_value:.4g} {self.unit}, "
            f"by a logit margin of {self.margin:.3g}"
        )


class Comparison:
    """Recorded ticks, put through a policy in their order; a refused tick completes no frame, as when it ran."""

    def __init__(self, recording: Recording, policy: Policy) -> None:
        self.ticks = self.equal_ticks = self.tokens = self.equal_tokens = 0
        self.first: Difference | None = None
        self.gap: str | None = None
        """Why what follows in the recording cannot be compared."""
        self._keys = recording.run.interface.observations
        self._policy = policy
        self._selection = select_keys(policy.spec, recording.run.interface)
        self._observation: ObservationMessage | None = None
        self._tokens: TokensMessage | None = None
        self._first_ns: int | None = None
        self._recorded_ticks = 0

    def take(self, stamped: Stamped) -> None:
        """Go on by one message.

        Raises:
            RecordingError, ObservationError: an observation is not what its specification says.
            EngineError: a pass failed that did not when it was recorded.
        """
        if self.gap is not None:
            return
        match stamped.message:
            case PromptMessage(values=values, action=action):
                self._policy.force(arrays(values, self._policy.spec.observations), action)
                self._policy.commit()
            case ObservationMessage() as message:
                self._observation = message
            case TokensMessage() as message:
                self._tokens = message
            case TickMessage() as message:
                self._take_tick(stamped, message)
                self._observation = self._tokens = None

    def _take_tick(self, stamped: Stamped, tick: TickMessage) -> None:
        self._recorded_ticks += 1
        self._first_ns = stamped.at_ns if self._first_ns is None else self._first_ns
        frames = self._policy.frames
        # A prompt's last frame, when it is lost, shows in no sequence, but in the number of the frame after it.
        if stamped.sequence != self._recorded_ticks or (
            self._tokens is not None and self._tokens.frame != frames
        ):
            self.gap = f"messages before tick {tick.tick} were dropped, and with them the context of all that follows"
        elif self._observation is not None and tick.reason == Refusal.ENGINE:
            # It failed then, and may again: it drew its noise all the same.
            with suppress(EngineError):
                self._policy.decide(self._read(self._observation))
        elif self._observation is not None and self._tokens is not None:
            seconds = (stamped.at_ns - self._first_ns) * 1e-9
            self._compare(self._read(self._observation), self._tokens, seconds)

    def _read(self, observation: ObservationMessage) -> tuple[NDArray[Any], ...]:
        return self._selection.select(arrays(observation.values, self._keys))

    def _compare(
        self, values: tuple[NDArray[Any], ...], message: TokensMessage, seconds: float
    ) -> None:
        recorded = np.array(message.sampled, np.int64)  # (A,)
        try:
            action = self._policy.tokenizer.decode_action(recorded)
            decision = self._policy.decide(values)
        except EngineError as error:
            raise EngineError(f"tick {message.tick}: {error}") from error
        equal = decision.tokens == recorded  # (A,)
        if not equal.all():
            noise = decision.bias.copy()
            if self.first is None:
                scores = decision.logits + noise
                self.first = self._difference(message.tick, seconds, recorded, decision, scores)
            # Again on the recorded tokens: what the context has to hold, and each token's choice after them.
            forced = self._policy.force(values, action)
            equal = (forced.logits + noise).argmax(axis=1) + FIRST_CONTINUOUS_ID == recorded
        self.ticks += 1
        self.equal_ticks += bool(equal.all())
        self.tokens += len(recorded)
        self.equal_tokens += int(equal.sum())
        if message.completed:
            self._policy.commit()

    def _difference(
        self,
        tick: int,
        seconds: float,
        recorded: NDArray[np.int64],
        decision: Decision,
        scores: NDArray[np.float32],
    ) -> Difference:
        """The first of a tick; scores (A, R) are its logits and the sampler's noise."""
        found = decision.tokens
        index = int(np.argmax(found != recorded))
        actuator = self._policy.spec.actuators[index]
        values = [
            float(self._policy.tokenizer.decode_action(tokens)[index])
            for tokens in (recorded, found)
        ]
        bins = [int(tokens[index]) - FIRST_CONTINUOUS_ID for tokens in (recorded, found)]
        return Difference(
            tick=tick,
            seconds=seconds,
            actuator=actuator.name,
            unit=actuator.unit,
            recorded_bin=bins[0],
            found_bin=bins[1],
            recorded_value=values[0],
            found_value=values[1],
            margin=float(scores[index, bins[1]] - scores[index, bins[0]]),
        )

    def sentence(self, engine: str) -> str:
        """The verdict in a line or two."""
        counts = (
            f"{self.equal_ticks} of {self.ticks} ticks and {self.equal_tokens} of {self.tokens} tokens are equal, "
            f"through {engine}"
        )
        return counts if self.first is None else f"the first that differs: {self.first}\n{counts}"


def _replay(recording: Recording, policy: Policy) -> Comparison:
    comparison = Comparison(recording, policy)
    with progress_bar("replay, KiB") as progress:
        bar = progress.add_task("", total=recording.total_bytes // 1024)
        for stamped in recording.messages():
            comparison.take(stamped)
            progress.update(bar, completed=recording.read_bytes // 1024)
        progress.update(bar, completed=recording.read_bytes // 1024)
    if not comparison.tokens:
        why = comparison.gap or "no tick has both an observation and tokens"
        raise RecordingError(
            f"{recording.path}: expected ticks that can be compared, found none: {why}"
        )
    return comparison


def _notes(
    recorded: PolicyRecord, bundle: Path, recording: Recording, comparison: Comparison
) -> Iterator[str]:
    """What the reader of the verdict must know."""
    files = {MANIFEST_FILE: recorded.manifest_sha256, **recorded.files}
    if changed := [name for name, hashed in files.items() if _hash(bundle / name) != hashed]:
        yield f"{bundle} is not the bundle that was recorded, it differs in {', '.join(changed)}"
    if comparison.gap is not None:
        yield comparison.gap
    if (why := recording.incomplete) is not None:
        yield f"the recording is incomplete: {why}"


def _hash(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None
