"""A value comes from the flag, else from the launch profile, else from the class."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from gatort.launch import cli
from gatort.launch.options import (
    COMMANDS,
    SHIPPED_PROFILES,
    LoopOptions,
    RunOptions,
    config_text,
    resolve,
)
from gatort.launch.robot_options import RobotOptions
from gatort.launch.train_options import TrainOptions
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.errors import ConfigError
from gatort.runtime.realtime import RealtimeConfig
from gatort.runtime.robots.cameras.config import CameraConfig


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "arm.toml"
    path.write_text(
        "seconds = 7.0\nseed = 3\nthreads = 1\n[realtime]\nfifo_priority = 7\nlock_memory = true\n"
    )
    return path


def test_without_flags_and_profile_every_value_is_the_default_of_the_class() -> None:
    assert resolve(RunOptions, None, None) == RunOptions()


def test_a_flag_overrides_the_profile_and_the_profile_overrides_the_default(profile: Path) -> None:
    flags = RunOptions(seed=9, realtime=RealtimeConfig(fifo_priority=8))
    resolved = resolve(RunOptions, flags, profile)
    assert (resolved.seed, resolved.seconds, resolved.temperature) == (
        9,
        7.0,
        RunOptions().temperature,
    )
    assert (resolved.realtime.fifo_priority, resolved.realtime.lock_memory) == (8, True)


def test_an_unknown_key_is_refused_with_the_closest_and_all_valid_ones(profile: Path) -> None:
    profile.write_text("[realtime]\nlock_memry = true\n")
    with pytest.raises(
        ConfigError,
        match=r"arm\.toml: unknown key 'realtime\.lock_memry' \(did you mean 'lock_memory'\?\)",
    ) as refused:
        resolve(RunOptions, None, profile)
    assert all(name in str(refused.value) for name in RealtimeConfig.model_fields)


def test_many_unknown_keys_are_each_named_and_the_valid_ones_listed_once(profile: Path) -> None:
    profile.write_text("colour = 'red'\nthread = 1\n[realtime]\ncpu = [1]\n")
    with pytest.raises(ConfigError) as refused:
        resolve(LoopOptions, None, profile)
    keys, realtime = (
        ", ".join(sorted(kind.model_fields)) for kind in (LoopOptions, RealtimeConfig)
    )
    assert str(refused.value) == (
        f"{profile}: unknown key 'realtime.cpu' (did you mean 'cpus'?); unknown key 'colour'; "
        f"unknown key 'thread' (did you mean 'threads'?); "
        f"valid keys of realtime are {realtime}; valid keys are {keys}"
    )


ONE_ARM = """
threads = 1
seed = 3
keys = "keys"

[realtime]
fifo_priority = 7

[run]
robot = "tcp://127.0.0.1:5555"
seed = 4

[profile]
engine = "native"

[robot]
bind = "tcp://127.0.0.1:0"
realtime = true

[robot.link]
delay_ms = 3.0

