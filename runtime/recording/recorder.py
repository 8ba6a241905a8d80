"""Recording a run or a robot's inner loop without ever waiting: messages go to a process of their own.

A message costs the caller its encoding and a copy into a socket. What does not fit is dropped and counted, and a disk
or a writer that fails makes the recorder DEGRADED: `degraded` says why, nothing is raised and control goes on.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatort.runtime.decoding import Decision
from gatort.runtime.errors import RecordingError
from gatort.runtime.loop import (
    ControlLoop,
    TickRecord,
)
from gatort.runtime.robot import Observation
from gatort.runtime.safety import State
from gatort.runtime.spec import (
    FIRST_CONTINUOUS_ID,
    ObservationKey,
)

from .process import (
    FINISHED,
    HEADER,
    LARGEST_ANSWER_BYTES,
    LARGEST_PACKET_BYTES,
    METADATA_CHANNEL,
    READY,
    ChannelRecord,
    MetadataRecord,
    Start,
)
from .reader import (
    CHANNELS,
    AnyMessage,
    CommandMessage,
    FaultMessage,
    Image,
    ObservationMessage,
    Outcome,
    PolicyRecord,
    PromptMessage,
    RunRecord,
    StateMessage,
    StepMessage,
    TickMessage,
    TokensMessage,
    Values,
    field_names,
    json_schema,
    numbers,
    to_metadata,
)

_LINK_BYTES = 1 << 22
"""Asked of the socket; Linux gives at most net.core.wmem_max, 208 KiB unless set: seconds of ticks without images."""
_START_S = 30.0
_PROMPT_S = 10.0
_CLOSE_S = 10.0
_STEPS_A_PACKET = 50


class Recorder:
    """The sending end; one thread at a time."""

    def __init__(self, path: Path, run: RunRecord, policy: PolicyRecord | None = None) -> None:
        """Start the writing process and wait until it has opened the file; a file that is there is replaced.

        Start it before the thread takes a real-time priority, which the process would inherit.

        Raises:
            RecordingError: the file cannot be opened, or the process does not start.
        """
        self.path = path
        self.degraded: str | None = None
        """Why the recording lacks something; none as long as it does not."""
        self.dropped = 0
        """Messages that were not handed over."""
        self._offset_ns = run.wall_clock_offset_ns
        self._encode = msgspec.json.Encoder().encode
        self._channels = {kind: number for number, kind in enumerate(CHANNELS.values())}
        self._sequences = [0] * len(CHANNELS)
        self._packet: list[bytes] = []
        self._failed = self._closed = False
        channels = [
            ChannelRecord(topic, msgspec.Raw(self._encode(json_schema(kind, run.interface))))
            for topic, kind in CHANNELS.items()
        ]
        records = {"run": run} | ({"policy": policy} if policy is not None else {})
        metadata = [MetadataRecord(name, to_metadata(record)) for name, record in records.items()]
        try:
            self._link, self._process = _start_process()
        except OSError as error:
            raise RecordingError(
                f"cannot record {path}: the recorder process did not start: {error}"
            ) from error
        self._hand_over(Start(str(path.absolute()), channels, metadata))
        self._link.setblocking(False)

    def _hand_over(self, start: Start) -> None:
        self._link.settimeout(_START_S)
        try:
            self._link.send(self._encode(start))
            answer = self._link.recv(LARGEST_PACKET_BYTES)
        except OSError as error:
            answer = (
                f"cannot record {self.path}: the recorder process did not start: {error}".encode()
            )
        if answer != READY:
            self._link.close()
            self._process.kill()
            self._process.wait()
            raise RecordingError(
                answer.decode() or f"cannot record {self.path}: the recorder process did not start"
            )

    # -- While it runs -----------------------------------------------------------------------------------------------

    def add(self, at_ns: int, *messages: AnyMessage) -> None:
        """Put messages into the next packet, and none of them when an interrupt comes before the last.

        Their instant is on the clock that `RunRecord.of` was given.
        """
        encoded: list[bytes] = []
        for message in messages:
            channel = self._channels[type(message)]
            self._sequences[channel] += 1
            try:
                data = self._encode(message)
            except (TypeError, ValueError, OverflowError) as error:
                self._drop(1, f"a message cannot be encoded: {error}")
                continue
            sequence = (
                self._sequences[channel] & 0xFFFF_FFFF
            )  # MCAP has 32 bits: 49 days of inner steps
            encoded += HEADER.pack(channel, sequence, at_ns + self._offset_ns, len(data)), data
        self._packet += encoded

    def flush(self, wait_s: float = 0.0) -> None:
        """Send the packet, all of it or nothing; waits for room in the link no longer than `wait_s`."""
        packet, self._packet = self._packet, []
        if not packet:
            return
        self._listen()
        if self._failed:
            self.dropped += len(packet) // 2
            return
        if wait_s:
            select.select((), (self._link,), (), wait_s)
        try:
            self._link.send(b"".join(packet))
        except BlockingIOError:
            self._drop(len(packet) // 2, "the recorder process fell behind")
        except OSError as error:
            self._failed = isinstance(error, ConnectionError)
            reason = (
                "the recorder process ended"
                if self._failed
                else f"a packet cannot be sent: {error.strerror}"
            )
            self._drop(len(packet) // 2, reason)

    def fault(self, at_ns: int, component: str, sentence: str) -> None:
        """Record that something went wrong, at once."""
        self.add(at_ns, FaultMessage(component=component, sentence=sentence))
        self.flush()

    def _drop(self, messages: int, reason: str) -> None:
        self.dropped += messages
        self.degraded = self.degraded or reason

    def _listen(self) -> bytes:
        """Take what the process says of itself; its last word when the link has ended."""
        try:
            answer = self._link.recv(LARGEST_ANSWER_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            answer = b""
        if answer != FINISHED:
            self._failed = True
            self.degraded = self.degraded or answer.decode() or "the recorder process ended"
        return answer

    # -- The end -----------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether everything is in the file, and the file's end; false until `close`."""
        return self._closed and self.degraded is None

    def close(self, result: str | None = None) -> None:
        """Wait until the file is finished, but not for ever; a second call does nothing.

        Args:
            result: how the run ended, in a sentence; without it the file says that nobody closed it.
        """
        if self._closed:
            return
        self._closed = True
        self.flush()
        self._link.settimeout(_CLOSE_S)
        answer = b""
        with suppress(OSError):
            if result is not None and not self._failed:
                self._link.send(self._outcome(result))
            self._link.shutdown(socket.SHUT_WR)
            answer = self._link.recv(LARGEST_ANSWER_BYTES)
        self._link.close()
        if answer != FINISHED:
            self.degraded = (
                self.degraded or answer.decode() or "the recorder process did not finish the file"
            )
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)

    def _outcome(self, result: str) -> bytes:
        complete, degraded = self.degraded is None, self.degraded or ""
        outcome = Outcome(complete=complete, dropped=self.dropped, degraded=degraded, result=result)
        data = self._encode(MetadataRecord("outcome", to_metadata(outcome)))
        return HEADER.pack(METADATA_CHANNEL, 0, 0, len(data)) + data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _start_process() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ExitStack() as undo:
        undo.callback(ours.close)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LINK_BYTES)
        command = [
            sys.executable,
            "-P",
            "-m",
            "gatort.runtime.recording.process",
            str(theirs.fileno()),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # The terminal's Ctrl-C is not for it.
        )
        undo.pop_all()
    return ours, process


