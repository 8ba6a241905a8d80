"""A network camera on this machine that misbehaves on request: MJPEG over HTTP on 127.0.0.1."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Final, Literal, Self, get_args

from gatort.runtime.clock import Clock

StreamFault = Literal[
    "none", "repeat", "late", "stall", "tear", "wrong_size", "too_large", "die"
]  # fmt: skip
STREAM_FAULTS: Final[tuple[StreamFault, ...]] = get_args(StreamFault)[1:]
DELAY_NS: Final = 150_000_000
"""Age of a late frame."""
HUGE_BYTES: Final = 1 << 40
"""Length that a frame announces when it is too large."""
_BOUNDARY: Final = "frame"
STREAM_ANSWER: Final = (
    f"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary={_BOUNDARY}\r\n\r\n"
).encode()
"""Answer to the request for a stream."""
_POLL_S: Final = 0.01


class MjpegServer:
    """Serves numbered JPEGs to one client at a time, from a thread."""

    def __init__(
        self, frames: Sequence[bytes], other_size: bytes, clock: Clock, *, hz: float = 30.0
    ) -> None:
        """Listen on a free port.

        Args:
            frames: JPEGs of one size, served in turn. Each differs from the one before.
            other_size: JPEG of another size.
            clock: clock of the frames and of `began_ns`.
            hz: frame rate.
        """
        self.began_ns = 0
        """Instant at which the first faulty frame was due; 0 without a fault."""
        self.clients = 0
        """Number of connections that got a stream."""
        self._frames = frames
        self._newest = frames[0]
        self._other_size = other_size
        self._clock = clock
        self._period_ns = round(1e9 / hz)
        self._fault: StreamFault = "none"
        self._closed = Event()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = Thread(target=self._run, name="MJPEG server", daemon=True)

    @property
    def url(self) -> str:
        """Address of the stream."""
        return f"http://127.0.0.1:{self.port}/stream"

    @property
    def fault(self) -> StreamFault:
        """Fault of the frames from now on."""
        return self._fault

    @fault.setter
    def fault(self, fault: StreamFault) -> None:
        self.began_ns = 0
        self._fault = fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()
        self._listener.close()

    # -- The thread ----------------------------------------------------------------------------

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    def _run(self) -> None:
        while not self._closed.is_set():
            if self._fault == "die":
                self._stay_dead()
            elif select.select([self._listener], [], [], _POLL_S)[0]:
                client, _ = self._listener.accept()
                with client:
                    self._serve(client)

    def _stay_dead(self) -> None:
        """Refuse connections until the fault is taken back."""
        self._listener.close()
        while self._fault == "die" and not self._closed.wait(_POLL_S):
            pass
        self._listener = self._listen(self.port)

    def _serve(self, client: socket.socket) -> None:
        """Send frames until the client leaves, the server dies or the end."""
        client.settimeout(1.0)
        try:
            client.recv(4_096)
            client.sendall(STREAM_ANSWER)
            self.clients += 1
            began_ns = self._clock.now_ns()
            for number in count():
                self._clock.sleep_until_ns(began_ns + number * self._period_ns)
                if self._closed.is_set() or not self._send(client, number):
                    return
        except OSError:
            return  # The client has left.

    def _send(self, client: socket.socket, number: int) -> bool:
        """Send one frame, good or faulty. Return false to hang up."""
        fault = self._fault
        if fault != "none" and not self.began_ns:
            self.began_ns = self._clock.now_ns()
        if fault == "die":
            return False
        if fault == "stall":
            return not _left(client)
        if fault != "repeat":
            self._newest = self._frames[number % len(self._frames)]
        body = self._newest
        length = len(body)
        taken_ns = self._clock.now_ns()
        if fault == "late":
            taken_ns -= DELAY_NS
        elif fault == "wrong_size":
            body = self._other_size
            length = len(body)
        elif fault == "tear":
            body = body[: len(body) // 2]
            length = len(body)
        elif fault == "too_large":
            length = HUGE_BYTES
        client.sendall(stream_part(body, length, taken_ns))
        return True


def _left(client: socket.socket) -> bool:
    """Return whether the client has hung up. It sends nothing after its request."""
    return bool(select.select([client], [], [], 0)[0])


def stream_part(body: bytes, length: int, taken_ns: int) -> bytes:
    """Return the bytes of a stream that carry one JPEG.

    Args:
        body: the JPEG.
        length: length that the header announces.
        taken_ns: instant that the header gives.
    """
    header = (
        f"\r\n--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n"
        f"X-Timestamp: {taken_ns // 10**9}.{taken_ns % 10**9:09}\r\n\r\n"
    )
    return header.encode() + body
