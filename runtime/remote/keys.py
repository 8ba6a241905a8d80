"""CURVE keys on disk (RFC 26): which controllers may drive which robot.

A directory holds `robot.key` and `robot.pub`, `controller.key` and `controller.pub`. A `.key` is
secret and stays on its own host; a `.pub` goes to the other host. A robot accepts every
`controller*.pub` beside its own key.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import zmq
from zmq.utils import z85

from gatort.runtime.errors import ConfigError
from gatort.runtime.outputs import removed_if_empty
from gatort.runtime.private_file import read_private, write_new
from gatort.runtime.regular_file import open_regular

from .address import host_of

KEY_CHARACTERS = 40
"""Length of a key in Z85 (RFC 32); 32 bytes."""
ROBOT = "robot"
CONTROLLER = "controller"
LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}")


@dataclass(frozen=True, slots=True)
class RobotKeys:
    """A robot's secret key and the controllers that it accepts."""

    secret: bytes
    """Secret key in Z85, as libzmq takes it."""
    controllers: frozenset[bytes]
    """Public keys of the controllers, 32 bytes each."""

    @classmethod
    def load(cls, directory: Path) -> RobotKeys:
        """Read `robot.key` and every `controller*.pub`.

        Raises:
            ConfigError: a file is absent, not a key, or open to others.
        """
        secret = _read_secret(directory / f"{ROBOT}.key")
        public = sorted(directory.glob(f"{CONTROLLER}*.pub"))
        if not public:
            raise ConfigError(
                f"{directory}: expected the public key of a controller ({CONTROLLER}*.pub), "
                "found none"
            )
        return cls(secret, frozenset(z85.decode(_read_public(path)) for path in public))


@dataclass(frozen=True, slots=True)
class ControllerKeys:
    """A controller's secret key and the public key of its robot."""

    secret: bytes
    """Secret key in Z85."""
    robot: bytes
    """Public key of the robot in Z85. The controller connects to no other robot."""
    directory: Path
    """Directory of the keys, for messages."""

    @classmethod
    def load(cls, directory: Path) -> ControllerKeys:
        """Read `controller.key` and `robot.pub`.

        Raises:
            ConfigError: a file is absent, not a key, or open to others.
        """
        secret = _read_secret(directory / f"{CONTROLLER}.key")
        robot = _read_public(directory / f"{ROBOT}.pub")
        return cls(secret, robot, directory)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set the CURVE keys of a socket. It then connects only to this robot."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = zmq.curve_public(self.secret)
        socket.curve_serverkey = self.robot


def make_keys(directory: Path) -> list[Path]:
    """Draw one pair of keys for a robot and one for a controller. Return the files.

    Raises:
        ConfigError: the directory holds a key already, or it cannot be written.
    """
    _require_directory(directory)
    paths = [directory / f"{who}{kind}" for who in (ROBOT, CONTROLLER) for kind in (".key", ".pub")]
    if found := [path for path in paths if path.exists() or path.is_symlink()]:
        raise ConfigError(
            f"{found[0]}: expected a directory without keys, and keys are never replaced; "
            "give another directory"
        )
    try:
        with removed_if_empty(directory):
            for who in (ROBOT, CONTROLLER):
                public, secret = zmq.curve_keypair()
                write_new(directory / f"{who}.key", secret + b"\n", 0o600)
                write_new(directory / f"{who}.pub", public + b"\n", 0o644)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot write the keys: {error.strerror}") from error
    return paths


def add_controller(directory: Path, name: str) -> list[Path]:
    """Draw a pair of keys for a further controller of the robot whose public key is there.

    Returns the public key for the robot's directory, then the two files of a directory for the
    controller's host.

    Raises:
        ConfigError: the name is not valid or taken, `robot.pub` is absent, or nothing can be
            written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"expected a name of at most {LONGEST_NAME} letters, digits, - and _, found {name!r}"
        )
    _require_directory(directory)
    robot = _read_public(directory / f"{ROBOT}.pub")
    shown = directory / f"{CONTROLLER}-{name}.pub"
    own = [directory / name / each for each in (f"{CONTROLLER}.key", f"{ROBOT}.pub")]
    if found := [path for path in (shown, *own) if path.exists() or path.is_symlink()]:
        raise ConfigError(
            f"{found[0]}: expected a new name, and keys are never replaced; give another name"
        )
    public, secret = zmq.curve_keypair()
    try:
        with removed_if_empty(own[0].parent):
            write_new(own[0], secret + b"\n", 0o600)
            write_new(own[1], robot + b"\n", 0o644)
            write_new(shown, public + b"\n", 0o644)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot write the keys: {error.strerror}") from error
    return [shown, *own]


def require_keys_beyond_loopback(endpoint: str, keyed: bool) -> None:
    """Check an address: an address beyond this machine needs keys.

    Raises:
        ConfigError: the address is not tcp://HOST:PORT, or keys are missing.
    """
    host = host_of(endpoint)
    if host is None:
        raise ConfigError(
            f"expected an address such as tcp://127.0.0.1:5555 (IPv4 or a name), found {endpoint!r}"
        )
    if not keyed and not _is_loopback(host):
        raise ConfigError(
            f"{endpoint} reaches beyond this machine, which requires keys: "
            "make them with `gatort keys DIR` and give --keys DIR"
        )


def _require_directory(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"{path}: cannot write keys: expected a directory, found a file; give another name"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_secret(path: Path) -> bytes:
    return _key(path, read_private(path, "a secret key", ConfigError))


def _read_public(path: Path) -> bytes:
    with open_regular(path, "a public key", ConfigError, follow_links=False) as file:
        status = os.fstat(file.fileno())
        # Every user who can write this file can decide which controllers drive the robot.
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise ConfigError(
                f"{path}: expected a key that only user {os.geteuid()} or root may write "
                f"(mode 644), found user {status.st_uid}'s "
                f"with mode {stat.S_IMODE(status.st_mode):o}"
            )
        return _key(path, file.read(2 * KEY_CHARACTERS))


def _key(path: Path, text: bytes) -> bytes:
    key = text.strip()
    with suppress(KeyError, ValueError, struct.error):
        if len(key) == KEY_CHARACTERS and len(z85.decode(key)) == KEY_CHARACTERS * 4 // 5:
            return key
    raise ConfigError(
        f"{path}: expected {KEY_CHARACTERS} characters of Z85, found {len(key)} that are not a key"
    )
