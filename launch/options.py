"""Launch profiles: what a run is configured with, as flags and as TOML, from one class each.

A value comes from the flag, else from the profile file, else from the class, where each default is written once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from gatort.policies.loading import PolicyOptions
from gatort.runtime.errors import ConfigError
from gatort.runtime.realtime import RealtimeConfig
from gatort.sim.make import SimulatorName

HOME = Path(__file__).parents[1]
SHIPPED_PROFILES = HOME / "launch" / "profiles"

Profile = TypeVar("Profile", bound=BaseModel)
SIMULATORS: tuple[SimulatorName, ...] = get_args(SimulatorName)


def _known_robot(robot: str) -> str:
    if robot not in SIMULATORS and not robot.startswith("tcp://"):
        choices = f"expected {', '.join(SIMULATORS)} or an address such as tcp://127.0.0.1:5555"
        raise PydanticCustomError("robot", "{choices}", {"choices": choices})
    return robot


class LoopOptions(PolicyOptions):
    """A policy driven by the control loop in real time."""

    seed: NonNegativeInt = 5000
    """Draws the layout: the same seed gives the same trial."""
    realtime: RealtimeConfig = RealtimeConfig()
    """Scheduling of the loop's thread."""


class RunOptions(LoopOptions):
    """One run."""

    robot: Annotated[str, AfterValidator(_known_robot)] = "mujoco"
    """Which robot to drive: a simulated one in this process, or the address at which `gatort robot` listens."""
    seconds: FiniteFloat = Field(default=20.0, gt=0, le=1e6)
    """Longest run."""
    until: Literal["success", "time"] = "success"
    """Whether the run ends when the task succeeds, or only when its time is up."""
    keys: Path | None = None
    """Directory with controller.key and robot.pub; needed for a robot beyond this machine."""
    prompt: Path | None = None
    """An episode (.npz) whose last frames stand before the first observation: Gato's deployment by demonstration."""

    @property
    def simulator(self) -> SimulatorName | None:
        """The robot that runs in this process; none when it is at the other end of a wire."""
        return next((name for name in SIMULATORS if name == self.robot), None)


def resolve(kind: type[Profile], flags: Profile | None, profile: Path | None) -> Profile:
    """Put the flags that were given over the profile file, and both over the class's defaults.

    Args:
        kind: the options class.
        flags: what the command line gave; only the fields that were set count.
        profile: a TOML file, or the name of a shipped one.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is not valid; names the key and the choices.
    """
    given = flags.model_dump(exclude_unset=True) if flags is not None else {}
    path = _profile_path(profile) if profile is not None else None
    try:
        return kind.model_validate(_merge(_read(path), given))
    except ValidationError as error:
        raise ConfigError(describe(error, str(path) if path else "the flags", kind)) from error


def describe(error: ValidationError, source: str, kind: type[BaseModel] | None = None) -> str:
    """Turn pydantic's report into one sentence: the key, what was expected, what was found, the valid choices."""
    found = error.errors()
    places = dict.fromkeys(
        details["loc"][:-1] for details in found if details["type"] == "extra_forbidden"
    )
    parts = [_describe_one(details, kind) for details in found] + [
        _valid_keys(kind, place) for place in places
    ]
    return f"{source}: {'; '.join(parts)}"


def _describe_one(details: ErrorDetails, kind: type[BaseModel] | None) -> str:
    key = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        return unknown("key", key, _keys(kind, details["loc"][:-1]))
    return f"{key}: {finding(details)}"


def _valid_keys(kind: type[BaseModel] | None, place: tuple[int | str, ...]) -> str:
    where = f" of {'.'.join(map(str, place))}" if place else ""
    return f"valid keys{where} are {', '.join(_keys(kind, place))}"


def finding(details: ErrorDetails) -> str:
    """What pydantic expected in one place, and what it found there."""
    expected = details["msg"]
    return f"{expected[:1].lower()}{expected[1:]}, found {details['input']!r}"


def unknown(what: str, name: str, valid: Sequence[str]) -> str:
    """Say that a name is unknown, and which valid one is the closest."""
    close = get_close_matches(name.rpartition(".")[2], valid, n=1)
    return f"unknown {what} {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _keys(kind: type[BaseModel] | None, location: tuple[int | str, ...]) -> list[str]:
    """Keys that are valid at a place inside a nested options class."""
    for part in location:
        field = kind.model_fields.get(str(part)) if kind is not None else None
        kind = (
            field.annotation if field is not None and isinstance(field.annotation, type) else None
        )
    return sorted(kind.model_fields if kind is not None else ())


def _profile_path(profile: Path) -> Path:
    shipped = SHIPPED_PROFILES / f"{profile}.toml"
    if profile.is_file() or not shipped.is_file():
        return profile
    return shipped


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in SHIPPED_PROFILES.glob("*.toml")))
        raise ConfigError(
            f"no launch profile {path}: expected a TOML file or one of {names}"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"launch profile {path} cannot be read: {error}") from error


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merge(below[key], above[key])
    return merged
