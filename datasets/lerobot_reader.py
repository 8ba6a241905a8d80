"""A LeRobotDataset v3, read episode by episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gatort.runtime.errors import DemonstrationError

from . import lerobot_layout as layout
from .columns import MOST_EPISODE_BYTES, MOST_TICKS, Column, RawEpisode
from .films import FilmReader
from .parquet import numbers, read_table

_MOST_FILES: Final = 100_000
_PLACE: Final = ("chunk_index", "file_index")


@dataclass(frozen=True, slots=True)
class _Row:
    """Place of one episode in the files."""

    number: int
    length: int
    data: tuple[int, int]
    films: dict[str, tuple[int, int, float]]
    seed: int | None


class LeRobotDataSet:
    """A LeRobotDataset v3 in a folder.

    Args:
        path: the folder.

    Raises:
        DemonstrationError: the description is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._info = layout.read_info(path)
        self.hz: float | None = self._info.fps
        self.hz_place = layout.INFO
        self.columns = layout.columns_of(self._info)
        self.own = layout.read_own(path)

    def episodes(self, names: Sequence[str]) -> Iterator[RawEpisode]:
        """Yield every episode with the named features.

        Raises:
            DemonstrationError: a file is damaged, too large, or not that which it claims to be.
        """
        asked = [self.columns[name] for name in names]
        if layout.SUCCEEDED in self.columns and layout.SUCCEEDED not in names:
            asked.append(self.columns[layout.SUCCEEDED])
        rows = self._rows([column.name for column in asked if column.is_picture])
        data = _Data(self.path, [column for column in asked if not column.is_picture])
        films = _Films(self.path, self._info.fps)
        try:
            for row in rows:
                yield self._episode(row, asked, data, films)
        finally:
            films.close()

    def _episode(
        self, row: _Row, asked: Sequence[Column], data: _Data, films: _Films
    ) -> RawEpisode:
        size = sum(prod(column.shape) * (1 if column.is_picture else 8) for column in asked)
        if size * row.length > MOST_EPISODE_BYTES:
            raise DemonstrationError(
                f"{self.path}: episode {row.number}: expected at most {MOST_EPISODE_BYTES >> 30} "
                f"GiB, found {row.length} ticks of {size} bytes"
            )
        values = data.rows(row)
        for column in asked:
            if column.is_picture:
                values[column.name] = films.read(row, column)
        succeeded = values.get(layout.SUCCEEDED)
        return RawEpisode(
            number=row.number,
            values=values,
            seed=row.seed,
            succeeded=None if succeeded is None else bool(np.any(succeeded)),
        )

    def _rows(self, cameras: Sequence[str]) -> list[_Row]:
        """Return the places of all episodes, in the order of their numbers."""
        folder = self.path / layout.EPISODES
        paths = sorted(folder.glob("chunk-*/file-*.parquet"))
        if not paths:
            raise DemonstrationError(f"{folder}: expected tables of episodes, found none")
        rows: list[_Row] = []
        for path in paths[:_MOST_FILES]:
            rows += _read_rows(path, cameras)
        rows.sort(key=lambda row: row.number)
        expected = list(range(self._info.total_episodes))
        if [row.number for row in rows] != expected:
            raise DemonstrationError(
                f"{folder}: expected episodes 0 to {expected[-1]}, as meta/info.json says, "
                f"found {len(rows)} others"
            )
        ticks = sum(row.length for row in rows)
        if ticks != self._info.total_frames:
            raise DemonstrationError(
                f"{folder}: expected {self._info.total_frames} ticks, as meta/info.json says, "
                f"found {ticks}"
            )
        return rows