# -- What is recorded ----------------------------------------------------------------------------------------------


class TickRecorder:
    """Records a control loop; `ControlLoop.run` calls it after each tick, in the slack."""

    def __init__(self, recorder: Recorder, loop: ControlLoop) -> None:
        self._recorder, self._loop = recorder, loop
        self._keys = loop.robot.interface.observations
        self._names = field_names(self._keys)
        self._states: tuple[State, State] | None = None

    def prompt(
        self, at_ns: int, frames: Iterable[tuple[Sequence[NDArray[Any]], ArrayLike]]
    ) -> None:
        """Record the frames that `ControlLoop.prime` was given; before the robot is armed, since it waits for room."""
        # A robot may offer more keys than the policy and its prompt have.
        keys = self._loop.decoder.spec.observations
        names = field_names(keys)
        for values, action in frames:
            named = _named(names, keys, values)
            message = PromptMessage(values=named, action=numbers(np.asarray(action)))
            self._recorder.add(at_ns, message)
            # Once something is lost, the frames that follow are worth no more waiting.
            self._recorder.flush(wait_s=_PROMPT_S if self._recorder.degraded is None else 0.0)

    def __call__(self, tick: TickRecord) -> None:
        """Record a tick, completed or refused: all its messages, or none when an interrupt comes in between."""
        number, messages = tick.wake.tick, list[AnyMessage]()
        if tick.observation is not None:
            messages.append(self._observation(number, tick.observation))
        if tick.decision is not None:
            completed = tick.command is not None
            messages.append(self._tokens(number, tick.decision, completed=completed))
        if tick.observation is not None:
            messages.append(_command(number, tick, tick.observation))
        states = self._loop.guard.state, self._loop.robot.state
        if states != self._states:
            self._states = states
            messages.append(StateMessage(guard=states[0], robot=states[1]))
        if tick.refusal is not None:
            messages.append(FaultMessage(component="loop", sentence=tick.refusal))
        self._recorder.add(tick.wake.woke_ns, *messages, self._tick(tick))
        self._recorder.flush()

    def _observation(self, number: int, observation: Observation) -> ObservationMessage:
        values = _named(self._names, self._keys, observation.values)
        return ObservationMessage(
            tick=number, sequence=observation.sequence, stamp_ns=observation.stamp_ns, values=values
        )

    def _tokens(self, number: int, decision: Decision, *, completed: bool) -> TokensMessage:
        raw = decision.logits.argmax(axis=1) + FIRST_CONTINUOUS_ID  # (A,)
        return TokensMessage(
            tick=number,
            frame=decision.frame,
            slot=decision.frame % self._loop.decoder.spec.window_frames,
            completed=completed,
            raw=raw.tolist(),
            sampled=decision.tokens.tolist(),
        )

    def _tick(self, tick: TickRecord) -> TickMessage:
        telemetry, wake, reason = self._loop.telemetry, tick.wake, self._loop.guard.reason
        stamps_ns = telemetry.stamps[(telemetry.ticks - 1) % len(telemetry.stamps)]
        return TickMessage(
            tick=wake.tick,
            deadline_ns=wake.deadline_ns,
            woke_ns=wake.woke_ns,
            lateness_ns=wake.lateness_ns,
            skipped=wake.skipped,
            stamps_ns=stamps_ns[stamps_ns > 0].tolist(),
            reason=reason if reason is not None and tick.refusal is not None else "",
            refusal=tick.refusal or "",
        )


