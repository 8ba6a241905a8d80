"""Bytes of Linux's input devices, and the gamepads and SpaceMice that speak in them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.runtime.takeover import devices
from gatort.runtime.takeover.devices import find_device
from gatort.runtime.takeover.gamepad import (
    ENABLE,
    GIVE,
    HAT_X,
    HAT_Y,
    LEFT_TRIGGER,
    LEFT_X,
    LEFT_Y,
    RIGHT_TRIGGER,
    RIGHT_X,
    RIGHT_Y,
    STOPS,
    TAKE,
    GamepadControls,
)
from gatort.runtime.takeover.input_events import (
    DROPPED,
    AxisRange,
    EventKind,
    InputDevice,
    InputEvent,
    parse,
)
from gatort.runtime.takeover.spacemouse import LEFT, RIGHT, SpaceMouseControls

MS = 1_000_000
T0 = 10_000 * MS
SYNC = InputEvent(EventKind.SYNC, 0, 0)
LOST = InputEvent(EventKind.SYNC, DROPPED, 0)


def pack(*events: InputEvent) -> bytes:
    """Return events as a device gives them, at time 0."""
    return b"".join(struct.pack("<qqHHi", 0, 0, *event) for event in events)


def press(code: int) -> InputEvent:
    return InputEvent(EventKind.KEY, code, 1)


def release(code: int) -> InputEvent:
    return InputEvent(EventKind.KEY, code, 0)


def stick(code: int, value: int) -> InputEvent:
    return InputEvent(EventKind.ABSOLUTE, code, value)


def test_an_event_has_the_kernels_24_bytes() -> None:
    # `evtest` on an Xbox pad: time 1732878000.123456, EV_KEY, BTN_SOUTH, 1.
    data = struct.pack("<qqHHi", 1_732_878_000, 123_456, 1, 0x130, 1)
    assert parse(data) == [InputEvent(EventKind.KEY, TAKE, 1)]
    assert parse(pack(press(TAKE), SYNC)) == [press(TAKE), SYNC]


def test_half_an_event_is_left_out() -> None:
    assert parse(pack(press(TAKE), SYNC)[:-1]) == [press(TAKE)]


@pytest.mark.parametrize(
    ("value", "share"), [(0, -1.0), (255, 1.0), (127.5, 0.0), (300, 1.0), (-5, -1.0)]
)
def test_a_position_is_a_share_of_its_range(value: float, share: float) -> None:
    assert AxisRange(0, 255).share(value) == pytest.approx(share)  # type: ignore[arg-type]
    assert AxisRange(0, 0).share(7) == 0.0


# -- Gamepad -------------------------------------------------------------------------------------


def pad(*events: InputEvent) -> GamepadControls:
    controls = GamepadControls()
    controls.take(pack(*events, SYNC), T0)
    return controls


def test_a_gamepad_takes_over_and_gives_back() -> None:
    assert pad(press(TAKE), release(TAKE)).wish(T0).drives
    assert not pad(press(TAKE), press(GIVE)).wish(T0).drives


def test_sticks_move_only_while_the_shoulder_button_is_held() -> None:
    events = [press(TAKE), stick(LEFT_Y, -32_768)]
    assert not pad(*events).wish(T0).linear_m_s.any()
    held = pad(*events, press(ENABLE)).wish(T0)
    np.testing.assert_allclose(held.linear_m_s, [0.25, 0.0, 0.0])
    assert not pad(*events, press(ENABLE), release(ENABLE)).wish(T0).linear_m_s.any()


@pytest.mark.parametrize(
    ("code", "moves", "turns"),
    [
        (LEFT_X, (0, -1, 0), (0, 0, 0)),
        (RIGHT_Y, (0, 0, -1), (0, 0, 0)),
        (RIGHT_X, (0, 0, 0), (0, 0, -1)),
        (HAT_X, (0, 0, 0), (-1, 0, 0)),
        (HAT_Y, (0, 0, 0), (0, -1, 0)),
    ],
)
def test_each_stick_has_a_direction(
    code: int, moves: tuple[int, ...], turns: tuple[int, ...]
) -> None:
    wish = pad(press(TAKE), press(ENABLE), stick(code, 32_767)).wish(T0)
    assert np.sign(np.round(wish.linear_m_s, 3)).tolist() == list(moves)
    assert np.sign(np.round(wish.angular_rad_s, 3)).tolist() == list(turns)


def test_a_stick_that_drifts_in_its_middle_does_not_move() -> None:
    wish = pad(press(TAKE), press(ENABLE), stick(LEFT_X, 3_900), stick(LEFT_Y, -3_900)).wish(T0)
    assert not wish.linear_m_s.any()


def test_the_triggers_open_and_close_the_hand() -> None:
    assert pad(press(TAKE), stick(RIGHT_TRIGGER, 255)).wish(T0).width_m == 0.0
    assert pad(press(TAKE), stick(LEFT_TRIGGER, 255)).wish(T0).width_m == GRIPPER_OPEN_M
    assert pad(press(TAKE), stick(RIGHT_TRIGGER, 100)).wish(T0).width_m is None
    assert pad(stick(RIGHT_TRIGGER, 255), press(TAKE)).wish(T0).width_m is None


@pytest.mark.parametrize("code", STOPS)
def test_start_and_select_are_the_operators_stop(code: int) -> None:
    assert pad(press(code)).wish(T0).stops


def test_lost_events_let_go_of_everything_until_the_button_is_pressed_again() -> None:
    controls = pad(press(TAKE), press(ENABLE), stick(LEFT_Y, -32_768))
    # The release of the button may be among the lost events. Those up to the next SYNC are too old.
    controls.take(pack(LOST, stick(LEFT_Y, -32_768), press(ENABLE), SYNC), T0)
    assert controls.wish(T0).drives
    assert not controls.wish(T0).linear_m_s.any()
    controls.take(pack(stick(LEFT_Y, -32_768), SYNC), T0)
    assert not controls.wish(T0).linear_m_s.any()
    controls.take(pack(press(ENABLE), SYNC), T0)
    assert controls.wish(T0).linear_m_s.any()


# -- SpaceMouse ----------------------------------------------------------------------------------


def cap(*values: int, kind: int = EventKind.RELATIVE) -> list[InputEvent]:
    return [InputEvent(kind, code, value) for code, value in enumerate(values) if value]


def mouse(*events: InputEvent) -> SpaceMouseControls:
    controls = SpaceMouseControls()
    controls.take(pack(press(LEFT), release(LEFT), *events, SYNC), T0)
    return controls


@pytest.mark.parametrize(
    ("values", "moves", "turns"),
    [
        ((350, 0, 0, 0, 0, 0), (0, -0.25, 0), (0, 0, 0)),
        ((0, -350, 0, 0, 0, 0), (0.25, 0, 0), (0, 0, 0)),
        ((0, 0, -350, 0, 0, 0), (0, 0, 0.25), (0, 0, 0)),
        ((0, 0, 0, 0, 0, 350), (0, 0, 0), (0, 0, -0.8)),
    ],
)
def test_the_tool_moves_as_the_cap_does(
    values: tuple[int, ...], moves: tuple[float, ...], turns: tuple[float, ...]
) -> None:
    wish = mouse(*cap(*values)).wish(T0)
    np.testing.assert_allclose(wish.linear_m_s, moves, atol=1e-12)
    np.testing.assert_allclose(wish.angular_rad_s, turns, atol=1e-12)


def test_a_cap_that_reports_nothing_any_more_was_let_go() -> None:
    controls = mouse(*cap(350))
    assert controls.wish(T0 + 99 * MS).linear_m_s.any()
    assert not controls.wish(T0 + 100 * MS).linear_m_s.any()


def test_an_absolute_axis_keeps_its_value_until_the_next() -> None:
    controls = mouse(*cap(350, kind=EventKind.ABSOLUTE))
    assert controls.wish(T0 + 5_000 * MS).linear_m_s.any()
    controls.take(pack(InputEvent(EventKind.ABSOLUTE, 0, 0), SYNC), T0)
    assert not controls.wish(T0).linear_m_s.any()


def test_the_left_button_takes_over_then_moves_the_hand_and_the_right_one_gives_back() -> None:
    controls = SpaceMouseControls()
    controls.take(pack(press(LEFT), SYNC), T0)
    assert (controls.wish(T0).drives, controls.wish(T0).width_m) == (True, None)
    controls.take(pack(press(LEFT), SYNC), T0)
    assert controls.wish(T0).width_m == 0.0
    controls.take(pack(press(LEFT), SYNC), T0)
    assert controls.wish(T0).width_m == GRIPPER_OPEN_M
    controls.take(pack(press(RIGHT), SYNC), T0)
    assert (controls.wish(T0).drives, controls.wish(T0).width_m) == (False, None)


def test_lost_events_let_the_cap_go() -> None:
    controls = mouse(*cap(350, kind=EventKind.ABSOLUTE))
    controls.take(pack(LOST, SYNC), T0)
    assert not controls.wish(T0).linear_m_s.any()


# -- Finding them --------------------------------------------------------------------------------

PAD = InputDevice(Path("/dev/input/event9"), "Xbox Wireless", 0x045E, frozenset((TAKE, ENABLE)), {})
MOUSE = InputDevice(Path("/dev/input/event3"), "SpaceMouse Compact", 0x256F, frozenset((LEFT,)), {})
OTHER = InputDevice(Path("/dev/input/event0"), "Power Button", 0, frozenset((116,)), {})


def test_the_first_device_of_its_kind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "devices", lambda: iter((OTHER, MOUSE, PAD)))
    assert find_device("gamepad", VirtualClock()).help == GamepadControls.help
    assert find_device("spacemouse", VirtualClock()).help == SpaceMouseControls.help


def test_without_one_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "devices", lambda: iter((OTHER,)))
    with pytest.raises(ConfigError, match="join the group `input`"):
        find_device("gamepad", VirtualClock())


def test_a_file_that_is_no_input_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "event0"
    path.write_bytes(b"")
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="expected the event file of a gamepad"):
            find_device("gamepad", VirtualClock(), wrong)
    with pytest.raises(ConfigError, match="found keyboard"):
        find_device("keyboard", VirtualClock(), path)
