"""Keys on disk: made so that nobody else can read them, and read only where nobody else could."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from gatort.runtime.errors import ConfigError
from gatort.runtime.remote.keys import ControllerKeys, RobotKeys, add_controller, make_keys


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_secret_keys_are_the_user_s_alone_and_public_ones_belong_to_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    assert [path.name for path in paths] == [
        "robot.key",
        "robot.pub",
        "controller.key",
        "controller.pub",
    ]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)
        if path.suffix == ".key":
            assert (
                zmq.curve_public(path.read_bytes().strip())
                == path.with_suffix(".pub").read_bytes().strip()
            )


def test_a_further_controller_is_admitted_beside_the_first(directory: Path) -> None:
    shown, key, robot = add_controller(directory, "lab-2")
    assert (shown.parent, key.parent, robot.parent) == (
        directory,
        directory / "lab-2",
        directory / "lab-2",
    )
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    first, second = (ControllerKeys.load(each) for each in (directory, directory / "lab-2"))
    assert first.robot == second.robot
    assert first.secret != second.secret
    admitted = RobotKeys.load(directory).controllers
    assert admitted == {z85.decode(zmq.curve_public(each.secret)) for each in (first, second)}


@pytest.mark.parametrize("name", ["", "../lab", "a/b", ".hidden", "two words", "x" * 65])
def test_a_name_that_is_no_plain_word_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name of at most 64 letters, digits, - and _"):
        add_controller(directory, name)


def test_a_further_controller_needs_a_robot_and_a_new_name(directory: Path) -> None:
    add_controller(directory, "lab")
    before = (directory / "lab" / "controller.key").read_bytes()
    with pytest.raises(ConfigError, match=r"controller-lab\.pub: expected a new name"):
        add_controller(directory, "lab")
    assert (directory / "lab" / "controller.key").read_bytes() == before
    (directory / "robot.pub").unlink()
    with pytest.raises(ConfigError, match=r"robot\.pub: expected a public key"):
        add_controller(directory, "other")
    assert not (directory / "other").exists()


def test_keys_that_are_there_are_never_replaced(directory: Path) -> None:
    before = (directory / "robot.key").read_bytes()
    (directory / "robot.pub").unlink()
    with pytest.raises(ConfigError, match=r"robot.key: expected a directory without keys"):
        make_keys(directory)
    assert (directory / "robot.key").read_bytes() == before
    assert not (directory / "robot.pub").exists()


def test_keys_need_a_directory_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write the keys: Not a directory"):
        make_keys(tmp_path / "file" / "keys")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_may_open_is_refused(directory: Path, mode: int) -> None:
    (directory / "controller.key").chmod(mode)
    with pytest.raises(
        ConfigError,
        match=rf"controller.key: expected a key that only .* may read .* with mode {mode:o}",
    ):
        ControllerKeys.load(directory)


def test_a_secret_behind_a_link_is_refused(directory: Path) -> None:
    (directory / "robot.key").rename(directory / "elsewhere")
    (directory / "robot.key").symlink_to(directory / "elsewhere")
    with pytest.raises(ConfigError, match=r"robot.key: expected a secret key, found a link"):
        RobotKeys.load(directory)


@pytest.mark.parametrize("name", ["controller.key", "robot.pub"])
def test_a_key_that_is_a_directory_is_refused_and_left_closed(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).mkdir(mode=0o700)
    descriptors = {*Path("/proc/self/fd").iterdir()}
    with pytest.raises(ConfigError, match=rf"{name}: expected a .* key, found a directory"):
        ControllerKeys.load(directory)
    assert {*Path("/proc/self/fd").iterdir()} == descriptors


def test_a_secret_that_is_a_pipe_is_refused_without_waiting(directory: Path) -> None:
    (directory / "robot.key").unlink()
    os.mkfifo(directory / "robot.key", 0o600)
    with pytest.raises(ConfigError, match=r"robot.key: expected a secret key, found a pipe"):
        RobotKeys.load(directory)


def test_a_public_key_that_others_may_replace_is_refused(directory: Path) -> None:
    (directory / "controller.pub").chmod(0o666)
    with pytest.raises(
        ConfigError, match=r"controller.pub: expected a key that only user \d+ or root may write"
    ):
        RobotKeys.load(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_public_key_of_another_user_s_is_refused(directory: Path) -> None:
    # As anybody may put one into a directory that all may write, such as /tmp.
    stranger = directory / "controller-stranger.pub"
    stranger.write_bytes(zmq.curve_keypair()[0])
    stranger.chmod(0o644)
    os.chown(stranger, 65_534, 65_534)
    with pytest.raises(
        ConfigError, match=r"controller-stranger.pub: .* found user 65534's with mode 644"
    ):
        RobotKeys.load(directory)


def test_a_public_key_that_is_a_pipe_is_refused_without_waiting(directory: Path) -> None:
    (directory / "controller.pub").unlink()
    os.mkfifo(directory / "controller.pub", 0o644)
    with pytest.raises(ConfigError, match=r"controller.pub: expected a public key, found a pipe"):
        RobotKeys.load(directory)


@pytest.mark.parametrize(
    "content", [b"", b"#" * 40, b"~" * 40, b"\xff" * 40, b"a" * 39, b"a" * 41, bytes(1_000_000)]
)
def test_a_file_that_holds_no_key_is_refused(directory: Path, content: bytes) -> None:
    for name in ("robot.key", "controller.pub"):
        before = (directory / name).read_bytes()
        (directory / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name}: expected 40 characters of Z85"):
            RobotKeys.load(directory)
        (directory / name).write_bytes(before)


def test_a_robot_that_would_let_nobody_in_is_refused(directory: Path) -> None:
    (directory / "controller.pub").unlink()
    with pytest.raises(
        ConfigError,
        match=r"expected the public key of a controller \(controller\*.pub\), found none",
    ):
        RobotKeys.load(directory)


def test_without_its_own_key_nobody_is_anybody(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"robot.key: expected a secret key, found none"):
        RobotKeys.load(tmp_path)
    with pytest.raises(ConfigError, match=r"controller.key: expected a secret key, found none"):
        ControllerKeys.load(tmp_path)
