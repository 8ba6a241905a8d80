"""Parquet files that anybody may have written: sizes are checked before columns are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gatort.runtime.errors import DemonstrationError

from .columns import MOST_TICKS, Column
from .files import open_own

MOST_BYTES: Final = 1 << 32
"""Most memory that the columns of one file may take."""
_MOST_COLUMNS: Final = 10_000


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Return columns of a Parquet file.

    Args:
        path: path of the file.
        columns: names of columns that the file must have.
        optional: names of columns that are returned where the file has them.

    Raises:
        DemonstrationError: the file is absent, damaged or too large, or lacks a column.
    """
    with open_own(path, "a table") as file:
        try:
            parquet = pq.ParquetFile(file)
            found = parquet.schema_arrow.names
            asked = [*columns, *(name for name in optional if name in found)]
            _require_bounds(parquet.metadata, asked, os.fstat(file.fileno()).st_size)
            if missing := [name for name in columns if name not in found]:
                raise DemonstrationError(
                    f"{path}: expected the column {missing[0]!r}, "
                    f"found only {', '.join(found[:40])}"
                )
            for name in asked:
                _require_numbers(path, name, parquet.schema_arrow.field(name).type)
            return parquet.read(columns=asked, use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DemonstrationError(
                f"{path}: expected a whole Parquet file, found one that cannot be read "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            ) from error


def _require_bounds(metadata: Any, columns: Sequence[str], file_bytes: int) -> None:
    """Compare the sizes that a file claims with bounds, before any of it is unpacked."""
    if metadata.num_rows > MOST_TICKS:
        raise ValueError(f"{metadata.num_rows} rows, expected at most {MOST_TICKS}")
    if metadata.num_columns > _MOST_COLUMNS:
        raise ValueError(f"{metadata.num_columns} columns, expected at most {_MOST_COLUMNS}")
    values = 0
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            path = chunk.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in columns):
                values += 8 * chunk.num_values
    if values > MOST_BYTES:
        raise ValueError(f"{values} bytes of a file of {file_bytes}, expected at most {MOST_BYTES}")


def _is_row(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_fixed_size_list(kind) or types.is_large_list(kind))


def _require_numbers(path: Path, name: str, kind: pa.DataType) -> None:
    """Refuse other columns before they are read: one text may stand for millions of rows."""
    inner = kind
    while _is_row(inner):
        inner = inner.value_type
    types = pa.types
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        raise DemonstrationError(f"{path}: {name}: expected numbers in every row, found {kind}")


def numbers(path: Path, table: pa.Table, column: Column) -> NDArray[Any]:
    """Return a column of numbers (K, *shape).

    Raises:
        DemonstrationError: the column holds something else, or rows of another length.
    """
    found = table.column(column.name).combine_chunks()
    rows = len(found)
    while _is_row(found.type):
        if found.null_count:
            raise DemonstrationError(f"{path}: {column.name}: expected rows, found an empty one")
        found = found.flatten()
    if found.null_count:
        raise DemonstrationError(
            f"{path}: {column.name}: expected numbers in every row, found gaps"
        )
    values: NDArray[Any] = np.asarray(found.to_numpy(zero_copy_only=False))
    if len(values) != rows * prod(column.shape):
        raise DemonstrationError(
            f"{path}: {column.name}: expected {prod(column.shape)} values in each row, as "
            f"meta/info.json says, found {len(values) / max(1, rows):g} on average"
        )
    return values.reshape(rows, *column.shape)
