"""Keys: a held one moves, a pause halts, and a pasted text takes nothing over."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
from collections.abc import Iterator

import numpy as np
import pytest
from tests.waiting import LONGEST_WAIT_S

from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.runtime.takeover import keyboard
from gatort.runtime.takeover.keyboard import HELP, MOVES, TURNS, KeyboardControls, typed_keys

MS = 1_000_000
T0 = 10_000 * MS


def typed(*keys: bytes, every_ms: int = 40) -> tuple[KeyboardControls, int]:
    """Return the controls after some keys, and the instant of the last one."""
    controls, now_ns = KeyboardControls(), T0
    for key in keys:
        now_ns += every_ms * MS
        controls.take(key, now_ns)
    return controls, now_ns


def test_one_key_takes_over_and_another_gives_back() -> None:
    controls, now_ns = typed()
    assert not controls.wish(now_ns).drives
    controls.take(b"t", now_ns)
    assert controls.wish(now_ns).drives
    controls.take(b"g", now_ns + 40 * MS)
    assert not controls.wish(now_ns + 40 * MS).drives


@pytest.mark.parametrize("text", [b"to", b"vim test", b"\x1b[200~t"])
def test_a_pasted_text_takes_nothing_over(text: bytes) -> None:
    controls, now_ns = typed(text)
    assert not controls.wish(now_ns).drives
    # Nor when a slow line gives its later bytes one by one.
    controls, now_ns = typed(b"x", *(bytes([byte]) for byte in text), every_ms=5)
    assert not controls.wish(now_ns).drives


def test_a_held_key_moves_until_300_ms_after_its_last_byte() -> None:
    controls, now_ns = typed(b"t", *[b"w"] * 10)
    assert controls.wish(now_ns).linear_m_s.tolist() == [0.06, 0.0, 0.0]
    assert controls.wish(now_ns + 299 * MS).linear_m_s.any()
    halted = controls.wish(now_ns + 300 * MS)
    assert not halted.linear_m_s.any()
    assert halted.drives


def test_the_newest_key_counts() -> None:
    controls, now_ns = typed(b"t", b"w", b"q")
    wish = controls.wish(now_ns)
    assert not wish.linear_m_s.any()
    assert wish.angular_rad_s.tolist() == [0.0, 0.0, 0.3]


def test_every_direction_has_a_key_and_the_opposite_has_another() -> None:
    for keys in (MOVES, TURNS):
        directions = [tuple(direction) for direction in keys.values()]
        assert len(set(directions)) == 6
        assert all(tuple(-np.array(direction)) in directions for direction in directions)


def test_digits_set_the_speed() -> None:
    controls, now_ns = typed(b"t", b"1", b"w")
    assert controls.wish(now_ns).linear_m_s[0] == 0.02
    controls, now_ns = typed(b"t", b"3", b"w")
    assert controls.wish(now_ns).linear_m_s[0] == 0.15


def test_the_hand_moves_only_while_the_person_has_the_arm() -> None:
    controls, now_ns = typed(b"c", b"t")
    assert controls.wish(now_ns).width_m is None
    controls.take(b"c", now_ns + 40 * MS)
    assert controls.wish(now_ns).width_m == 0.0
    controls.take(b"o", now_ns + 80 * MS)
    assert controls.wish(now_ns).width_m == GRIPPER_OPEN_M
    controls.take(b"g", now_ns + 120 * MS)
    assert controls.wish(now_ns).width_m is None


def test_a_key_held_from_before_does_not_move_an_arm_that_is_taken() -> None:
    controls, now_ns = typed(b"w", b"t")
    assert not controls.wish(now_ns).linear_m_s.any()


@pytest.mark.parametrize("key", [b" ", b"\n", b"\r", b"wwww "])
def test_space_and_enter_are_the_operators_stop(key: bytes) -> None:
    controls, now_ns = typed(key)
    assert controls.wish(now_ns).stops


@pytest.mark.parametrize("key", [b"\x1b[A", b"\xff", b"T", b"5", b"\x00"])
def test_other_keys_do_nothing(key: bytes) -> None:
    controls, now_ns = typed(b"t", key)
    wish = controls.wish(now_ns)
    assert wish.drives
    assert not wish.linear_m_s.any()
    assert not wish.angular_rad_s.any()
    assert not wish.stops


def test_every_key_of_the_help_has_a_meaning() -> None:
    named = "".join(part.partition("]")[0] for part in HELP.split("[")[1:])
    assert {*MOVES, *TURNS, "t", "g", "o", "c"} <= set(named)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    stdin = os.fdopen(theirs, "r")
    monkeypatch.setattr(sys, "stdin", stdin)
    yield ours, theirs
    stdin.close()
    os.close(ours)


def test_the_terminal_gives_each_key_at_once_and_is_restored(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    os.write(ours, b"t\n")  # typed before, at a question
    assert select.select([theirs], [], [], LONGEST_WAIT_S)[0]  # A terminal takes its time.
    with typed_keys() as stdin:
        os.write(ours, b"w")
        assert os.read(stdin, 10) == b"w"
        assert not termios.tcgetattr(theirs)[3] & termios.ECHO
    assert termios.tcgetattr(theirs) == before


def test_without_a_terminal_the_keyboard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="expected a terminal in the foreground"):
        keyboard.require_terminal()
