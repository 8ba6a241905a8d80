"""A value comes from the flag, else from the launch profile, else from the class."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.launch.options import SHIPPED_PROFILES, LoopOptions, RunOptions, resolve
from gatort.runtime.errors import ConfigError
from gatort.runtime.realtime import RealtimeConfig


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
    profile.write_text("robot = 'pybullet'\nseconds = 3\nthread = 1\n[realtime]\ncpu = [1]\n")
    with pytest.raises(ConfigError) as refused:
        resolve(LoopOptions, None, profile)
    keys, realtime = (
        ", ".join(sorted(kind.model_fields)) for kind in (LoopOptions, RealtimeConfig)
    )
    assert str(refused.value) == (
        f"{profile}: unknown key 'realtime.cpu' (did you mean 'cpus'?); unknown key 'robot'; "
        f"unknown key 'seconds'; "
        f"unknown key 'thread' (did you mean 'threads'?); "
        f"valid keys of realtime are {realtime}; valid keys are {keys}"
    )


@pytest.mark.parametrize("text", ["seconds = nan", "seconds = 0", "seconds = 'long'"])
def test_a_value_that_is_not_valid_is_refused_with_its_key(profile: Path, text: str) -> None:
    profile.write_text(text)
    with pytest.raises(ConfigError, match=r"arm\.toml: seconds: input should be .*, found"):
        resolve(RunOptions, None, profile)


def test_a_profile_that_is_missing_or_not_toml_is_refused_with_the_shipped_names(
    profile: Path,
) -> None:
    with pytest.raises(ConfigError, match="expected a TOML file or one of realtime"):
        resolve(RunOptions, None, Path("nowhere.toml"))
    profile.write_text("seconds = ")
    with pytest.raises(ConfigError, match="cannot be read: Invalid value"):
        resolve(RunOptions, None, profile)


@pytest.mark.parametrize(
    "path", sorted(SHIPPED_PROFILES.glob("*.toml")), ids=lambda path: path.stem
)
def test_a_shipped_profile_is_valid_and_is_found_by_its_name(path: Path) -> None:
    assert resolve(RunOptions, None, Path(path.stem)) == resolve(RunOptions, None, path)