def _read_rows(path: Path, cameras: Sequence[str]) -> list[_Row]:
    places = ("data", *(f"videos/{name}" for name in cameras))
    whole = ["episode_index", "length", *(f"{each}/{part}" for each in places for part in _PLACE)]
    starts = [f"videos/{name}/from_timestamp" for name in cameras]
    table = read_table(path, [*whole, *starts], optional=["seed"])
    has_seeds = "seed" in table.column_names
    if has_seeds:
        whole.append("seed")
    found = {name: _scalars(path, table, name, "iu") for name in whole}
    found |= {name: _scalars(path, table, name, "f") for name in starts}
    rows = []
    for index in range(table.num_rows):
        row = _Row(
            number=int(found["episode_index"][index]),
            length=int(found["length"][index]),
            data=(int(found["data/chunk_index"][index]), int(found["data/file_index"][index])),
            films={
                name: (
                    int(found[f"videos/{name}/chunk_index"][index]),
                    int(found[f"videos/{name}/file_index"][index]),
                    float(found[f"videos/{name}/from_timestamp"][index]),
                )
                for name in cameras
            },
            seed=int(found["seed"][index]) if has_seeds else None,
        )
        if not 1 <= row.length <= MOST_TICKS or min(*row.data, 0) < 0:
            raise DemonstrationError(
                f"{path}: episode {row.number}: expected 1 to {MOST_TICKS} ticks, "
                f"found {row.length}"
            )
        rows.append(row)
    return rows


def _scalars(path: Path, table: pa.Table, name: str, kinds: str) -> NDArray[Any]:
    values = numbers(path, table, Column(name, (), is_picture=False))
    if values.dtype.kind not in kinds:
        raise DemonstrationError(f"{path}: {name}: expected other numbers, found {values.dtype}")
    return values


class _Data:
    """Rows of the data files; one file is held at a time."""

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self._folder = folder
        self._columns = columns
        self._place: tuple[int, int] | None = None
        self._values: dict[str, NDArray[Any]] = {}
        self._episodes: NDArray[Any] = np.empty(0)

    def rows(self, row: _Row) -> dict[str, NDArray[Any]]:
        """Return the rows of one episode."""
        if row.data != self._place:
            self._load(row.data)
        here = np.flatnonzero(self._episodes == row.number)
        if len(here) != row.length or here[-1] - here[0] + 1 != row.length:
            raise DemonstrationError(
                f"{self._path(row.data)}: episode {row.number}: expected {row.length} rows one "
                f"after another, found {len(here)}"
            )
        part = slice(int(here[0]), int(here[-1]) + 1)
        return {name: values[part] for name, values in self._values.items()}

    def _path(self, place: tuple[int, int]) -> Path:
        return self._folder / layout.DATA_PATH.format(**dict(zip(_PLACE, place, strict=True)))

    def _load(self, place: tuple[int, int]) -> None:
        path = self._path(place)
        names = list(dict.fromkeys(["episode_index", *(each.name for each in self._columns)]))
        table = read_table(path, names)
        self._episodes = _scalars(path, table, "episode_index", "iu")
        self._values = {each.name: numbers(path, table, each) for each in self._columns}
        self._place = place


class _Films:
    """Films of all cameras; one file of each is open at a time."""

    def __init__(self, folder: Path, hz: float) -> None:
        self._folder = folder
        self._hz = hz
        self._open: dict[str, tuple[tuple[int, int], FilmReader]] = {}

    def read(self, row: _Row, column: Column) -> NDArray[np.uint8]:
        """Return the pictures of one episode (K, height, width, 3)."""
        chunk, file, from_s = row.films[column.name]
        place = (chunk, file)
        held = self._open.get(column.name)
        if held is None or held[0] != place:
            if held is not None:
                held[1].close()
            path = self._folder / layout.VIDEO_PATH.format(
                video_key=column.name, chunk_index=chunk, file_index=file
            )
            held = (place, FilmReader(path, column, self._hz))
            self._open[column.name] = held
        if not 0 <= from_s * self._hz <= MOST_TICKS:
            raise DemonstrationError(
                f"{self._folder}: episode {row.number}: videos/{column.name}/from_timestamp: "
                f"expected seconds into the film, found {from_s}"
            )
        return held[1].read(round(from_s * self._hz), row.length)

    def close(self) -> None:
        """Close all files."""
        for _, reader in self._open.values():
            reader.close()
