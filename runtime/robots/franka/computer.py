"""Examination of a Franka arm's computer: kernel, processor, network, and the arm's own states."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import numpy as np

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import RobotError
from gatort.runtime.finding import Finding
from gatort.runtime.printable import printable
from gatort.runtime.robots.franka.fci import PORT, VERSION, Fci
from gatort.runtime.robots.franka.robot import LEAST_ARRIVED, has_realtime_kernel

CPU: Final = Path("/sys/devices/system/cpu")
NETWORK: Final = Path("/sys/class/net")
CONNECTIONS: Final = Path("/proc/self/net/tcp")
_ESTABLISHED: Final = "01"
STATES: Final = 1_000
"""Number of the arm's states that are timed: one second."""
SILENT_S: Final = 1.0
LATE_MS: Final = 3.0
"""Gap between two states from which the link is a risk."""
_ADDRESS_OF_INTERFACE: Final = 0x8915  # SIOCGIFADDR


def examine_arm_computer(address: str) -> Iterator[Finding]:
    """Yield the findings on this machine as the computer of a Franka arm. The arm does not move.

    Args:
        address: IP address of the control box.
    """
    yield _kernel()
    yield _governor()
    yield _isolated_cores()
    try:
        fci = Fci(address)
    except RobotError as error:
        yield _unreached(address, error)
        return
    with closing(fci):
        yield Finding("control box", "ok", f"{address}, protocol {VERSION}")
        yield _network_card(fci.tcp.getsockname()[0])
        yield _states(fci.udp)


def _kernel() -> Finding:
    if has_realtime_kernel():
        return Finding("kernel", "ok", "PREEMPT_RT")
    mend = "boot a kernel with PREEMPT_RT: torques that come late make the arm stop itself"
    return Finding("kernel", "absent", "no PREEMPT_RT", mend)


def _governor() -> Finding:
    found = {_text(file) for file in CPU.glob("cpu*/cpufreq/scaling_governor")}
    if found <= {"performance"}:
        return Finding("CPU governor", "ok", ", ".join(found) or "not told: no frequency scaling")
    return Finding(
        "CPU governor", "absent", ", ".join(sorted(found)), "cpupower frequency-set -g performance"
    )


def _isolated_cores() -> Finding:
    if found := _text(CPU / "isolated"):
        return Finding("isolated cores", "ok", found)
    mend = "isolcpus= on the kernel's command line keeps other work from a core"
    return Finding("isolated cores", "absent", "none", mend)


def _unreached(address: str, error: RobotError) -> Finding:
    """Tell an arm that a program of this computer holds from one that does not answer."""
    if not _is_held(address):
        return Finding("control box", "broken", str(error), "see docs/franka.md")
    found = f"held: a program of this computer, such as `gatort robot`, is connected to {address}"
    mend = "not examined: end that program, and run `gatort doctor` before `gatort robot`"
    return Finding("control box", "absent", found, mend)


def _is_held(address: str) -> bool:
    """Check if this computer has a connection to the control interface at an address (proc(5))."""
    try:
        number = int.from_bytes(socket.inet_aton(socket.gethostbyname(address)), sys.byteorder)
    except OSError:
        return False
    box = f"{number:08X}:{PORT:04X}"
    connections = (line.split() for line in _text(CONNECTIONS).splitlines())
    return any(words[2:4] == [box, _ESTABLISHED] for words in connections)


def _network_card(address: str) -> Finding:
    """Examine the network card that has an address."""
    for _, name in socket.if_nameindex():
        if _address_of(name) == address:
            speed = _text(NETWORK / name / "speed")
            dropped = _text(NETWORK / name / "statistics" / "rx_dropped") or "0"
            found = f"{printable(name)}, {speed or '?'} Mbit/s, {dropped} packets dropped"
            if dropped == "0":
                return Finding("network card", "ok", found)
            mend = "connect the control box to a network card of its own"
            return Finding("network card", "absent", found, mend)
    return Finding("network card", "absent", f"none has {address}", "use a wired card")


def _address_of(name: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, suppress(OSError):
        wanted = struct.pack("256s", name.encode()[:15])
        answer = fcntl.ioctl(asked.fileno(), _ADDRESS_OF_INTERFACE, wanted)
        return socket.inet_ntoa(answer[20:24])
    return None


def _states(udp: socket.socket) -> Finding:
    """Time the states that the arm sends once a millisecond."""
    clock = MonotonicClock()
    udp.settimeout(SILENT_S)
    arrived_ns: list[int] = []
    numbers: list[int] = []
    try:
        while len(numbers) < STATES:
            datagram = udp.recv(2_048)
            arrived_ns.append(clock.now_ns())
            numbers.append(struct.unpack_from("<Q", datagram)[0])
    except (TimeoutError, struct.error):
        mend = "see if a firewall drops the arm's datagrams (UDP)"
        return Finding("arm's states", "broken", f"{len(numbers)} of {STATES} arrived", mend)
    share = (len(numbers) - 1) / max(numbers[-1] - numbers[0], 1)
    gaps_ms = np.diff(arrived_ns) * 1e-6
    p50, p99 = np.percentile(gaps_ms, [50, 99])
    found = f"{share:.1%} arrived; gaps p50 {p50:.2f}, p99 {p99:.2f}, max {gaps_ms.max():.2f} ms"
    if share >= LEAST_ARRIVED and p99 < LATE_MS:
        return Finding("arm's states", "ok", found)
    mend = "stop other work, and connect the control box to a network card of its own"
    return Finding("arm's states", "absent", found, mend)


def _text(file: Path) -> str:
    """Return the line of a file of the kernel; empty where there is none."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
