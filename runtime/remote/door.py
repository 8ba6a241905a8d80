"""The arm's side of the door: starts the process that talks to controllers, and watches it.

A door that ends, falls silent or sends nonsense costs the session, so the arm fades and latches.
The door is then started again, later each time. That arms nobody: a controller must connect and
consent anew.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError, WireError
from gatort.runtime.linked_process import start_linked

from .door_link import DoorLink, DoorSettings, Kind, Packet
from .transport import Arrival, Connection, RefusalCounts

START_S: Final = 20.0
"""Longest wait for a door's first packet. Python and libzmq start in less than 1 s."""
CLOSE_S: Final = 1.0
"""Longest wait for the end of the door. It is then killed."""
SILENT_NS: Final = 2_000_000_000
"""Age of the last packet at which a door is killed. It sends ten a second."""
FIRST_PAUSE_NS: Final = 250_000_000
"""Pause before a door is started again. The arm has faded by then."""
LONGEST_PAUSE_NS: Final = 8_000_000_000
"""Longest pause. Each door that ends early doubles the pause."""
STEADY_NS: Final = 10_000_000_000
"""Age at which a door no longer counts as one that ended early."""
MOST_CONNECTIONS: Final = 65_536
"""Most connections at once that a door may name. Linux gives a process fewer descriptors."""
LARGEST_COUNTS_BYTES: Final = 256
"""Longest packet of counts."""
PACKETS_PER_TURN: Final = 32
"""Most packets that one turn reads."""
_TAIL_BYTES: Final = 4_096
_LONGEST_REASON: Final = 200


class DoorError(Exception):
    """Clause about a door that must be replaced."""


