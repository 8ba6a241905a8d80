"""The C forms of the inner loop and the envelope, side by side with the Python that they follow."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatort.runtime.c_loops import (
    DROPS,
    OPTIONS,
    REASON_LENGTH,
    STATES,
    CommandRecord,
    LimitsRecord,
    LoopRecord,
)
from gatort.runtime.compiler import compiled
from gatort.runtime.envelope import ArmLimits, Envelope
from gatort.runtime.errors import ConfigError
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.robots.panda import PANDA, PANDA_LIMITS
from gatort.runtime.safety import Command

MS = 1_000_000
SEQUENCES = 10_000
ODD = [math.nan, math.inf, -math.inf]
FALLING = replace(
    PANDA_LIMITS,
    power_w=40.0,
    stopping_rad_s2=(6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0),
    stopping_offset_rad_s=(0.3, 0.2, 0.2, 0.3, 0.35, 0.35, 0.35),
    slowing_share=0.5,
    slowing_brake_share=0.4,
)

State = tuple[str, list[float], str]
"""State, values in effect and reason."""


@pytest.fixture(scope="module")
def library() -> Iterator[ctypes.CDLL]:
    source = Path(__file__).with_name("c_loops.c")
    with compiled(source, (*OPTIONS, "-shared", "-fPIC"), "the test", ConfigError) as target:
        yield ctypes.CDLL(str(target))


class CLoop:
    def __init__(self, library: ctypes.CDLL, safe_after_ns: int) -> None:
        self._library = library
        self._values, self._reason = (ctypes.c_double * 8)(), ctypes.create_string_buffer(160)
        library.start_loop(ctypes.byref(LoopRecord.of(PANDA, safe_after_ns)))

    def arm(self, now_ns: int) -> None:
        self._library.arm(ctypes.c_int64(now_ns))

    def stop(self, now_ns: int) -> None:
        self._library.stop(ctypes.c_int64(now_ns))

    def accept(self, command: Command, now_ns: int) -> int:
        record = CommandRecord.of(command)
        found: int = self._library.accept_command(ctypes.byref(record), ctypes.c_int64(now_ns))
        return found

    def step(self, now_ns: int) -> State:
        state = self._library.step(ctypes.c_int64(now_ns), self._values, self._reason)
        return STATES[state], list(self._values), self._reason.value.decode()


def random_command(rng: np.random.Generator, number: int, now_ns: int) -> Command:
    """Return a command that is mostly good, and wrong in one of many ways now and then."""
    values = rng.uniform(-40, 40, 8)
    if rng.random() < 0.03:
        values[rng.integers(8)] = rng.choice(ODD)
    if rng.random() < 0.02:
        values = values[:-1]
    sequence = number - int(rng.random() < 0.05)
    apply_at_ns = now_ns + int(rng.integers(-2, 30)) * MS + int(rng.integers(MS))
    if rng.random() < 0.02:
        apply_at_ns += 60 * MS
    valid_for_ns = int(rng.choice([60 * MS, 60 * MS, 60 * MS, 30 * MS, 190 * MS, 0, 300 * MS]))
    return Command(sequence, number, apply_at_ns, valid_for_ns, values)


def test_ten_thousand_random_sequences_give_the_same_states_values_and_reasons(
    library: ctypes.CDLL,
) -> None:
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    dropped: set[int] = set()
    for _ in range(SEQUENCES):
        safe_after_ns = int(rng.choice([95, 95, 50, 140, 200])) * MS
        ours, theirs = InnerLoop(PANDA, safe_after_ns), CLoop(library, safe_after_ns)
        now_ns, number = int(rng.integers(MS)), 0
        for _ in range(int(rng.integers(5, 40))):
            now_ns += int(rng.choice([MS, 3 * MS, 20 * MS, 50 * MS, 130 * MS])) + int(
                rng.integers(MS)
            )
            chance = rng.random()
            if chance < 0.15:
                ours.arm(now_ns)
                theirs.arm(now_ns)
            elif chance < 0.2:
                ours.stop(now_ns, "a test")
                theirs.stop(now_ns)
            elif chance < 0.7:
                for place in range(6 if rng.random() < 0.02 else 1):
                    number += 1
                    command = random_command(rng, number, now_ns + place * 5 * MS)
                    before = ours.dropped.copy()
                    accepted = ours.accept(command, now_ns)
                    found = theirs.accept(command, now_ns)
                    assert accepted == (found == len(DROPS))
                    if not accepted:
                        (reason,) = ours.dropped - before
                        assert DROPS[found] is reason
                        dropped.add(found)
            values = ours.step(now_ns).tolist()
            state = ours.state, values, ours.reason or ""
            assert theirs.step(now_ns) == state
            seen.add(ours.state)
    assert seen == set(STATES)
    assert dropped == set(range(len(DROPS)))


class Motion:
    """Joints that swing about a place; some of their readings drift, repeat or are not finite."""

    def __init__(self, rng: np.random.Generator, limits: ArmLimits) -> None:
        self._rng = rng
        self._start = np.mean([limits.low_rad, limits.high_rad], axis=0) + rng.uniform(-0.5, 0.5, 7)
        if rng.random() < 0.3:
            joint = rng.integers(7)
            self._start[joint] = limits.high_rad[joint] - rng.uniform(0, 0.1)
        self._rate = rng.uniform(1, 20, 7)
        self._swing_rad = rng.uniform(0, 1, 7) * rng.choice([0.0, 0.2, 1.0, 3.0]) / self._rate
        self._drift_rad_s = rng.choice([0.0, 0.0, 0.5])
        self._pushes = float(rng.choice([1.0, 20.0, 100.0]))

    def readings(self, cycle: int) -> tuple[list[float], list[float], list[float]]:
        """Return wanted torques, positions and velocities of a cycle."""
        rng, phase = self._rng, self._rate * cycle * 1e-3
        position = self._start + self._swing_rad * np.sin(phase) + self._drift_rad_s * cycle * 1e-3
        velocity = self._swing_rad * self._rate * np.cos(phase)
        torque = self._pushes * np.sin(phase / 3 + np.arange(7))
        for row in (torque, position, velocity):
            if rng.random() < 0.0002:
                row[rng.integers(7)] = rng.choice(ODD)
        return torque.tolist(), position.tolist(), velocity.tolist()


@pytest.mark.parametrize("limits", [PANDA_LIMITS, FALLING], ids=["constant", "falling"])
def test_random_motions_give_the_same_torques_and_reasons_in_both_envelopes(
    library: ctypes.CDLL, limits: ArmLimits
) -> None:
    rng = np.random.default_rng(1)
    written, reason = (ctypes.c_double * 7)(), ctypes.create_string_buffer(REASON_LENGTH)
    seen: set[str] = set()
    for _ in range(150):
        ours = Envelope(limits)
        library.start_envelope(ctypes.byref(LimitsRecord.of(limits)))
        motion, repeats = Motion(rng, limits), rng.random() < 0.1
        for cycle in range(int(rng.integers(50, 700))):
            readings = motion.readings(0 if repeats else cycle)
            is_driven, elapsed_s = bool(rng.random() < 0.98), float(rng.choice([1e-3, 1e-3, 4e-3]))
            found = ours.limit(*readings, is_driven=is_driven, elapsed_s=elapsed_s)
            arrays: list[Any] = [(ctypes.c_double * 7)(*row) for row in readings]
            library.limit(*arrays, is_driven, ctypes.c_double(elapsed_s), written, reason)
            assert list(written) == found
            assert reason.value.decode() == (ours.reason or "")
            seen.add(ours.reason or "")
            if rng.random() < 0.002:
                ours.reset()
                library.reset()
            if rng.random() < 0.002:
                library.let_go(written)
                assert list(written) == ours.let_go()
    words = " ".join(seen)
    for part in (
        "came to",
        "turned at",
        "was pressed",
        "its position and",
        "its readings",
        "the joints' readings",
        "the tool came",
        "a wanted torque",
    ):
        assert part in words
    assert ("the joints got" in words) == math.isfinite(limits.power_w)
