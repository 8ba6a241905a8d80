"""Who may drive whom: CURVE keys on disk (RFC 26) and the gatekeeper that a robot asks about each of them (RFC 27).

A directory holds `robot.key` and `robot.pub`, `controller.key` and `controller.pub`: the `.key` is secret and stays on
its own host, the `.pub` goes to the other one. A robot lets in every `controller*.pub` beside its own key.
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
from gatort.runtime.private_file import (
    open_unlinked,
    read_private,
    write_new,
)

KEY_CHARACTERS = 40
"""A key of 32 bytes in Z85 (RFC 32)."""
ROBOT, CONTROLLER = "robot", "controller"
DOMAIN = b"gatort"
"""ZAP's name for who is asked about."""
ANSWERS_AT_ONCE = 32
LAST_PORT = 65_535
_ADDRESS = re.compile(r"tcp://(?P<host>[\w.*-]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class RobotKeys:
    """What a robot needs: its own secret, and whom it lets in."""

    secret: bytes
    """In Z85, as libzmq takes it."""
    controllers: frozenset[bytes]
    """Public keys, 32 bytes each."""

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
                f"{directory}: expected the public key of a controller ({CONTROLLER}*.pub), found none"
            )
        return cls(secret, frozenset(z85.decode(_read_public(path)) for path in public))


@dataclass(frozen=True, slots=True)
class ControllerKeys:
    """What a controller needs: its own secret, and by what it knows the robot."""

    secret: bytes
    robot: bytes
    """The robot's public key."""
    directory: Path

    @classmethod
    def load(cls, directory: Path) -> ControllerKeys:
        """Read `controller.key` and `robot.pub`.

        Raises:
            ConfigError: a file is absent, not a key, or open to others.
        """
        return cls(
            _read_secret(directory / f"{CONTROLLER}.key"),
            _read_public(directory / f"{ROBOT}.pub"),
            directory,
        )

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket speak with this robot alone."""
        socket.curve_secretkey, socket.curve_publickey = self.secret, zmq.curve_public(self.secret)
        socket.curve_serverkey = self.robot


def make_keys(directory: Path) -> list[Path]:
    """Draw a pair for a robot and one for a controller, and return the files.

    Raises:
        ConfigError: there is one already, or the directory cannot be written.
    """
    paths = [directory / f"{who}{kind}" for who in (ROBOT, CONTROLLER) for kind in (".key", ".pub")]
    if found := [path for path in paths if path.exists() or path.is_symlink()]:
        raise ConfigError(
            f"{found[0]}: expected no key yet, and none is replaced; give another directory"
        )
    try:
        for who in (ROBOT, CONTROLLER):
            public, secret = zmq.curve_keypair()
            write_new(directory / f"{who}.key", secret + b"\n", 0o600)
            write_new(directory / f"{who}.pub", public + b"\n", 0o644)
    except OSError as error:
        raise ConfigError(f"{directory}: keys cannot be written: {error.strerror}") from error
    return paths


def require_keys_beyond_loopback(endpoint: str, keyed: bool) -> None:
    """Check an address, and that nothing is spoken in the open beyond this machine.

    Raises:
        ConfigError: it is not tcp://HOST:PORT, or keys are missing.
    """
    found = _ADDRESS.fullmatch(endpoint)
    if found is None or int(found["port"]) > LAST_PORT:
        raise ConfigError(
            f"expected an address such as tcp://127.0.0.1:5555 (IPv4 or a name), found {endpoint!r}"
        )
    if not keyed and not _is_loopback(found["host"]):
        raise ConfigError(
            f"{endpoint} is beyond this machine, where nothing is spoken without keys: "
            "make them with `gatort keys DIR` and give --keys DIR"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_secret(path: Path) -> bytes:
    return _key(path, read_private(path, "a secret key", ConfigError))


def _read_public(path: Path) -> bytes:
    with open_unlinked(path, "a public key", ConfigError) as file:
        status = os.fstat(file.fileno())
        # Whoever can write here decides who may drive the robot.
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise ConfigError(
                f"{path}: expected a key that only user {os.geteuid()} or root may write (mode 644), "
                f"found user {status.st_uid}'s with mode {stat.S_IMODE(status.st_mode):o}"
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


class Gatekeeper:
    """Answers libzmq's question about each key that knocks, in the thread that serves; closed to all but those listed.

    CURVE alone lets in any key: it proves that its owner holds it, not that he is welcome.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: RobotKeys) -> None:
        """Stand at the door of a context; before a socket of it binds."""
        self.unknown = 0
        """Keys that were turned away."""
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")
        self._keys = keys

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket ask here about whoever connects."""
        socket.curve_secretkey, socket.curve_server = self._keys.secret, True
        socket.zap_domain = DOMAIN
        socket.zap_enforce_domain = True

    def answer(self) -> None:
        """Answer who is waiting; never waits itself."""
        with suppress(zmq.Again):
            for _ in range(ANSWERS_AT_ONCE):
                version, request, domain, _, _, mechanism, *credentials = (
                    self.socket.recv_multipart(zmq.NOBLOCK)
                )
                known = (domain, mechanism) == (DOMAIN, b"CURVE") and {
                    *credentials
                } <= self._keys.controllers
                welcome = known and bool(credentials)
                self.unknown += not welcome
                verdict = (b"200", b"OK") if welcome else (b"400", b"unknown key")
                self.socket.send_multipart([version, request, *verdict, b"", b""])
