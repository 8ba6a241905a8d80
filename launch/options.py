"""Launch profiles: the configuration of a command, as flags and as TOML, from one class each.

A value comes from the flag, else from the command's table in the profile, else from the profile's
keys for all commands, else from the class. Each default is written once, in the class.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from gatort.policies.demo import DemoName
from gatort.policies.loading import CPU_ENGINES, PROVIDERS, EngineName, PolicyOptions
from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import of_other_kinds, shown
from gatort.runtime.realtime import RealtimeConfig
from gatort.runtime.regular_file import read_regular
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.config import CameraConfig, CameraName
from gatort.runtime.spec import Seed
from gatort.runtime.takeover.devices import DeviceName
from gatort.runtime.toml_file import parse_toml
from gatort.runtime.wording import counted
from gatort.sim.make import SIMULATORS, RobotName, SimulatorName

from .refusals import NUMBERS, describe, refuse_fields
from .robot_options import RobotOptions
from .serve_options import ServeOptions
from .tag_options import CalibrateOptions, PosesOptions, SensorAddress
from .toml_text import toml_text
from .train_options import TrainOptions

HOME = Path(__file__).parents[1]
SHIPPED_PROFILES = HOME / "launch" / "profiles"
MOST_PROFILE_BYTES = 1 << 16

Profile = TypeVar("Profile", bound=BaseModel)


class LoopOptions(PolicyOptions):
    """A policy driven by the control loop in real time."""

    seed: Seed = 5000
    """Seed of the trial's layout: the same seed gives the same trial."""
    task: str | None = None
    """Task of the simulated arm, for a bundle that names none."""
    realtime: RealtimeConfig = RealtimeConfig()
    """Scheduling of the loop's thread."""


class RunOptions(LoopOptions):
    """One run."""

    robot: RobotName = "mujoco"
    """Robot to drive: a simulator in this process, or the address of a `gatort robot`,
    tcp://HOST:PORT."""
    demo: DemoName | None = None
    """A slow motion instead of a policy: `hold` keeps the joints where they are. `open` does too,
    and opens the hand. `wave` swings the last joint by 5°. `home` brings all to the posture around
    which trials start."""
    seconds: FiniteFloat = Field(default=20.0, gt=0, le=1e6)
    """Longest duration of the run, in seconds."""
    until: Literal["success", "time"] = "success"
    """End of the run: at the task's success, or only when --seconds have passed."""
    takeover: DeviceName | None = None
    """Device with which a person may take the arm from the policy and give it back.

    `keyboard` is that of the terminal. The person drives through the same guard."""
    takeover_device: Path | None = None
    """File of the gamepad or SpaceMouse, such as /dev/input/event7. Default: the first one."""
    keys: Path | None = None
    """Directory with controller.key and robot.pub; needed for a robot beyond this machine."""
    prompt: Path | None = None
    """Demonstration (.npz) whose last frames precede the first observation, as Gato was
    deployed."""

    cameras: Annotated[dict[CameraName, CameraConfig], Parameter(parse=False)] = Field(
        default_factory=dict
    )
    """Cameras of this computer that add pictures to the observations of a robot at an address."""

    sensor: SensorAddress | None = None
    """Address of a sensor on this computer, such as `gatort poses`, which measures the keys that a
    robot at an address lacks. With `--demo home`, the cubes that the arm must not touch."""

    @property
    def simulator(self) -> SimulatorName | None:
        """Simulator in this process, or `None` for a robot at an address."""
        return next((name for name in SIMULATORS if name == self.robot), None)


COMMANDS: dict[str, type[BaseModel]] = {
    "run": RunOptions,
    "profile": LoopOptions,
    "robot": RobotOptions,
    "serve": ServeOptions,
    "train": TrainOptions,
    "poses": PosesOptions,
    "calibrate": CalibrateOptions,
}
"""Commands that take a launch profile, and may have a table of their own in it."""
OWN_KEYS: dict[type[BaseModel], tuple[str, ...]] = {RobotOptions: ("realtime", "cameras")}
"""Keys that mean something else than those for all commands: only the command's table has them."""


def resolve(kind: type[Profile], flags: Profile | None, profile: Path | None) -> Profile:
    """Merge flags, profile file and defaults: a flag overrides the file, the file overrides the
    class.

    Args:
        kind: options class.
        flags: values from the command line; only fields that were set count.
        profile: a TOML file, or the name of a shipped one.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is not valid.
    """
    given = flags.model_dump(exclude_unset=True) if flags is not None else {}
    if profile is None:
        return _validate(kind, given, "the flags")
    path = _profile_path(profile)
    data = _read(path)
    _require_tables(path, data)
    below = _keys_for(kind, data)
    # A flag must not hide a fault of the file.
    _require_own_kinds(path, below, _validate(kind, below, str(path)))
    return _validate(kind, _merge(below, given), str(path))


