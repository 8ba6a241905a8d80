"""`gatort convert`: recordings, demonstrations and data sets of other programs, into each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gatort.datasets.conversion import to_demonstrations, to_lerobot
from gatort.datasets.mapping import read_mapping
from gatort.datasets.sources import kind_of
from gatort.launch.outputs import require_writable
from gatort.launch.progress import show_convert
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import write_json
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus


def convert(
    sources: list[Path],
    *,
    out: Path,
    mapping: Path | None = None,
    task: str | None = None,
    small_films: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
) -> int:
    """Convert recordings or demonstrations to a LeRobotDataset, and data sets to demonstrations.

    Recordings (.mcap) and folders of demonstrations become a LeRobotDataset v3. A LeRobotDataset v3
    and a file of robomimic (.hdf5) become demonstrations for `gatort train`. Data that does not fit
    is refused with one sentence that names the key.

    Parameters
    ----------
    sources
        Recordings, folders of demonstrations, one LeRobotDataset or one HDF5 file.
    out
        New or empty folder for the result.
    mapping
        TOML file with the keys, units, order and rate of a data set that gatort did not write.
    task
        Name of the task of recordings.
    small_films
        Write pictures with losses, as films that browsers play. By default, every pixel is kept.
    json
        Write the counts to this file as well.
    """
    require_writable(json=json)
    if not sources:
        raise ConfigError("expected at least one source, found none")
    if kind_of(sources[0]) in ("recording", "demonstrations"):
        refuse_ignored("for recordings and demonstrations", mapping=mapping)
        work = partial(to_lerobot, sources, out, task, lossless=not small_films)
    else:
        refuse_ignored("for a data set of another program", task=task, small_films=small_films)
        if len(sources) > 1:
            raise ConfigError(f"expected one data set, found {len(sources)}; convert them apart")
        read = read_mapping(mapping) if mapping is not None else None
        work = partial(to_demonstrations, sources[0], out, read)
    write_json(json, "convert", show_convert(work, json).record)
    return ExitStatus.DONE
