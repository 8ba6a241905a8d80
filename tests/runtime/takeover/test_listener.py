"""A thread reads the device: its newest wish is there at once, and grows old once it is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import numpy as np
import pytest
from tests.waiting import LONGEST_WAIT_S, eventually

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.robot import Observation
from gatort.runtime.takeover.keyboard import KeyboardControls
from gatort.runtime.takeover.listener import ListenedDevice
from gatort.runtime.takeover.wish import Wish

SEEN = Observation(0, 0, (), np.zeros(8))


class Pipe:
    """A device whose bytes a test writes."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    @contextmanager
    def opened(self) -> Iterator[int]:
        yield self.reading


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_a_key_reaches_the_loop_without_its_waiting(pipe: Pipe) -> None:
    device = ListenedDevice("keyboard", pipe.opened, KeyboardControls(), MonotonicClock())
    with device.listening():
        os.write(pipe.writing, b"t")
        eventually(lambda: device.wish(SEEN).drives)


def test_a_device_with_nothing_to_say_gives_signs_of_life(pipe: Pipe) -> None:
    device = ListenedDevice("keyboard", pipe.opened, KeyboardControls(), MonotonicClock())
    with device.listening():
        first_ns = device.wish(SEEN).stamp_ns
        eventually(lambda: device.wish(SEEN).stamp_ns > first_ns)


def test_an_unplugged_device_gives_no_sign_of_life(pipe: Pipe) -> None:
    clock = MonotonicClock()
    device = ListenedDevice("gamepad", pipe.opened, KeyboardControls(), clock)
    with device.listening():
        os.close(pipe.writing)
        eventually(lambda: clock.now_ns() - device.wish(SEEN).stamp_ns > 300_000_000)


class HangingControls(KeyboardControls):
    """Controls that never come back from a key."""

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()

    def take(self, data: bytes, now_ns: int) -> None:
        super().take(data, now_ns)
        self.released.wait(LONGEST_WAIT_S)


def test_a_thread_that_hangs_holds_nobody_up_and_gives_no_sign_of_life(pipe: Pipe) -> None:
    clock, controls = MonotonicClock(), HangingControls()
    device = ListenedDevice("keyboard", pipe.opened, controls, clock)
    with device.listening():
        os.write(pipe.writing, b"t")
        eventually(lambda: clock.now_ns() - device.wish(SEEN).stamp_ns > 300_000_000)
        assert isinstance(device.wish(SEEN), Wish)
        controls.released.set()
