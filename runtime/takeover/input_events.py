"""Events of Linux's input devices (evdev), read without a package.

The layout is the kernel's interface to programs, include/uapi/linux/input.h, which never changes:
a `struct input_event` has 24 bytes on a 64-bit machine.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from gatort.runtime.robots.kinematics import Array

INPUT: Final = Path("/dev/input")
_EVENT: Final = struct.Struct("@llHHi")
_AXIS: Final = struct.Struct("@6i")
_ID: Final = struct.Struct("@4H")
_READ: Final = 2 << 30
_KEY_BYTES: Final = 96
"""Bytes of the set of all keys: KEY_MAX is 0x2ff."""
_NAME_BYTES: Final = 256
MOST_AXES: Final = 0x40


class EventKind(IntEnum):
    """Kind of an event."""

    SYNC = 0
    KEY = 1
    RELATIVE = 2
    ABSOLUTE = 3


DROPPED: Final = 3
"""Code of the SYNC event after which events were lost."""


class InputEvent(NamedTuple):
    """One change of a device."""

    kind: int
    code: int
    """Key or axis."""
    value: int
    """Position of an axis; 1 for a key that went down, 0 for one that went up."""


class AxisRange(NamedTuple):
    """Range of an axis."""

    low: int
    high: int

    def share(self, value: int) -> float:
        """Return a position as a share of the way from the middle to the end, −1 to 1."""
        half = (self.high - self.low) / 2
        return min(max((value - self.low) / half - 1.0, -1.0), 1.0) if half > 0 else 0.0


def bent(shares: Array, dead_zone: float) -> Array:
    """Return shares of the largest speed: none near the middle of an axis, and finer from there."""
    beyond = np.maximum(np.abs(shares) - dead_zone, 0.0) / (1 - dead_zone)
    curved: Array = np.copysign(beyond**2, shares)
    return curved


def parse(data: bytes) -> list[InputEvent]:
    """Return the events in bytes that were read from a device. The kernel gives whole events."""
    whole = len(data) // _EVENT.size * _EVENT.size
    return [InputEvent(*fields[2:]) for fields in _EVENT.iter_unpack(data[:whole])]


class InputDevice(NamedTuple):
    """An input device of this computer."""

    path: Path
    name: str
    vendor: int
    """Vendor's number in USB."""
    keys: frozenset[int]
    """Codes of its keys and buttons."""
    axes: dict[int, AxisRange]
    """Range of each absolute axis that the device reports, by code."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a device for reading, and close it at the end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def examined(path: Path) -> InputDevice:
    """Return name, vendor, keys and axes of a device.

    Raises:
        OSError: it cannot be opened, or is no input device.
    """
    with opened(path) as descriptor:
        name = _ask(descriptor, 0x06, _NAME_BYTES).partition(b"\0")[0].decode(errors="replace")
        keys = _ask(descriptor, 0x20 + EventKind.KEY, _KEY_BYTES)
        axes = _ask(descriptor, 0x20 + EventKind.ABSOLUTE, MOST_AXES // 8)
        return InputDevice(
            path=path,
            name=name,
            vendor=_ID.unpack(_ask(descriptor, 0x02, _ID.size))[1],
            keys=frozenset(_members(keys)),
            axes={
                code: AxisRange(*_AXIS.unpack(_ask(descriptor, 0x40 + code, _AXIS.size))[1:3])
                for code in _members(axes)
            },
        )


def devices() -> Iterator[InputDevice]:
    """Yield every input device that this user may read."""
    numbered = INPUT.glob("event*")
    for path in sorted(numbered, key=lambda path: (len(path.name), path.name)):
        with suppress(OSError):
            yield examined(path)


def _ask(descriptor: int, number: int, size: int) -> bytes:
    """Return the answer to one of evdev's read requests (EVIOCG…)."""
    request = _READ | size << 16 | ord("E") << 8 | number
    return fcntl.ioctl(descriptor, request, bytes(size))


def _members(bits: bytes) -> list[int]:
    """Return the numbers of the bits that are set."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")).tolist()
