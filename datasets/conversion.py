"""Conversion between gatort's files and data sets of other programs.

Recordings and demonstrations become a LeRobotDataset v3. A LeRobotDataset v3 and robomimic's HDF5
become demonstrations. A result is made in a hidden folder beside its place and renamed at the end.
A refusal leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gatort.runtime.demonstrations import MANIFEST, episode_files
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError
from gatort.runtime.packages import require_packages

from .columns import DataSet, OwnRecord
from .evidence import Evidence
from .fitting import Fitting, fit, require_rate
from .judgement import judge
from .mapping import Mapping, own_mapping
from .sources import kind_of, open_data, open_episodes, open_recordings, specification_of
from .writing import Converted, Counts, Watch, ignore, new_folder, write_demonstrations

FIRST_EPISODES: Final = 8
"""Episodes after which the values are judged, so that a mistake costs no long conversion."""
REFERENCE_EPISODES: Final = 50
"""Episodes of `like` that a data set is compared with."""


def to_lerobot(
    sources: Sequence[Path],
    out: Path,
    task: str | None = None,
    watch: Watch = ignore,
    *,
    lossless: bool = True,
) -> Converted:
    """Write recordings or demonstrations as one LeRobotDataset v3.

    Args:
        sources: recordings, or folders of demonstrations.
        out: new or empty folder.
        task: name of the task; that of the demonstrations by default.
        lossless: keep every pixel, or write films that browsers play.
        watch: called after each episode.

    Raises:
        MissingDependency: a package is absent.
        RecordingError, DemonstrationError, SpecError: a source cannot be read, or they differ.
        OutputError: the folder cannot be written.
    """
    require_packages("a LeRobotDataset", "convert", "pyarrow", "av")
    from .lerobot_writer import LeRobotWriter

    origin = open_episodes(sources, task)
    counts = Counts()
    with new_folder(out) as made:
        writer = LeRobotWriter(made, origin.own, "lossless" if lossless else "small", origin.robot)
        for episode, left_out in origin.episodes:
            writer.add(episode)
            counts.take(episode, left_out)
            watch(counts.episodes)
        writer.close()
    return counts.converted("LeRobotDataset", out, origin.own)


def from_recordings(
    sources: Sequence[Path], out: Path, task: str | None = None, watch: Watch = ignore
) -> Converted:
    """Write recordings as demonstrations.

    Args:
        sources: recordings of `gatort run`.
        out: new or empty folder.
        task: name of the task, if `gatort train` shall roll out.
        watch: called after each episode.

    Raises:
        ConfigError: a source is no recording.
        RecordingError, SpecError: a recording cannot be read, or they differ.
        OutputError: the folder cannot be written.
    """
    for path in sources:
        if (kind := kind_of(path)) != "recording":
            raise ConfigError(f"{path}: expected a recording (.mcap), found {kind}")
    origin = open_recordings(sources, task)
    return write_demonstrations(out, origin.own, origin.episodes, watch)


def to_demonstrations(
    source: Path, out: Path, mapping: Mapping | None = None, watch: Watch = ignore
) -> Converted:
    """Write a LeRobotDataset v3 or a file of robomimic as demonstrations.

    Args:
        source: the data set.
        out: new or empty folder.
        mapping: meaning of its features; none is needed for a data set that gatort wrote.
        watch: called after each episode.

    Raises:
        MissingDependency: a package is absent.
        ConfigError: the mapping does not fit the data set, or is absent and needed.
        DemonstrationError: the data set cannot be read, or its values do not fit.
        OutputError: the folder cannot be written.
    """
    data = open_data(source)
    if mapping is None:
        if data.own is None:
            raise ConfigError(
                f"{source}: expected a mapping, since gatort did not write this data set; name its "
                f"features in a file and give it with --mapping: {_offered(data)}"
            )
        fitting = fit(data, own_mapping(data.own.spec), data.own.spec)
        episodes = ((fitting.episode(raw), 0) for raw in data.episodes(fitting.features))
        return write_demonstrations(out, data.own, episodes, watch)

    spec, task = specification_of(mapping)
    require_rate(data, mapping, spec)
    fitting = fit(data, mapping, spec)
    own = OwnRecord(spec=spec, task=task, driver=f"{kind_of(source)} {source.name}")
    return write_demonstrations(out, own, _judged(data, fitting), watch)


def _offered(data: DataSet) -> str:
    """Return the features of a data set with their shapes."""
    columns = sorted(data.columns.values(), key=lambda column: column.name)
    return ", ".join(f"{each.name} {'×'.join(map(str, each.shape))}" for each in columns)


def _judged(data: DataSet, fitting: Fitting) -> Iterator[tuple[Episode, int]]:
    """Yield the episodes of a data set, judged after the first few and at the end."""
    reference = _reference(fitting)
    evidence = Evidence(fitting)
    for raw in data.episodes(fitting.features):
        episode = fitting.episode(raw)
        evidence.take(episode)
        if evidence.episodes == FIRST_EPISODES:
            judge(evidence, reference, data.path)
        yield episode, 0
    judge(evidence, reference, data.path)


def _reference(fitting: Fitting) -> Evidence | None:
    """Return the values of the demonstrations of `like`, or `None` where it names a bundle."""
    like = fitting.mapping.like
    if like is None or not (like / MANIFEST).exists():
        return None
    evidence = Evidence(fitting)
    for path in episode_files(like)[:REFERENCE_EPISODES]:
        evidence.take(Episode.load(path, fitting.spec))
    return evidence
