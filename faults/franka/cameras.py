"""Two cameras that see a Franka arm on franka-sim, and blocks that franka-sim does not have.

A process of its own reads the arm's newest joints from the file of its cycles. It draws the
pictures with MuJoCo and serves them as MJPEG over HTTP on 127.0.0.1, as late as a real camera's. So
neither the arm's thread nor the loop's draws. Call `choose_gl` before this file is first imported.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from gatort.faults.mjpeg_server import STREAM_ANSWER, stream_part
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import MissingDependency, RobotError
from gatort.runtime.robots.cameras.opencv import encode
from gatort.sim.graphics import INSTALL_HINT, choose_gl
from gatort.sim.lens import Lens
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.simulators.simulator import ArmState, Pose
from gatort.sim.tasks.stacking.task import Stacking

from .cycles import newest_cycle

CAMERAS: Final = ("front", "wrist")
"""Cameras of the scene, whose pictures are the policy's keys."""
PIXELS: Final = 64
"""Height and width of a picture."""
PERIOD_NS: Final = 33_333_333
"""Time between two pictures of a camera: 30 Hz."""
LENS: Final = Lens(noise=1.0)
"""Noise as of a sensor. Without it, two pictures of an arm at rest would be equal byte for byte,
and the camera would count as frozen."""
START_S: Final = 30.0
"""Longest wait for the process, which loads MuJoCo and a GL library."""
CLOSE_S: Final = 5.0
SEND_S: Final = 0.1
"""Longest wait for a client, which is then dropped."""


class SeenBlock(msgspec.Struct, frozen=True):
    """A block and its place."""

    name: str
    is_held: bool
    """True if the pose is in the tool's frame: the block then follows the arm's newest joints."""
    position: tuple[float, float, float]
    """Centre in W or in the tool's frame, in m."""
    rotation: tuple[float, ...]
    """Rotation matrix in the same frame, row by row, (9,)."""

    @classmethod
    def of(cls, name: str, pose: Pose, is_held: bool) -> SeenBlock:
        """Make one from a pose."""
        x, y, z = pose.position.tolist()
        return cls(name, is_held, (x, y, z), tuple(pose.rotation.ravel().tolist()))

    def pose(self, arm: ArmState) -> Pose:
        """Return the pose in W."""
        position = np.array(self.position)  # (3,)
        rotation = np.array(self.rotation).reshape(3, 3)
        if not self.is_held:
            return Pose(position, rotation)
        turn = arm.tool_rotation
        return Pose(arm.tool_position + turn @ position, turn @ rotation)


class SeenHand(msgspec.Struct, frozen=True):
    """Everything in the pictures but the arm's joints."""

    width_m: float
    """Opening of the fingers."""
    blocks: tuple[SeenBlock, ...]


class SceneView:
    """Pictures of the stacking scene, drawn in this process."""

    def __init__(self, seed: int) -> None:
        """Open a GL context. The blocks have the sizes of a seed's layout."""
        task = Stacking()
        self._simulator = MujocoSimulator(task.scene)
        self._simulator.place_cubes(task.layout(seed).cubes)
        for name in CAMERAS:
            self._simulator.add_camera(name, PIXELS, PIXELS)

    def draw(self, joints_rad: NDArray[np.float64], hand: SeenHand) -> dict[str, NDArray[np.uint8]]:
        """Draw each camera's picture (height, width, 3) RGB of arm and blocks."""
        simulator = self._simulator
        simulator.show(joints_rad, hand.width_m, {})
        arm = simulator.arm()
        poses = {block.name: block.pose(arm) for block in hand.blocks}
        simulator.show(joints_rad, hand.width_m, poses)
        return {name: simulator.draw(name) for name in CAMERAS}

    def close(self) -> None:
        """Free the GL context."""
        self._simulator.close()


