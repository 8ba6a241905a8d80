"""Episodes written as a LeRobotDataset v3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError

from . import lerobot_layout as layout
from . import statistics
from .columns import OwnRecord
from .films import FilmQuality, FilmWriter
from .lerobot_meta import task_text, write_meta

_MB: Final = 1 << 20


@dataclass(slots=True)
class _File:
    """File under way: its number among all of its kind, and its writer once it was opened."""

    number: int = 0
    writer: Any = None
    bytes: int = 0

    @property
    def place(self) -> dict[str, int]:
        """Numbers that LeRobot makes the file's name of."""
        chunk, file = divmod(self.number, layout.FILES_A_CHUNK)
        return {"chunk_index": chunk, "file_index": file}


@dataclass(slots=True)
class _Totals:
    """Ticks and statistics of all episodes so far."""

    ticks: int = 0
    columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    levels: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class LeRobotWriter:
    """Writes episodes one after another into a new folder.

    Args:
        folder: new, empty folder.
        own: specification and origin of the episodes.
        quality: way of coding pictures.
        robot: name of the robot; `None` if unknown.
    """

    def __init__(
        self, folder: Path, own: OwnRecord, quality: FilmQuality, robot: str | None = None
    ) -> None:
        self._folder = folder
        self._own = own
        self._spec = own.spec
        self._quality = quality
        self._robot = robot
        self._data = _File()
        self._films: dict[str, _File] = {}
        self._features: dict[str, dict[str, Any]] | None = None
        self._rows: list[dict[str, Any]] = []
        self._totals = _Totals()
        names = [layout.feature_of(key) for key in self._spec.observations]
        kept = [name for name in names if name != layout.STATE]
        if len(set(kept)) != len(kept):
            raise DemonstrationError(
                f"{max(kept, key=kept.count)}: expected one key for each feature, found two whose "
                "names differ in / and . alone"
            )

    def add(self, episode: Episode) -> None:
        """Append an episode.

        Raises:
            DemonstrationError: it has other arrays than the first episode.
        """
        columns = self._columns(episode)
        pictures = {
            layout.feature_of(key): values
            for key, values in zip(self._spec.observations, episode.observations, strict=True)
            if key.encoding == "image"
        }
        features = self._described(columns)
        if self._features is None:
            self._features = features
        elif features.keys() != self._features.keys():
            lacking = sorted(features.keys() ^ self._features.keys())
            raise DemonstrationError(
                f"episode {episode.seed}: expected the arrays of the first episode, found that "
                f"only one of the two has {lacking[0]!r}; convert the two kinds apart"
            )

        row = self._row(episode)
        row |= self._write_data(columns)
        for name, values in pictures.items():
            row |= self._write_film(name, values)
        row |= self._take_statistics(columns, pictures, episode.ticks)
        self._rows.append(row)
        self._totals.ticks += episode.ticks

    def close(self) -> None:
        """Finish all files, and write the folder `meta`."""
        if self._data.writer is not None:
            self._data.writer.close()
        features = self._features or {}
        for name, film in self._films.items():
            features[name]["info"] = film.writer.close()
        write_meta(self._folder, self._own, self._robot, features, self._rows, self._statistics())

    def _columns(self, episode: Episode) -> dict[str, NDArray[Any]]:
        """Return the rows of the data file, (K, N) each."""
        ticks = episode.ticks
        columns: dict[str, NDArray[Any]] = {}
        state = [
            values.reshape(ticks, -1)
            for key, values in zip(self._spec.observations, episode.observations, strict=True)
            if layout.is_fraction(key)
        ]
        if state:
            columns[layout.STATE] = np.concatenate(state, axis=1)
        for key, values in zip(self._spec.observations, episode.observations, strict=True):
            if key.encoding in ("text", "discrete"):
                columns[layout.feature_of(key)] = values.reshape(ticks, -1)
        columns[layout.ACTION] = episode.actions
        columns[layout.EXPERT_ACTION] = episode.expert_actions
        if len(episode.places):
            columns[layout.PLACES] = episode.places.reshape(ticks, -1)
        if len(episode.stamps_ns):
            columns[layout.STAMP] = episode.stamps_ns
        if len(episode.labelled):
            columns[layout.LABELLED] = episode.labelled
        last = np.arange(ticks) == ticks - 1
        columns[layout.DONE] = last
        columns[layout.SUCCEEDED] = last & episode.succeeded
        number = np.arange(ticks)
        columns["timestamp"] = (number / self._spec.control_hz).astype(np.float32)
        columns["frame_index"] = number
        columns["episode_index"] = np.full(ticks, len(self._rows))
        columns["index"] = self._totals.ticks + number
        columns["task_index"] = np.zeros(ticks, np.int64)
        return {name: values.reshape(ticks, -1) for name, values in columns.items()}

    def _described(self, columns: dict[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
        """Return the entry of each feature in `meta/info.json`."""
        names: dict[str, Sequence[str]] = {
            layout.STATE: layout.state_names(self._spec),
            layout.ACTION: [actuator.name for actuator in self._spec.actuators],
            layout.EXPERT_ACTION: [actuator.name for actuator in self._spec.actuators],
        }
        found: dict[str, dict[str, Any]] = {}
        for key in self._spec.observations:
            if key.encoding == "image":
                found[layout.feature_of(key)] = {
                    "dtype": "video",
                    "shape": list(key.shape),
                    "names": ["height", "width", "channels"],
                }
        for name, values in columns.items():
            found[name] = {
                "dtype": values.dtype.name,
                "shape": [values.shape[1]],
                "names": names.get(name),
            }
        return found

    def _row(self, episode: Episode) -> dict[str, Any]:
        first = self._totals.ticks
        return {
            "episode_index": len(self._rows),
            "tasks": [task_text(self._own)],
            "length": episode.ticks,
            "seed": episode.seed,
            "dataset_from_index": first,
            "dataset_to_index": first + episode.ticks,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }

    def _write_data(self, columns: dict[str, NDArray[Any]]) -> dict[str, int]:
        """Append rows to the data file, or to the next one where this is full."""
        table = pa.table({name: _arrow(values) for name, values in columns.items()})
        file = self._data
        if file.writer is not None and file.bytes >= layout.DATA_MB * _MB:
            file.writer.close()
            file = self._data = _File(file.number + 1)
        if file.writer is None:
            path = self._folder / layout.DATA_PATH.format(**file.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            file.writer = pq.ParquetWriter(path, table.schema, compression="snappy")
        file.writer.write_table(table)
        file.bytes += table.nbytes
        return {f"data/{part}": value for part, value in file.place.items()}

    def _write_film(self, name: str, pictures: NDArray[np.uint8]) -> dict[str, Any]:
        """Append pictures to the film of a camera, or to the next one where this is full."""
        hz = self._spec.control_hz
        film = self._films.setdefault(name, _File())
        if film.writer is not None and film.writer.bytes >= layout.VIDEO_MB * _MB:
            film.writer.close()
            film = self._films[name] = _File(film.number + 1)
        if film.writer is None:
            path = self._folder / layout.VIDEO_PATH.format(video_key=name, **film.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            film.writer = FilmWriter(path, hz, pictures.shape[1:], self._quality)
        first = film.writer.pictures
        film.writer.write(pictures)
        return {
            **{f"videos/{name}/{part}": value for part, value in film.place.items()},
            f"videos/{name}/from_timestamp": first / hz,
            f"videos/{name}/to_timestamp": film.writer.pictures / hz,
        }

    def _take_statistics(
        self, columns: dict[str, NDArray[Any]], pictures: dict[str, NDArray[np.uint8]], ticks: int
    ) -> dict[str, Any]:
        """Return the statistics of one episode, and add its values to those of all."""
        found = {}
        for name, values in columns.items():
            self._totals.columns.setdefault(name, []).append(values)
            found[name] = statistics.of_numbers(values)
        for name, shown in pictures.items():
            levels = statistics.histogram(shown)
            self._totals.levels[name] = self._totals.levels.get(name, 0) + levels
            found[name] = statistics.of_pictures(levels, ticks)
        return {
            f"stats/{name}/{statistic}": value
            for name, of_feature in found.items()
            for statistic, value in of_feature.items()
        }

    def _statistics(self) -> dict[str, statistics.Statistics]:
        """Return the statistics of each feature over all episodes."""
        total = self._totals
        return {
            name: statistics.of_numbers(np.concatenate(values))
            for name, values in total.columns.items()
        } | {
            name: statistics.of_pictures(levels, total.ticks)
            for name, levels in total.levels.items()
        }


def _arrow(values: NDArray[Any]) -> pa.Array:
    """Return rows (K, N) as LeRobot stores them: numbers, or lists of N numbers."""
    flat = pa.array(np.ascontiguousarray(values).ravel())
    width = prod(values.shape[1:])
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