def _named(
    names: Sequence[str], keys: Sequence[ObservationKey], values: Sequence[NDArray[Any]]
) -> Values:
    # Not strict: an observation that was refused for the number of its arrays is recorded as far as it goes.
    return {name: _value(key, array) for name, key, array in zip(names, keys, values, strict=False)}


def _value(key: ObservationKey, array: NDArray[Any]) -> list[float] | Image:
    return Image(list(array.shape), array.tobytes()) if key.encoding == "image" else numbers(array)


def _command(number: int, tick: TickRecord, observation: Observation) -> CommandMessage:
    applied, asked = (
        numbers(observation.applied),
        msgspec.UNSET if tick.decision is None else numbers(tick.decision.action),
    )
    if tick.command is None:
        return CommandMessage(tick=number, applied=applied, asked=asked)
    return CommandMessage(
        tick=number,
        applied=applied,
        asked=asked,
        limited=numbers(tick.command.values),
        sequence=tick.command.sequence,
        observation_sequence=tick.command.observation_sequence,
        apply_at_ns=tick.command.apply_at_ns,
        valid_for_ns=tick.command.valid_for_ns,
    )


class StepRecorder:
    """Records a robot's inner loop: give it to `Driver.on_step`, and close its recorder at the end."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._steps = 0
        self._state: State | None = None

    def __call__(self, at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        """Record a step; a packet goes out every 50 of them, and at once when the state changes."""
        self._recorder.add(at_ns, StepMessage(state=state, values=values.tolist()))
        self._steps += 1
        if self._steps % _STEPS_A_PACKET == 0 or state is not self._state:
            self._state = state
            self._recorder.flush()
