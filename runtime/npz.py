"""Arrays from an NPZ file that anybody may have written.

Every size is checked before memory is taken: an archive of a few bytes may claim a terabyte. Arrays
of Python objects are refused, since they would be pickles.
"""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import GatortError
from .regular_file import open_regular

MOST_ARRAYS: Final = 256
MOST_DIMENSIONS: Final = 8
SMALL_BYTES: Final = 16 << 20
"""Bytes that any archive may hold."""
MOST_COMPRESSION: Final = 100
"""Largest ratio of the arrays to the file beyond that. A simulator's pictures reach 20."""
_PIECE_BYTES: Final = 1 << 20
_SUFFIX: Final = ".npy"


def read_npz(path: Path, what: str, error: type[GatortError]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file by name.

    Args:
        path: file to read.
        what: the thing that it should hold, such as `an episode`, for messages.
        error: raised where the file cannot be read.

    Raises:
        GatortError: the file is absent, damaged or too large. Its type is `error`.
    """
    try:
        with open_regular(path, what, error) as file, zipfile.ZipFile(file) as archive:
            _require_bounds(archive, os.fstat(file.fileno()).st_size)
            return {
                info.filename.removesuffix(_SUFFIX): _read(archive, info)
                for info in archive.infolist()
            }
    except GatortError:
        raise
    except OSError as failure:
        raise error(f"{path}: cannot read {what}: {failure.strerror or failure}") from failure
    except Exception as failure:  # zipfile, zlib and NumPy have a dozen kinds of their own.
        raise error(
            f"{path}: expected {what} as a whole NPZ file, found one that cannot be read "
            f"({str(failure) or type(failure).__name__})"
        ) from failure


def _require_bounds(archive: zipfile.ZipFile, file_bytes: int) -> None:
    infos = archive.infolist()
    if len(infos) > MOST_ARRAYS:
        raise ValueError(f"{len(infos)} arrays, expected at most {MOST_ARRAYS}")
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in a way that is not read")
    whole = sum(info.file_size for info in infos)
    most = SMALL_BYTES + MOST_COMPRESSION * file_bytes
    if whole > most:
        raise ValueError(f"arrays of {whole} bytes, expected at most {most}")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member)
        if dtype.hasobject or dtype.fields is not None:
            raise ValueError(f"{info.filename} holds no plain numbers")
        if len(shape) > MOST_DIMENSIONS or min(shape, default=0) < 0:
            raise ValueError(f"{info.filename} has shape {shape}")
        expected = math.prod(shape) * dtype.itemsize
        if expected > info.file_size:
            raise ValueError(f"{info.filename} claims {expected} bytes of {info.file_size}")
        values = np.empty(math.prod(shape), dtype)
        memory = values.view(np.uint8).data
        at = 0
        while at < expected:
            part = member.read(min(expected - at, _PIECE_BYTES))
            if not part:
                raise ValueError(f"{info.filename} is cut short")
            memory[at : at + len(part)] = part
            at += len(part)
    return values.reshape(shape, order="F" if is_fortran else "C")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(member)
    if version == (1, 0):
        return npy.read_array_header_1_0(member)
    if version == (2, 0):
        return npy.read_array_header_2_0(member)
    raise ValueError(f"version {version} of the NPY format is not read")
