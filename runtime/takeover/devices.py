"""Takeover devices by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError

from .gamepad import ENABLE, TAKE, GamepadControls
from .input_events import InputDevice, devices, examined, opened
from .keyboard import KeyboardControls, require_terminal, typed_keys
from .listener import Controls, ListenedDevice
from .spacemouse import LEFT, VENDORS, SpaceMouseControls
from .wish import TakeoverDevice

DeviceName = Literal["keyboard", "gamepad", "spacemouse"]


def _is_gamepad(device: InputDevice) -> bool:
    return {TAKE, ENABLE} <= device.keys


def _is_spacemouse(device: InputDevice) -> bool:
    return device.vendor in VENDORS and LEFT in device.keys and "space" in device.name.lower()


_KINDS: Final[
    dict[str, tuple[Callable[[InputDevice], bool], Callable[[InputDevice], Controls]]]
] = {
    "gamepad": (_is_gamepad, lambda device: GamepadControls(device.axes)),
    "spacemouse": (_is_spacemouse, lambda device: SpaceMouseControls(device.axes)),
}
"""Test for a kind of device, and its controls."""


def find_device(name: DeviceName, clock: Clock, path: Path | None = None) -> TakeoverDevice:
    """Return a device of this computer. It is heard once `listening` is entered.

    Args:
        name: kind of the device.
        clock: the loop's clock.
        path: its file, such as /dev/input/event7; the first one of its kind by default.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    if name == "keyboard":
        if path is not None:
            raise ConfigError("--takeover-device: expected a gamepad or spacemouse, found keyboard")
        require_terminal()
        return ListenedDevice(name, typed_keys, KeyboardControls(), clock)

    fits, controls = _KINDS[name]
    found = _examined(name, path) if path is not None else next(filter(fits, devices()), None)
    if found is None:
        raise ConfigError(
            f"--takeover {name}: expected one below /dev/input, found none that this user may "
            "read; plug it in, join the group `input`, or name it with --takeover-device"
        )
    return ListenedDevice(name, partial(opened, found.path), controls(found), clock)


def _examined(name: DeviceName, path: Path) -> InputDevice:
    try:
        return examined(path)
    except OSError as error:
        raise ConfigError(
            f"--takeover-device {path}: expected the event file of a {name}, such as "
            f"/dev/input/event7, found {error.strerror or error}"
        ) from error