def _validate(kind: type[Profile], data: dict[str, Any], source: str) -> Profile:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        tables = tuple(COMMANDS) if kind in COMMANDS.values() else ()
        raise ConfigError(describe(error, source, kind, tables)) from error


def _require_own_kinds(path: Path, written: dict[str, Any], read: BaseModel) -> None:
    """Check that numbers and booleans are written as such.

    Raises:
        ConfigError: a value is of another kind.
    """
    for key, value, became in of_other_kinds(written, read.model_dump()):
        raise ConfigError(f"{path}: {key}: expected {NUMBERS[type(became)]}, found {shown(value)}")


def _require_tables(path: Path, data: dict[str, Any]) -> None:
    """Check the keys outside the tables that are tables themselves.

    Raises:
        ConfigError: the name of a command has another value, or a key is meant for one command.
    """
    keys_too = {key for each in COMMANDS.values() for key in each.model_fields}
    for name in COMMANDS:
        found = data.get(name, {})
        if not isinstance(found, dict) and not (isinstance(found, str) and name in keys_too):
            raise ConfigError(f"{path}: {name}: expected a table [{name}], found {shown(found)}")
    for kind, keys in OWN_KEYS.items():
        for key in keys:
            if not isinstance(data.get(key, {}), dict):
                raise ConfigError(
                    f"{path}: {key}: expected a table, found {shown(data[key])}; "
                    f"for `gatort {_command_of(kind)}`, write it below [{_command_of(kind)}]"
                )


def refuse_unused_by_engine(typed: PolicyOptions | None, engine: EngineName) -> None:
    """Refuse typed flags that an engine does not heed."""
    if engine not in PROVIDERS:
        refuse_fields(f"with --engine {engine}", typed, "spinning")
        if engine not in CPU_ENGINES:
            refuse_fields(f"with --engine {engine}", typed, "threads")


def refuse_unused_by_board(typed: Board | None, kind: str) -> None:
    """Refuse typed flags that are for the other kind of board."""
    others = ("tag",) if kind == "charuco" else ("columns", "rows", "square_m")
    refuse_fields(f"with --board.kind {kind}", typed, *others, within="board")


def config_text(options: BaseModel) -> str:
    """Return options as a launch profile that gives the same options again."""
    return toml_text(options.model_dump(exclude_none=True), _command_of(type(options)) or "")


def _command_of(kind: type[BaseModel]) -> str | None:
    return next((name for name, each in COMMANDS.items() if each is kind), None)


def _keys_for(kind: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Return a profile's keys for one command.

    Keys of other commands are left out. A key that no command has stays, and is refused.
    """
    tables = {name: data[name] for name in COMMANDS if isinstance(data.get(name), dict)}
    known = {key for each in COMMANDS.values() for key in each.model_fields}
    others = known - kind.model_fields.keys() | {*OWN_KEYS.get(kind, ())}
    shared = {key: value for key, value in data.items() if key not in tables.keys() | others}
    return _merge(shared, tables.get(_command_of(kind) or "", {}))


def _profile_path(profile: Path) -> Path:
    shipped = SHIPPED_PROFILES / f"{profile}.toml"
    if profile.is_file() or not shipped.is_file():
        return profile
    return shipped


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in SHIPPED_PROFILES.glob("*.toml")))
        raise ConfigError(
            f"no launch profile {path}: expected a TOML file or the name of a shipped profile "
            f"({names}), found neither"
        )
    content = read_regular(path, "a launch profile", ConfigError, MOST_PROFILE_BYTES)
    try:
        found: dict[str, Any] = _expand(parse_toml(content), "")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"launch profile {path} cannot be read: expected text in UTF-8, found another byte "
            f"after {counted(error.start, 'byte')}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"launch profile {path} cannot be read: expected TOML, found {_toml_fault(str(error))}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"launch profile {path} cannot be read: {error}") from error
    except RecursionError as error:
        raise ConfigError(
            f"launch profile {path} cannot be read: expected a few levels of lists and tables, "
            "found hundreds"
        ) from error
    return found


def _toml_fault(message: str) -> str:
    """Return the fault that the TOML reader names, in plain words, and its place."""
    place = message.rpartition("(")[2].rstrip(")")
    twice = message.startswith(("Cannot overwrite", "Cannot declare", "Duplicate"))
    return f"{'a key or table given twice' if twice else 'something else'} {place}".strip()


def _expand(value: Any, key: str) -> Any:
    """Return a profile's values with `~/` at the beginning of a text expanded, as a shell does.

    Raises:
        ValueError: a text is empty, which as a path would be this folder.
    """
    if isinstance(value, dict):
        return {name: _expand(each, f"{key}.{name}".strip(".")) for name, each in value.items()}
    if isinstance(value, list):
        return [_expand(each, key) for each in value]
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{key}: expected a text, found an empty one")
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    return value


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merge(below[key], above[key])
    return merged
