"""Demonstrations on disk: a folder of episodes and a manifest that describes them.

demos/
├── demonstrations.json     specification, driver, seeds
└── 1000000.npz …           one episode each, named by its seed
"""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from .bundle import first_error
from .episode import Episode
from .errors import DemonstrationError
from .regular_file import read_regular
from .spec import PolicySpec, Strict

MANIFEST = "demonstrations.json"
MOST_BYTES = 1 << 18
"""Largest manifest."""


class DemonstrationManifest(Strict):
    """Description of a folder of demonstrations."""

    task: str | None = None
    """Name of the task in `gatort.sim.tasks`. `None` for demonstrations of no simulated task."""
    spec: PolicySpec
    """Observations and actuators of every episode."""
    driver: str
    """Source of the actions: the expert, or a policy whose ticks the expert labelled."""
    seconds: PositiveFloat
    """Longest episode. An episode that had not succeeded by then was ended. s"""
    first_seed: NonNegativeInt
    """Layout seed of the first episode."""
    last_seed: NonNegativeInt
    """Layout seed of the last episode."""
    episodes: PositiveInt
    """Number of episodes."""
    successes: NonNegativeInt
    """Number of episodes in which the task succeeded."""
    ticks: PositiveInt
    """Number of ticks in all episodes together."""


def write_manifest(directory: Path, manifest: DemonstrationManifest) -> None:
    """Write the manifest, which marks a folder of demonstrations as complete."""
    text = manifest.model_dump_json(indent=2) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def load_manifest(directory: Path) -> DemonstrationManifest:
    """Read the manifest of a folder of demonstrations.

    Raises:
        DemonstrationError: the manifest is missing or invalid.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise DemonstrationError(
            f"{directory}: expected {MANIFEST} beside the episodes; make some with `gatort demos`"
        )

    content = read_regular(path, "a description of episodes", DemonstrationError, MOST_BYTES)
    try:
        return DemonstrationManifest.model_validate_json(content)
    except ValidationError as error:
        raise DemonstrationError(f"{path}: {first_error(error, 'the file')}") from error


def episode_files(directory: Path) -> list[Path]:
    """Return the episode files of a folder, in the order of their seeds. Hidden files are ignored.

    Raises:
        DemonstrationError: an NPZ file is not named by a seed.
    """
    paths = [path for path in directory.glob("*.npz") if not path.name.startswith(".")]
    for path in paths:
        if not (path.stem.isascii() and path.stem.isdecimal()):
            raise DemonstrationError(
                f"{path}: expected episodes named by their seeds, such as 1000000.npz, "
                "found another name; move the file out of the folder"
            )
    return sorted(paths, key=lambda path: int(path.stem))


def load_episodes(directory: Path, spec: PolicySpec) -> list[Episode]:
    """Read every episode of a folder, in the order of their seeds.

    Raises:
        DemonstrationError: the specification differs, a file is missing, or a file cannot be read.
    """
    manifest = load_manifest(directory)
    for field in ("observations", "actuators", "control_hz", "action_delay_ms"):
        found = getattr(manifest.spec, field)
        expected = getattr(spec, field)
        if found != expected:
            raise DemonstrationError(
                f"{directory}: {field} differ: expected {expected}, found {found}"
            )

    paths = episode_files(directory)
    if len(paths) != manifest.episodes:
        raise DemonstrationError(
            f"{directory}: expected {manifest.episodes} episodes, found {len(paths)}"
        )
    return [Episode.load(path, spec) for path in paths]
