"""Sources of a conversion: their kind, their episodes, their specification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gatort.runtime.bundle import MANIFEST_FILE, load_manifest
from gatort.runtime.demonstrations import MANIFEST, episode_files
from gatort.runtime.demonstrations import load_manifest as load_demonstrations
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.runtime.packages import require_packages
from gatort.runtime.spec import PolicySpec
from gatort.sim.tasks import task_named

from .columns import DataSet, OwnRecord
from .lerobot_layout import INFO
from .mapping import Mapping
from .recordings import common_spec, read_episode

ConvertedKind = Literal["recording", "demonstrations", "LeRobotDataset", "HDF5"]
ENDINGS: Final = (".hdf5", ".h5")
"""Endings of the names of HDF5 files."""


def kind_of(path: Path) -> ConvertedKind:
    """Return the form of a source.

    Raises:
        ConfigError: it cannot be converted.
    """
    if path.is_dir():
        if (path / MANIFEST).exists():
            return "demonstrations"
        if (path / INFO).exists():
            return "LeRobotDataset"
        raise ConfigError(
            f"{path}: expected {MANIFEST} (demonstrations) or {INFO} (LeRobotDataset v3) in the "
            "folder, found neither"
        )
    if path.suffix == ".mcap":
        return "recording"
    if path.suffix in ENDINGS:
        return "HDF5"
    found = "a file of another name" if path.exists() else "no such file"
    raise ConfigError(
        f"{path}: expected a recording (.mcap), a file of robomimic (.hdf5), demonstrations or a "
        f"LeRobotDataset, found {found}"
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Episodes of gatort, and their description."""

    own: OwnRecord
    robot: str | None
    episodes: Iterator[tuple[Episode, int]]


def open_episodes(sources: Sequence[Path], task: str | None) -> Origin:
    """Return the episodes of recordings, or of demonstrations."""
    kinds = {kind_of(path) for path in sources}
    if kinds == {"recording"}:
        return open_recordings(sources, task)
    if kinds != {"demonstrations"}:
        raise ConfigError(
            f"expected recordings or demonstrations, found {' and '.join(sorted(kinds))} together; "
            "convert them one kind at a time"
        )
    manifests = [load_demonstrations(path) for path in sources]
    tasks = {manifest.task for manifest in manifests} | ({task} if task else set())
    if len(tasks) > 1:
        raise ConfigError(
            f"expected demonstrations of one task, found {', '.join(sorted(map(str, tasks)))}"
        )
    first = manifests[0]
    for path, manifest in zip(sources, manifests, strict=True):
        if manifest.spec != first.spec:
            raise DemonstrationError(
                f"{path}: expected the specification of {sources[0]}, found another; convert the "
                "two apart"
            )
    own = OwnRecord(
        spec=first.spec,
        task=task or first.task,
        driver="; ".join(dict.fromkeys(manifest.driver for manifest in manifests)),
    )
    files = [file for path in sources for file in episode_files(path)]
    return Origin(own, None, ((Episode.load(file, first.spec), 0) for file in files))


def open_recordings(sources: Sequence[Path], task: str | None) -> Origin:
    """Return the episodes of recordings, numbered from 0.

    Raises:
        ConfigError: there is no such task.
        RecordingError: two recordings differ, or one is of a robot alone.
    """
    if task is not None:
        task_named(task)
    spec, robot = common_spec(sources)
    recorded = (read_episode(path, spec, seed) for seed, path in enumerate(sources))
    own = OwnRecord(spec=spec, task=task, driver=f"recordings of {robot}")
    return Origin(own, robot, ((each.episode, each.left_out) for each in recorded))


def open_data(path: Path) -> DataSet:
    """Open a data set of another program.

    Raises:
        MissingDependency: a package is absent.
        ConfigError: it is of another kind.
        DemonstrationError: it is damaged.
    """
    match kind_of(path):
        case "LeRobotDataset":
            require_packages("a LeRobotDataset", "convert", "pyarrow", "av")
            from .lerobot_reader import LeRobotDataSet

            return LeRobotDataSet(path)
        case "HDF5":
            require_packages("a file of robomimic", "convert", "h5py", "av")
            from .robomimic import RobomimicFile

            return RobomimicFile(path)
        case kind:
            raise ConfigError(f"{path}: expected a LeRobotDataset or an HDF5 file, found {kind}")


def specification_of(mapping: Mapping) -> tuple[PolicySpec, str | None]:
    """Return the specification that a mapping names, and the name of the task.

    Raises:
        ConfigError: there is no such task.
        DemonstrationError, BundleError: `like` cannot be read.
    """
    if mapping.specification is not None:
        return mapping.specification, mapping.task
    if mapping.like is not None and (mapping.like / MANIFEST_FILE).exists():
        bundle = load_manifest(mapping.like)
        return bundle.spec, mapping.task or bundle.task
    if mapping.like is not None:
        manifest = load_demonstrations(mapping.like)
        return manifest.spec, mapping.task or manifest.task
    task = task_named(mapping.task or "")
    named = (each for each in task.interfaces.values() if _names(each) == set(mapping.keys))
    return next(named, task.interface), task.name


def _names(spec: PolicySpec) -> set[str]:
    return {key.name for key in spec.observations}
