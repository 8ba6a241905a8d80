"""Demonstrations on disk: a folder of episodes and a manifest that describes them.

demos/
├── demonstrations.json     specification, driver, seeds
└── 1000000.npz …           one episode each, named by its seed
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from .episode import Episode
from .errors import DemonstrationError
from .invalid_values import first_error
from .outputs import whole_file
from .regular_file import read_regular
from .spec import PolicySpec, Strict
from .wording import counted

MANIFEST = "demonstrations.json"
PERSON = "a person"
"""Beginning of the `driver` of demonstrations whose labels are a person's."""
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
    """Write the manifest, which marks a folder of demonstrations as complete.

    Raises:
        OutputError: the file cannot be written.
    """
    text = manifest.model_dump_json(indent=2) + "\n"
    with whole_file(directory / MANIFEST) as partial:
        partial.write_text(text, encoding="utf-8")


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


def origin_of(directory: Path) -> str:
    """Return a line that no other demonstrations have: counts, seeds, driver and a hash.

    Raises:
        DemonstrationError: the manifest is missing or invalid.
    """
    manifest = load_manifest(directory)
    content = hashlib.sha256()
    for path in episode_files(directory):
        with path.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    return (
        f"{counted(manifest.episodes, 'episode')} of {counted(manifest.ticks, 'tick')}, "
        f"seeds {manifest.first_seed} to {manifest.last_seed}, {manifest.driver}, "
        f"SHA-256 {content.hexdigest()[:12]}"
    )


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


def _named(found: Any, expected: Any = None) -> str:
    """Return a value for a sentence. Keys and actuators are named."""
    if not isinstance(found, tuple):
        return str(found)
    names = [each.name for each in found]
    same = expected is not None and names == [each.name for each in expected]
    return "others of the same names" if same else ", ".join(names)


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
                f"{directory}: {field}: expected {_named(expected)}, as in the other "
                f"demonstrations, found {_named(found, expected)}; leave the folder out"
            )

    paths = episode_files(directory)
    if len(paths) != manifest.episodes:
        raise DemonstrationError(
            f"{directory}: expected {counted(manifest.episodes, 'episode')}, found {len(paths)}"
        )
    return [Episode.load(path, spec) for path in paths]