[train]
steps = 7
"""


def test_one_file_serves_every_command_of_one_arm(profile: Path) -> None:
    profile.write_text(ONE_ARM)
    run, timed = resolve(RunOptions, None, profile), resolve(LoopOptions, None, profile)
    assert (run.threads, run.seed, run.robot) == (1, 4, "tcp://127.0.0.1:5555")
    assert (run.realtime.fifo_priority, run.engine, run.keys) == (7, "onnx", Path("keys"))
    assert (timed.threads, timed.seed, timed.engine) == (1, 3, "native")

    arm = resolve(RobotOptions, RobotOptions(seed=9), profile)
    assert (arm.bind, arm.realtime, arm.seed, arm.keys) == (
        "tcp://127.0.0.1:0",
        True,
        9,
        Path("keys"),
    )
    assert arm.link.delay_ms == 3.0
    assert resolve(TrainOptions, None, profile).steps == 7


def test_the_robot_of_a_run_may_stand_outside_the_tables(profile: Path) -> None:
    profile.write_text('robot = "pybullet"\nseconds = 3.0\n')
    assert resolve(RunOptions, None, profile).robot == "pybullet"
    assert resolve(LoopOptions, None, profile) == LoopOptions()


@pytest.mark.parametrize("kind", COMMANDS.values(), ids=list(COMMANDS))
def test_a_key_that_no_command_has_is_refused_by_each(kind: type[BaseModel], profile: Path) -> None:
    profile.write_text("treads = 1\n")
    with pytest.raises(ConfigError, match=r"arm\.toml: unknown key 'treads'"):
        resolve(kind, None, profile)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_of_another_command_in_a_command_s_table_is_refused(
    command: str, profile: Path
) -> None:
    kind = COMMANDS[command]
    key = next(name for name in ("prompt", "bind") if name not in kind.model_fields)
    profile.write_text(f"[{command}]\n{key} = 'x'\n")
    with pytest.raises(ConfigError, match=f"unknown key '{key}'"):
        resolve(kind, None, profile)


@pytest.mark.parametrize("kind", COMMANDS.values(), ids=list(COMMANDS))
def test_the_printed_configuration_gives_the_same_options_again(
    kind: type[BaseModel], profile: Path
) -> None:
    profile.write_text(ONE_ARM)
    options = resolve(kind, None, profile)
    printed = profile.with_name("printed.toml")
    printed.write_text(config_text(options))
    assert resolve(kind, None, printed) == options


def test_texts_with_quotes_controls_and_cameras_are_printed_so_that_they_are_read_again(
    profile: Path,
) -> None:
    camera = CameraConfig(source='file:a "b" \\ \x7f\t é.png', crop=(0, 1, 2, 3))
    options = RunOptions(bundle=Path("a 'b'"), cameras={"front": camera}, seconds=1e-7)
    profile.write_text(config_text(options))
    assert resolve(RunOptions, None, profile) == options


@pytest.mark.parametrize(
    "command", [["run"], ["profile"], ["robot", "mujoco"], ["train", "d", "--out", "o"]]
)
def test_print_config_prints_toml_and_does_nothing_else(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, "--print-config"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed.keys() == {command[0]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[cameras.a]\nsource = 'file:a.png'\ncrop = 3",
            "cameras.a.crop: expected a list, found 3",
        ),
        ("until = 'never'", "until: expected success or time, found 'never'"),
        ("realtime.cpus = []", "realtime.cpus: expected at least 1 value, found []"),
    ],
)
def test_a_wrong_value_is_refused_in_gatort_s_own_words(
    text: str, sentence: str, profile: Path
) -> None:
    profile.write_text(text)
    with pytest.raises(ConfigError) as refused:
        resolve(RunOptions, None, profile)
    assert str(refused.value) == f"{profile}: {sentence}"


def test_an_unknown_key_in_json_is_answered_with_the_valid_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["run", '--realtime={"core": 1}']) == 2
    assert capsys.readouterr().err == (
        "gatort: --realtime: expected keys among cpus, fifo_priority, lock_memory, "
        "found '{\"core\": 1}'\n"
    )


def test_an_empty_text_in_a_profile_is_refused_with_its_key(profile: Path) -> None:
    profile.write_text("[run]\nbundle = ''")
    with pytest.raises(ConfigError, match=r"run\.bundle: expected a text, found an empty one"):
        resolve(RunOptions, None, profile)


@pytest.mark.parametrize("text", ["seconds = nan", "seconds = 0", "seconds = 'long'"])
def test_a_value_that_is_not_valid_is_refused_with_its_key(profile: Path, text: str) -> None:
    profile.write_text(text)
    with pytest.raises(ConfigError, match=r"arm\.toml: seconds: expected (a|more)"):
        resolve(RunOptions, None, profile)


def test_a_profile_that_is_missing_or_not_toml_is_refused_with_the_shipped_names(
    profile: Path,
) -> None:
    with pytest.raises(
        ConfigError, match=r"or the name of a shipped profile \(realtime\), found neither"
    ):
        resolve(RunOptions, None, Path("nowhere.toml"))
    profile.write_text("seconds = ")
    with pytest.raises(ConfigError, match="expected TOML, found something else at end of document"):
        resolve(RunOptions, None, profile)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            b"seconds = 1\nseconds = 2\n",
            "expected TOML, found a key or table given twice at line 2, column 12",
        ),
        (b"[run]\n[run]\n", "expected TOML, found a key or table given twice at line 2, column 5"),
        (b"seed = \xff\n", "expected text in UTF-8, found another byte after 7 bytes"),
    ],
)
def test_a_fault_of_a_profile_is_named_in_plain_words(
    profile: Path, content: bytes, found: str
) -> None:
    profile.write_bytes(content)
    with pytest.raises(ConfigError, match=found):
        resolve(RunOptions, None, profile)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("run = 3", "run: expected a table [run], found 3"),
        ("[[run]]\nseed = 3", 'run: expected a table [run], found [{"seed": 3}]'),
        ("[runn]\nseed = 3", "unknown key 'runn' (did you mean 'run'?)"),
        ("realtime = true", "realtime: expected a table, found true; for `gatort robot`, write it"),
        ("cameras = 'a.toml'", "cameras: expected a table, found 'a.toml'; for `gatort robot`"),
    ],
)
@pytest.mark.parametrize("kind", [RunOptions, RobotOptions])
def test_a_table_that_is_none_or_misspelt_is_refused_by_each_command(
    kind: type[BaseModel], text: str, sentence: str, profile: Path
) -> None:
    profile.write_text(text)
    with pytest.raises(ConfigError) as refused:
        resolve(kind, None, profile)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("text", ["seconds = nan", "[run]\nseconds = 'long'"])
def test_a_flag_does_not_hide_a_fault_of_the_profile(text: str, profile: Path) -> None:
    profile.write_text(text)
    with pytest.raises(ConfigError, match="seconds: expected a"):
        resolve(RunOptions, RunOptions(seconds=3), profile)


def test_a_camera_without_a_source_is_refused_by_the_missing_key(profile: Path) -> None:
    profile.write_text("[cameras.front]\nloop = true\n")
    sentence = r"arm\.toml: cameras\.front\.source: expected a value, found none$"
    with pytest.raises(ConfigError, match=sentence):
        resolve(RunOptions, None, profile)


@pytest.mark.parametrize(
    "path", sorted(SHIPPED_PROFILES.glob("*.toml")), ids=lambda path: path.stem
)
def test_a_shipped_profile_is_valid_and_is_found_by_its_name(path: Path) -> None:
    assert resolve(RunOptions, None, Path(path.stem)) == resolve(RunOptions, None, path)


def test_a_profile_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xef\xbb\xbfseconds = 3.0\n")
    assert resolve(RunOptions, None, path).seconds == 3.0


def test_a_tilde_in_a_profile_is_this_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path = tmp_path / "p.toml"
    path.write_text('bundle = "~/bundle"\n[cameras.front]\nsource = "file:~/clip.mp4"\n')
    options = resolve(RunOptions, None, path)
    assert options.bundle == Path("/home/someone/bundle")
    assert options.cameras["front"].file == Path("/home/someone/clip.mp4")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a = " + "[\n" * 2000, "expected a few levels of lists and tables, found hundreds"),
        (".".join("a" * 20_000) + " = 1", "expected lines of at most 1000 characters"),
        ("seconds = " + "9" * 5000, "expected lines of at most 1000 characters"),
        ("seconds = inf", "finite number"),
        ("#" * 100_000, "expected a launch profile of at most 65536 bytes, found 100000"),
    ],
    ids=["deep", "dotted", "digits", "infinite", "large"],
)
def test_a_profile_beyond_its_bounds_is_refused_in_one_sentence(
    tmp_path: Path, content: str, found: str
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"p\.toml.*{found}"):
        resolve(RunOptions, None, path)


def test_a_pipe_is_no_launch_profile_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.toml")
    with pytest.raises(ConfigError, match="expected a launch profile, found a pipe"):
        resolve(RunOptions, None, tmp_path / "p.toml")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("seconds = true", "seconds: expected a number, found true"),
        ('seconds = "3"', "seconds: expected a number, found '3'"),
        ('[realtime]\nfifo_priority = "7"', "realtime.fifo_priority: expected a whole number"),
        ("[realtime]\ncpus = [true]", "realtime.cpus.0: expected a whole number, found true"),
        ("[realtime]\nlock_memory = 1", "realtime.lock_memory: expected true or false, found 1"),
        ('spinning = "yes"', "spinning: expected true or false, found 'yes'"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_not_converted(
    profile: Path, line: str, sentence: str
) -> None:
    profile.write_text(line + "\n")
    with pytest.raises(ConfigError) as refused:
        resolve(RunOptions, None, profile)
    assert f"{profile}: {sentence}" in str(refused.value)


def test_a_training_may_start_from_a_shipped_policy_by_its_name() -> None:
    assert resolve(TrainOptions, TrainOptions.model_validate({"start": "stack"}), None).start == (
        SHIPPED_BUNDLE
    )
