"""A stand-in for a Franka control box: it speaks protocol 10 over real sockets.

It has no physics: its joints turn at a constant speed whatever the torques are. Each of its states
has the next number, however late this machine lets it be sent.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.robots.franka.fci import PORT, VERSION, Ask, Mode

MS = 1_000_000
SPEED_RAD_S = 0.05
START_RAD = (0.0, 0.0, 0.0, -2.0, 0.0, 2.0, 0.0)
HEADER = struct.Struct("<III")
STATE = struct.Struct("<Q96f13f13f4f56f26f25f3f34f14f36f2B41B41BBf")
COMMAND = struct.Struct("<Q38d2B7dB")


def urdf() -> str:
    """Return an arm with the FR3's joints, and bodies that are easy to check."""
    half = "1.5707963267948966"
    places = (
        "0 0 0.333", "0 0 0", "0 -0.316 0", "0.0825 0 0", "-0.0825 0.384 0", "0 0 0", "0.088 0 0",
    )  # fmt: skip
    turns = ("0", f"-{half}", half, half, f"-{half}", half, half)
    parts = ['<link name="link0"/>']
    for number, (place, turn) in enumerate(zip(places, turns, strict=True), 1):
        parts.append(
            f'<link name="link{number}"><inertial><origin xyz="0.01 0.02 -0.03" rpy="0 0 0"/>'
            f'<mass value="{3 - 0.3 * number}"/><inertia ixx="0.02" ixy="0.001" ixz="-0.002" '
            f'iyy="0.03" iyz="0.003" izz="0.025"/></inertial></link>'
            f'<joint name="joint{number}" type="revolute"><axis xyz="0 0 1"/>'
            f'<origin xyz="{place}" rpy="{turn} 0 0"/>'
            f'<parent link="link{number - 1}"/><child link="link{number}"/></joint>'
        )
    parts.append(
        '<joint name="joint8" type="fixed"><origin xyz="0 0 0.107"/>'
        '<parent link="link7"/><child link="link8"/></joint><link name="link8"/>'
    )
    return f'<robot name="arm">{"".join(parts)}</robot>'


class Told(NamedTuple):
    """Torques (7,) that the box was told, and whether the motion ends with them."""

    torque_nm: tuple[float, ...]
    is_finished: bool


class ControlBox:
    """The box, on a thread of its own."""

    def __init__(self, address: str) -> None:
        self.version = VERSION
        self.model = urdf()
        self.mode = Mode.IDLE
        self.reflex: int | None = None
        """Place of the error that ended the motion."""
        self.refuses: dict[Ask, int] = {}
        """Statuses of requests that it refuses."""
        self.loses_every = 0
        """Every nth state is lost on the way."""
        self.hears_every = 1
        """Number of answers for each one that reaches the arm."""
        self.success_rate = 1.0
        """Share of the control commands that it says it heard."""
        self.is_silent = False
        """It sends no states."""
        self.is_deaf = False
        """It answers no request."""
        self.asked: list[tuple[Ask, bytes]] = []
        self.told: list[Told] = []
        self._listener = socket.create_server((address, PORT))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 0))
        self._motion: int | None = None
        self._heard = 0
        self._is_finished = False
        self._ends = False
        self._thread = Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        self._listener.close()
        self._udp.close()

    def end_motion(self, reflex: int) -> None:
        """Stop the arm by a reflex."""
        self.reflex, self.mode = reflex, Mode.REFLEX

    def _run(self) -> None:
        while not self._ends:
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                with client, suppress(ConnectionError):  # Some clients just go.
                    self._serve(client)
                self._motion = None

    def _serve(self, client: socket.socket) -> None:
        clock = MonotonicClock()
        received, self._number, self._peer = b"", 0, None
        due_ns = clock.now_ns()
        while not self._ends:
            wait_s = max(due_ns - clock.now_ns(), 0) * 1e-9
            for ready in select.select([client, self._udp], [], [], wait_s)[0]:
                if ready is self._udp:
                    self._listen()
                    continue
                chunk = client.recv(65_536)
                if not chunk:
                    return
                received += chunk
                while len(received) >= 12 and len(received) >= HEADER.unpack_from(received)[2]:
                    command, request, size = HEADER.unpack_from(received)
                    self._obey(client, Ask(command), request, received[12:size])
                    received = received[size:]
            if clock.now_ns() >= due_ns:
                due_ns = max(due_ns + MS, clock.now_ns())
                self._tell(client)

    def _obey(self, client: socket.socket, ask: Ask, request: int, payload: bytes) -> None:
        self.asked.append((ask, payload))
        if self.is_deaf:
            return
        status = self.refuses.get(ask, 0)
        body = bytes([status])
        match ask:
            case Ask.CONNECT:
                version, port = struct.unpack("<HH", payload)
                self._peer = (client.getpeername()[0], port)
                body = struct.pack("<BH", int(version != self.version), self.version)
            case Ask.MODEL:
                body += self.model.encode()
            case Ask.MOVE if not status:
                self._motion, self.mode, self.reflex = request, Mode.MOVE, None
                self._is_finished = False
                body = bytes([1])
            case Ask.RECOVER if not status:
                self.mode, self.reflex = Mode.IDLE, None
        client.sendall(HEADER.pack(ask, request, 12 + len(body)) + body)

    def _listen(self) -> None:
        values = COMMAND.unpack(self._udp.recv(2_000))
        self._heard += 1
        if self._motion is not None and self._heard % self.hears_every == 0:
            self.told.append(Told(values[41:48], bool(values[48])))
            self._is_finished = bool(values[48])

    def _tell(self, client: socket.socket) -> None:
        if self._motion is not None and (self.mode is not Mode.MOVE or self._is_finished):
            status = 8 if self.mode is Mode.REFLEX else 0
            client.sendall(HEADER.pack(Ask.MOVE, self._motion, 13) + bytes([status]))
            self._motion = None
            self.mode = Mode.IDLE if self.mode is Mode.MOVE else self.mode
        self._number += 1
        is_lost = self.loses_every and self._number % self.loses_every == 0
        if self._peer is None or self.is_silent or is_lost:
            return
        position = [start + SPEED_RAD_S * self._number * 1e-3 for start in START_RAD]
        torque_nm = self.told[-1].torque_nm if self.told and self._motion is not None else [0.0] * 7
        joints = (
            [0.0] * 7
            + [*torque_nm]
            + [0.0] * 7
            + position
            + [0.0] * 7
            + [SPEED_RAD_S] * 7
            + [0.0] * 14
        )
        reflex = [int(place == self.reflex) for place in range(41)]
        state = STATE.pack(
            self._number, *[0.0] * 126, *joints, *[0.0] * 138,
            5 if self._motion is not None else 0, 2 if self._motion is not None else 3,
            *[0] * 41, *reflex, self.mode, self.success_rate,
        )  # fmt: skip
        self._udp.sendto(state, self._peer)
