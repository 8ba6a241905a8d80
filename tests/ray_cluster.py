"""A Ray cluster of two machines that are processes here, for tests. Its ports are on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

MACHINES = """
import sys
from ray.cluster_utils import Cluster

port, second_path, first_cpus = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
machine = dict(
    node_ip_address="127.0.0.1", num_cpus=1, include_dashboard=False, min_worker_port=0,
    max_worker_port=0, object_store_memory=100_000_000,
)
first = dict(machine, num_cpus=first_cpus, ray_client_server_port=port)
cluster = Cluster(True, head_node_args=first)
second = cluster.add_node(env_vars={"PYTHONPATH": second_path}, **machine)
print(second.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray listens on every interface, as a cluster of several computers must.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
LONGEST_S = 180


@dataclass(frozen=True)
class RayCluster:
    """Two machines. The second one has a processor."""

    address: str
    raylet: int
    """Process of Ray on the second machine, which starts its workers."""

    def lose_the_second_machine(self) -> None:
        """Kill Ray there and its workers, which would otherwise finish their seeds."""
        children = Path(f"/proc/{self.raylet}/task/{self.raylet}/children")
        workers = [int(each) for each in children.read_text().split()]
        for each in (self.raylet, *workers):
            os.kill(each, signal.SIGKILL)


@contextmanager
def two_machines(second_path: Path | None = None, first_cpus: int = 1) -> Iterator[RayCluster]:
    """Run a cluster until the end of the context.

    Args:
        second_path: folder of the second machine's gatort, this checkout by default.
        first_cpus: number of processors that the first machine grants.
    """
    # Ray makes sockets in the folder, and their names must be short.
    with (
        TemporaryDirectory(prefix="ray-", dir="/tmp") as folder,
        _running(folder, second_path, first_cpus) as cluster,
    ):
        yield cluster


@contextmanager
def _running(folder: str, second_path: Path | None, first_cpus: int) -> Iterator[RayCluster]:
    path = second_path or os.environ.get("PYTHONPATH", "")
    port = _free_port()
    arguments = map(str, (port, path, first_cpus))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", MACHINES, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT, "RAY_TMPDIR": folder},
        start_new_session=True,  # Ray kills its whole process group at the end.
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield RayCluster(f"ray://127.0.0.1:{port}", int(process.stdout.readline()))
    finally:
        process.stdin.close()
        try:
            process.wait(LONGEST_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()


def gatort(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own: Ray's client leaves threads behind."""
    command = [sys.executable, "-P", "-m", "gatort", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command. Return its status and its output."""
    out, errors = process.communicate(timeout=LONGEST_S)
    return process.returncode, out + errors


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