class Door:
    """Controllers' connections, held by a process beside this one. Implements `RobotTransport`."""

    def __init__(
        self, settings: DoorSettings, clock: Clock, on_change: Callable[[str], None] | None = None
    ) -> None:
        """Start the door and wait until it listens.

        Args:
            settings: address, keys and scheduling of the door.
            clock: the monotonic clock.
            on_change: receives a sentence when a door ends and when the next one listens.

        Raises:
            ConfigError: the address cannot be bound, or the keys cannot be used.
        """
        self.refused = RefusalCounts()
        """See `RobotTransport.refused`. Counts of all doors together."""
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._before = RefusalCounts()
        self._connected: set[int] = set()
        self._ended: list[int] = []
        self._pause_ns = FIRST_PAUSE_NS
        self._next_start_ns = 0
        self._is_closed = False
        self._unexplained: str | None = None
        self._link: DoorLink | None = None
        link = self._start()
        self.endpoint = self._wait_until_listening(link)
        """See `RobotTransport.endpoint`."""
        # A door that is started again must listen where controllers expect it.
        self._settings = msgspec.structs.replace(settings, bind=self.endpoint)

    # -- The process ---------------------------------------------------------------------------

    def _start(self) -> DoorLink:
        settings = msgspec.json.encode(self._settings).decode()
        with ExitStack() as undo:
            errors = os.memfd_create("door")  # Output of a libzmq that aborts.
            undo.callback(os.close, errors)
            link, self._process = start_linked(
                "gatort.runtime.remote.door_process",
                str(os.getpid()),
                settings,
                stdout=errors,
                stderr=errors,
            )
            undo.pop_all()  # From here on `_lose` and `close` close them.
        self._errors = errors
        self._link = DoorLink(link, takes_parts=False)
        self._started_ns = self._heard_ns = self._clock.now_ns()
        self._has_spoken = self._is_listening = False
        return self._link

    def _wait_until_listening(self, link: DoorLink) -> str:
        packet = None
        with suppress(EOFError, WireError):
            if _poll([link.fileno()], round(START_S * 1e3)):
                packet = link.receive()
        if packet is not None and packet.kind is Kind.LISTENING:
            self._has_spoken = self._is_listening = True
            return packet.frame.decode()

        sentence = packet.frame.decode() if packet is not None else self._last_words()
        self.close()
        raise ConfigError(sentence or "the door's process did not start")

    def _last_words(self) -> str:
        """Return the last line that the door's process wrote, for a sentence."""
        size = os.fstat(self._errors).st_size
        tail = os.pread(self._errors, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
        lines = tail.decode(errors="replace").split("\n")
        return _printable(next((line for line in reversed(lines) if line.strip()), ""))

    def _lose(self, reason: str | None) -> None:
        """End a door that failed, and all its connections. Another one is started later.

        Args:
            reason: clause for the operator. `None` if the exit status of the process is the reason,
                which `_explain` tells once the kernel has taken the process apart.
        """
        if self._link is not None:
            self._link.close()
            self._link = None
        self._process.kill()
        self._ended += self._connected
        self._connected.clear()
        self._before = self.refused
        if self._clock.now_ns() - self._started_ns > STEADY_NS:
            self._pause_ns = FIRST_PAUSE_NS
        pause = self._put_off()
        if reason is None:
            self._unexplained = pause
        else:
            self._tell(f"the door's process {reason}; all controllers are cut off, {pause}")

    def _put_off(self) -> str:
        """Let the next door start after the pause, double the pause, and return a clause on it."""
        self._next_start_ns = self._clock.now_ns() + self._pause_ns
        clause = f"another door starts in {self._pause_ns * 1e-9:g} s"
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        return clause

    def _explain(self) -> None:
        """Tell why the process ended by itself, if that is known by now and was not told."""
        status = self._process.poll()
        if self._unexplained is None or status is None:
            return
        words = self._last_words()
        said = f" ({words})" if words else ""
        known = {each.value: each.name for each in signal.Signals}
        reason = (
            "ended" if status >= 0 else f"was ended by {known.get(-status, f'signal {-status}')}"
        )
        pause, self._unexplained = self._unexplained, None
        self._tell(f"the door's process {reason}{said}; all controllers are cut off, {pause}")

    def _tell(self, sentence: str) -> None:
        if self._on_change is not None:
            self._on_change(sentence)

    # -- RobotTransport ------------------------------------------------------------------------

    def wait(self, longest_ms: int) -> None:
        """See `RobotTransport.wait`."""
        _poll([self._link.fileno()] if self._link is not None else [], longest_ms)

    def receive(self) -> list[Arrival]:
        """See `RobotTransport.receive`. Start a door where none runs and its pause is over."""
        if self._link is None:
            self._explain()
            self._start_again()
        if self._link is None:
            return []
        arrivals: list[Arrival] = []
        try:
            self._link.flush()
            for _ in range(PACKETS_PER_TURN):
                packet = self._link.receive()
                if packet is None:
                    self._require_life()
                    break
                self._heard_ns = self._clock.now_ns()
                self._has_spoken = True
                self._take(packet, arrivals)
            return arrivals
        except DoorError as failure:
            self._lose(str(failure))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._lose(None)
        except (WireError, msgspec.MsgspecError, ValueError, RecursionError, OSError) as error:
            self._lose(f"broke the link: {_printable(str(error))}")
        return []  # Their connections have ended as well.

    def _start_again(self) -> None:
        if self._is_closed or self._clock.now_ns() < self._next_start_ns:
            return
        if self._process.poll() is None:  # It still has the address.
            return
        before = self._errors
        try:
            self._start()
            os.close(before)
        except OSError as error:  # No process, no descriptor or no memory is left.
            pause = self._put_off()
            self._tell(f"the door's process cannot be started: {error.strerror}, {pause}")

    def _require_life(self) -> None:
        longest_ns = SILENT_NS if self._has_spoken else round(START_S * 1e9)
        if self._clock.now_ns() - self._heard_ns > longest_ns:
            raise DoorError(f"was silent for {longest_ns * 1e-9:g} s")

    def _take(self, packet: Packet, arrivals: list[Arrival]) -> None:
        match packet.kind:
            case Kind.REQUEST:
                self._connected.add(packet.connection.descriptor)
                if len(self._connected) > MOST_CONNECTIONS:
                    raise DoorError(f"named more than {MOST_CONNECTIONS} connections")
                arrivals.append(Arrival(packet.connection, packet.frame))
            case Kind.ENDED:
                self._connected.discard(packet.connection.descriptor)
                self._ended.append(packet.connection.descriptor)
            case Kind.COUNTS:
                if len(packet.frame) > LARGEST_COUNTS_BYTES:
                    raise WireError(f"expected counts, found {len(packet.frame)} bytes")
                counts = msgspec.msgpack.decode(packet.frame, type=RefusalCounts)
                self.refused = self._before + counts
            case Kind.LISTENING:
                if packet.frame != self.endpoint.encode() or self._is_listening:
                    raise WireError(f"expected one door at {self.endpoint}, found another")
                self._is_listening = True
                self._tell(f"the door listens again at {self.endpoint}")
            case Kind.REFUSAL:
                raise DoorError(f"ended: {_printable(packet.frame.decode())}")
            case Kind.ANSWER:
                raise WireError("expected a packet for the arm's process, found an answer")

    def ended(self) -> list[int]:
        """See `RobotTransport.ended`. A door that ends, ends all its connections."""
        ended = self._ended
        self._ended = []
        return ended

    def send(self, connection: Connection, frame: bytes) -> None:
        """See `RobotTransport.send`."""
        if self._link is not None:
            with suppress(OSError):  # `receive` says why.
                self._link.send(Packet(Kind.ANSWER, frame, connection))

    def close(self) -> None:
        """See `RobotTransport.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._link is not None:
            self._link.close()
            self._link = None
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._errors)


def _printable(text: str) -> str:
    """Return a text for a terminal: a peer may have had a hand in it."""
    return "".join(each for each in text.strip() if each.isprintable())[:_LONGEST_REASON]


def _poll(descriptors: list[int], longest_ms: int) -> bool:
    """Wait for something to read, at most `longest_ms`. Return true if there is something."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(longest_ms))
