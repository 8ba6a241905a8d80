"""Layout of a LeRobotDataset v3: names of files and features, and the form of `meta/info.json`.

    meta/info.json          rate, features, counts
    meta/stats.json         statistics of each feature
    meta/tasks.parquet      text of each task
    meta/episodes/…         one row an episode: its place in the files below, its statistics
    meta/gatort.json        specification, task and driver; LeRobot ignores it
    data/…                  one row a tick
    videos/KEY/…            pictures as mp4, episodes one after another

Written from the format's description in `lerobot` 0.4.4 (codebase version v3.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from gatort.runtime.errors import DemonstrationError
from gatort.runtime.invalid_values import first_error
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import MOST_SIDE, ObservationKey, PolicySpec

from .columns import Column, OwnRecord

VERSION: Final = "v3.0"
INFO: Final = "meta/info.json"
OWN: Final = "meta/gatort.json"
STATISTICS: Final = "meta/stats.json"
TASKS: Final = "meta/tasks.parquet"
EPISODES: Final = "meta/episodes"
DATA_PATH: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_A_CHUNK: Final = 1000
DATA_MB: Final = 100
VIDEO_MB: Final = 200

STATE: Final = "observation.state"
"""Every key of fractions, one after another."""
PICTURES: Final = "observation.images."
ACTION: Final = "action"
EXPERT_ACTION: Final = "expert_action"
PLACES: Final = "places"
LABELLED: Final = "labelled"
"""True where `expert_action` is to be learned, in runs in which a person took over."""
STAMP: Final = "stamp_ns"
"""True time at which an observation was read. `timestamp` is the tick's number times the period."""
SUCCEEDED: Final = "next.success"
DONE: Final = "next.done"

_MOST_INFO_BYTES: Final = 1 << 24


class Feature(BaseModel):
    """One feature in `meta/info.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dtype: str
    """`video`, `image`, `string`, or a NumPy dtype."""
    shape: tuple[int, ...] = Field(max_length=8)
    """Shape of one tick's values."""
    names: Any = None
    """Names of the values: a list, a table of one list, or null."""

    @property
    def value_names(self) -> tuple[str, ...]:
        """Name of each value of a row; empty if it has none."""
        found = self.names
        if isinstance(found, dict) and len(found) == 1:
            found = next(iter(found.values()))
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return tuple(found)
        return ()


class Info(BaseModel):
    """`meta/info.json`, as far as gatort reads it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    codebase_version: str
    """Version of the format."""
    fps: PositiveFloat
    """Ticks per second."""
    total_episodes: PositiveInt
    """Number of episodes."""
    total_frames: PositiveInt
    """Number of ticks."""
    data_path: str
    """Pattern of the names of data files."""
    video_path: str | None = None
    """Pattern of the names of films."""
    features: dict[str, Feature] = Field(max_length=1000)
    """Features by name."""


def read_info(folder: Path) -> Info:
    """Return the description of a LeRobotDataset v3.

    Raises:
        DemonstrationError: it is damaged, of another version, or names other files than v3 has.
    """
    path = folder / INFO
    content = read_regular(path, "a description", DemonstrationError, _MOST_INFO_BYTES)
    try:
        version = json.loads(content).get("codebase_version")
        if version != VERSION:
            raise DemonstrationError(
                f"{path}: codebase_version: expected {VERSION}, found {version!r}; "
                "convert the data set with lerobot's own script for that version first"
            )
        info = Info.model_validate_json(content)
    except ValidationError as error:
        raise DemonstrationError(f"{path}: {first_error(error, 'the file')}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise DemonstrationError(f"{path}: expected an object in JSON, found {error}") from error

    # A pattern may name any file, and could reach outside the folder.
    for field, expected in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
        found = getattr(info, field)
        if found not in (expected, None):
            raise DemonstrationError(f"{path}: {field}: expected {expected}, found {found!r}")
    return info


def read_own(folder: Path) -> OwnRecord | None:
    """Return gatort's own description, or `None` for a data set of another program.

    Raises:
        DemonstrationError: the file is damaged.
    """
    path = folder / OWN
    if not path.exists():
        return None
    content = read_regular(path, "gatort's description", DemonstrationError, _MOST_INFO_BYTES)
    try:
        return OwnRecord.model_validate_json(content)
    except ValidationError as error:
        raise DemonstrationError(f"{path}: {first_error(error, 'the file')}") from error


def columns_of(info: Info) -> dict[str, Column]:
    """Return the features that gatort can read. Text and pictures of other depths are none."""
    found = {}
    for name, feature in info.features.items():
        # A film's folder has the name of its feature.
        if "/" in name or any(not 1 <= side <= MOST_SIDE for side in feature.shape):
            continue
        if feature.dtype == "video":
            if len(feature.shape) == 3 and feature.shape[2] == 3:
                found[name] = Column(name, feature.shape, is_picture=True)
        elif feature.dtype not in ("image", "string"):
            names = feature.value_names
            kept = names if len(names) == feature.shape[0] else ()
            found[name] = Column(name, feature.shape, is_picture=False, names=kept)
    return found


def is_fraction(key: ObservationKey) -> bool:
    """Return true for a key that is a part of `observation.state`."""
    return key.dtype == "float32"


def feature_of(key: ObservationKey) -> str:
    """Return the feature that holds a key. LeRobot allows no slash in a feature's name."""
    if is_fraction(key):
        return STATE
    dotted = key.name.replace("/", ".")
    if key.encoding == "image":
        return f"{PICTURES}{dotted.removeprefix('camera.')}"
    return f"observation.{dotted}"


def state_names(spec: PolicySpec) -> list[str]:
    """Return the name of each value of `observation.state`: a key, and its index if it has many."""
    names = []
    for key in spec.observations:
        if is_fraction(key):
            many = key.size > 1
            names += [f"{key.name}/{index}" if many else key.name for index in range(key.size)]
    return names