class PictureServer:
    """Streams of pictures at http://127.0.0.1:PORT/NAME, without a thread or a pace of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[tuple[str, socket.socket]] = []

    def accept(self) -> None:
        """Answer those who ask for a stream now."""
        while select.select([self._listener], [], [], 0)[0]:
            client, _ = self._listener.accept()
            client.settimeout(SEND_S)
            try:
                path = client.recv(4_096).split(b" ")[1]
                client.sendall(STREAM_ANSWER)
            except (OSError, IndexError):
                client.close()
            else:
                self._clients.append((path.decode(errors="replace").strip("/"), client))

    def send(self, pictures: Mapping[str, NDArray[np.uint8]], taken_ns: int) -> None:
        """Send each RGB picture to the clients of its camera.

        Args:
            pictures: pictures (height, width, 3) by the camera's name.
            taken_ns: instant of the joints that they show.
        """
        for name, picture in pictures.items():
            jpeg = encode(picture[:, :, ::-1], ".jpg")  # OpenCV's order is BGR.
            part = stream_part(jpeg, len(jpeg), taken_ns)
            self._clients = [
                each for each in self._clients if each[0] != name or _is_sent(each[1], part)
            ]

    def close(self) -> None:
        """Hang up."""
        self._listener.close()
        for _, client in self._clients:
            client.close()


def _is_sent(client: socket.socket, part: bytes) -> bool:
    try:
        client.sendall(part)
    except OSError:
        client.close()
        return False
    return True


class SceneCameras:
    """The process that draws and serves, as the arm's process sees it. No call waits."""

    def __init__(self, cycles: Path, seed: int, latency_ns: int) -> None:
        """Start the process. It sends no picture before the first `show`.

        Args:
            cycles: file of the arm's cycles, which may be empty now.
            seed: seed of the layout, for the sizes of the blocks.
            latency_ns: time from a reading of the joints to the sending of its pictures.

        Raises:
            MissingDependency: no GL library draws.
            RobotError: the process does not start.
        """
        if choose_gl() is None:
            raise MissingDependency(f"cameras on franka-sim need a GL library: {INSTALL_HINT}")
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", __name__),
                    *(str(theirs.fileno()), str(cycles), str(seed), str(latency_ns)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A software renderer would take every core from the arm.
                env={**os.environ, "LP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._link.settimeout(START_S)
        answer = b""
        with suppress(OSError):
            answer = self._link.recv(64)
        if not answer:
            self.close()
            raise RobotError("expected a process that draws the cameras' pictures, found it ended")
        self._port = int(answer)
        self._link.setblocking(False)

    def url(self, name: str) -> str:
        """Return the address of a camera's stream."""
        return f"http://127.0.0.1:{self._port}/{name}"

    def show(self, hand: SeenHand) -> None:
        """Tell where hand and blocks are from now on."""
        # If the process ended or hangs, its pictures end, and the cameras say so.
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._link.send(msgspec.msgpack.encode(hand))

    def close(self) -> None:
        """End the process. A second call does nothing."""
        self._link.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Pictures(NamedTuple):
    taken_ns: int
    pictures: dict[str, NDArray[np.uint8]]


class _Scene:
    """The loop of the process."""

    def __init__(
        self, link: socket.socket, cycles: int, view: SceneView, server: PictureServer
    ) -> None:
        self._link = link
        self._cycles = cycles
        self._view = view
        self._server = server
        self._random = np.random.default_rng(0)
        self._hand: SeenHand | None = None

    def serve(self, latency_ns: int) -> None:
        """Draw and send until the other end of the link is closed."""
        clock = MonotonicClock()
        waiting: deque[_Pictures] = deque()
        due_ns = clock.now_ns()
        while self._listen():
            if waiting and clock.now_ns() >= waiting[0].taken_ns + latency_ns:
                sent = waiting.popleft()
                self._server.send(sent.pictures, sent.taken_ns)
            if clock.now_ns() >= due_ns:
                waiting.extend(self._take())
                due_ns = max(due_ns + PERIOD_NS, clock.now_ns())
            next_ns = waiting[0].taken_ns + latency_ns if waiting else due_ns
            clock.sleep_until_ns(min(due_ns, next_ns))

    def _listen(self) -> bool:
        """Take the newest hand and new clients. Return false at the end."""
        self._server.accept()
        packet = None
        with suppress(BlockingIOError):
            while packet := self._link.recv(4_096):
                self._hand = msgspec.msgpack.decode(packet, type=SeenHand)
        return packet != b""

    def _take(self) -> list[_Pictures]:
        """Return the pictures of now, if hand and joints are known."""
        cycle = newest_cycle(self._cycles)
        if self._hand is None or cycle is None:
            return []
        drawn = self._view.draw(cycle["position"].astype(np.float64), self._hand)
        exposed = {name: LENS.expose(each, self._random) for name, each in drawn.items()}
        return [_Pictures(int(cycle["read_ns"]), exposed)]


def main() -> None:
    """Draw and serve until the other end of the link is closed."""
    with (
        socket.socket(fileno=int(sys.argv[1])) as link,
        Path(sys.argv[2]).open("rb") as cycles,
        closing(SceneView(int(sys.argv[3]))) as view,
        closing(PictureServer()) as server,
    ):
        link.send(str(server.port).encode())
        link.setblocking(False)
        _Scene(link, cycles.fileno(), view, server).serve(int(sys.argv[4]))


if __name__ == "__main__":
    main()
