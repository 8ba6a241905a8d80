"""HDF5 files of robomimic's layout: `data/demo_0/obs/KEY`, `data/demo_0/actions`.

Anybody may have written the file. It is read through one open file; links and arrays that lead to
others are refused, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import DemonstrationError
from gatort.runtime.npz import MOST_COMPRESSION, SMALL_BYTES
from gatort.runtime.spec import MOST_SIDE

from .columns import MOST_EPISODE_BYTES, MOST_TICKS, Column, OwnRecord, RawEpisode
from .files import open_own

_DEMO: Final = re.compile(r"demo_\d{1,9}")
_MOST_NAMES: Final = 100_000
_NUMBERS: Final = "biuf"
"""Kinds of arrays that are read: truth values, whole numbers and fractions."""
_FILTERS: Final = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Filters that HDF5 itself has, by number. Others would load code."""
_DAMAGES: Final = (OSError, RuntimeError, ValueError, KeyError, TypeError)
"""Errors with which h5py reads a damaged file."""


class RobomimicFile:
    """Demonstrations in one HDF5 file.

    Args:
        path: the file.

    Raises:
        DemonstrationError: the file is damaged or of another layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own: OwnRecord | None = None
        self.hz_place = "data, attribute env_args: env_kwargs.control_freq"
        with _opened(path) as root:
            self._demos = _demos(path, root)
            self.hz = _rate(root["data"])
            self.columns = dict(_columns(path, root, self._demos[0]))

    def episodes(self, names: Sequence[str]) -> Iterator[RawEpisode]:
        """Yield every episode with the named features, in the order of their numbers.

        Raises:
            DemonstrationError: an array is damaged, too large, or of another length or shape.
        """
        with _opened(self.path) as root:
            for demo in self._demos:
                yield self._episode(root, demo, names)

    def _episode(self, root: Any, demo: str, names: Sequence[str]) -> RawEpisode:
        values: dict[str, NDArray[Any]] = {}
        for name in names:
            found = _array(self.path, root, f"data/{demo}/{name}")
            expected = self.columns[name].shape
            if found.shape[1:] not in (expected, ()):
                raise DemonstrationError(
                    f"{self.path}: {demo}/{name}: expected values of shape {expected}, as in "
                    f"{self._demos[0]}, found {found.shape[1:]}"
                )
            values[name] = found[()].reshape(found.shape[0], *expected)
        lengths = {name: len(found) for name, found in values.items()}
        if len(set(lengths.values())) > 1:
            longest, shortest = (
                max(lengths, key=lengths.__getitem__),
                min(lengths, key=lengths.__getitem__),
            )
            raise DemonstrationError(
                f"{self.path}: {demo}: expected as many ticks in each array, found "
                f"{lengths[longest]} in {longest} and {lengths[shortest]} in {shortest}; "
                "cut the longer one, or leave the episode out"
            )
        return RawEpisode(
            number=_number(demo),
            values=values,
            succeeded=_succeeded(self.path, root, demo),
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield an HDF5 file that is read through one file descriptor."""
    with open_own(path, "an HDF5 file") as file:
        try:
            root = h5py.File(file, "r", rdcc_nbytes=1 << 20)
        except Exception as error:
            raise _unreadable(path, error) from error
        with root:
            try:
                yield root
            except _DAMAGES as error:
                raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DemonstrationError:
    found = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DemonstrationError(
        f"{path}: expected a whole HDF5 file, found one that cannot be read ({found})"
    )


def _child(path: Path, group: Any, name: str) -> Any:
    """Return a member of a group. A link to another place or file is refused."""
    if not isinstance(group, h5py.Group) or name not in group:
        raise DemonstrationError(
            f"{path}: expected {name!r} as in robomimic's files, found only "
            f"{', '.join(list(group)[:20]) if isinstance(group, h5py.Group) else 'an array'}"
        )
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DemonstrationError(f"{path}: {name}: expected an array or a group, found a link")
    return group[name]


def _demos(path: Path, root: Any) -> list[str]:
    data = _child(path, root, "data")
    names = [name for name in data if _DEMO.fullmatch(name)]
    if not names or len(names) > _MOST_NAMES:
        raise DemonstrationError(
            f"{path}: expected data/demo_0, data/demo_1 … as in robomimic's files, "
            f"found {len(names)} of them"
        )
    return sorted(names, key=_number)


def _number(demo: str) -> int:
    return int(demo.removeprefix("demo_"))


def _columns(path: Path, root: Any, demo: str) -> Iterator[tuple[str, Column]]:
    """Yield the arrays of numbers of an episode. Whether they can be read is asked later."""
    group = _child(path, _child(path, root, "data"), demo)
    names = [name for name in group if name not in ("obs", "next_obs")]
    if "obs" in group:
        names += [f"obs/{name}" for name in _child(path, group, "obs")]
    for name in names[:_MOST_NAMES]:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        found = group[name]
        if (
            not isinstance(found, h5py.Dataset)
            or found.dtype.kind not in _NUMBERS
            or not found.ndim
        ):
            continue
        shape: tuple[int, ...] = tuple(found.shape[1:]) or (1,)
        is_picture = found.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
        yield name, Column(name, shape, is_picture=is_picture)


def _array(path: Path, root: Any, name: str) -> Any:
    """Return an array of plain numbers that lies in the file itself and is not too large."""
    found = root
    for part in name.split("/"):
        found = _child(path, found, part)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in _NUMBERS or found.ndim < 1:
        kind = found.dtype if isinstance(found, h5py.Dataset) else "a group"
        raise DemonstrationError(f"{path}: {name}: expected an array of numbers, found {kind}")
    if found.is_virtual or found.external:
        raise DemonstrationError(
            f"{path}: {name}: expected an array in this file, found one in another file"
        )
    plist = found.id.get_create_plist()
    unknown = [
        number
        for index in range(plist.get_nfilters())
        if (number := plist.get_filter(index)[0]) not in _FILTERS
    ]
    if unknown:
        raise DemonstrationError(
            f"{path}: {name}: expected no compression but {', '.join(_FILTERS.values())}, "
            f"found filter {unknown[0]}"
        )
    most = min(MOST_EPISODE_BYTES, SMALL_BYTES + MOST_COMPRESSION * path.stat().st_size)
    size = max(prod(found.shape), prod(found.chunks or ())) * found.dtype.itemsize
    if size > most or found.shape[0] > MOST_TICKS or max(found.shape[1:], default=1) > MOST_SIDE:
        raise DemonstrationError(
            f"{path}: {name}: expected at most {most} bytes, found shape {found.shape}"
        )
    return found


def _rate(data: Any) -> float | None:
    """Return the rate of the environment that robomimic recorded; `None` if it is not stated."""
    try:
        arguments = json.loads(data.attrs["env_args"])
        hz = float(arguments["env_kwargs"]["control_freq"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return hz if 0 < hz < 1e6 else None


def _succeeded(path: Path, root: Any, demo: str) -> bool | None:
    """Return whether the last reward was positive; `None` without rewards.

    Robomimic's environments give a reward on success only.
    """
    group = _child(path, _child(path, root, "data"), demo)
    if "rewards" not in group:
        return None
    rewards = _array(path, root, f"data/{demo}/rewards")
    return bool(rewards.shape[0] and np.any(np.asarray(rewards[()]) > 0))
