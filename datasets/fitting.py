"""Features of a data set made into the arrays of an episode, as a mapping says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.runtime.spec import ObservationKey, PolicySpec

from . import lerobot_layout as layout
from .columns import Column, DataSet, RawEpisode
from .mapping import FeatureSource, Mapping
from .units import factor_to


@dataclass(frozen=True, slots=True)
class Fit:
    """One key or the action, and the way from a feature to its values."""

    name: str
    """Name of the key, or `action`."""
    table: str
    """Table of the mapping file that describes it."""
    shape: tuple[int, ...]
    """Shape of a tick's values."""
    dtype: str
    """NumPy dtype of the values."""
    units: tuple[str, ...]
    """Unit of each value."""
    source: FeatureSource
    """Feature and its unit, order and scale."""
    columns: tuple[int, ...] | None
    """Index of each value in the feature; `None` for a picture."""
    factors: NDArray[np.float64]
    """Factor on each value, unit and scale in one."""
    offsets: NDArray[np.float64]
    """Number added to each value afterwards."""

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the key's values (K, *shape) from a feature's (K, …)."""
        if self.columns is None:
            pictures: NDArray[Any] = values
            if self.source.resize and pictures.shape[1:] != self.shape:
                from .films import resized

                pictures = resized(pictures, *self.shape[:2])
            return pictures[..., ::-1] if self.source.colour == "bgr" else pictures
        rows = values.reshape(len(values), -1)[:, list(self.columns)]
        if np.any(self.factors != 1.0) or np.any(self.offsets != 0.0):
            rows = rows * self.factors + self.offsets
        if self.dtype == "int32" and not np.array_equal(rows, rows.astype(np.int32)):
            raise DemonstrationError(
                f"{self.name}: expected whole numbers of 32 bits, found others in "
                f"{self.source.feature!r}"
            )
        return rows.astype(self.dtype, copy=False).reshape(len(values), *self.shape)


@dataclass(frozen=True, slots=True)
class Fitting:
    """All keys and the action of one data set."""

    spec: PolicySpec
    """Specification that the data is made to fit."""
    mapping: Mapping
    """Mapping of the data set."""
    keys: tuple[Fit, ...]
    """Way of each observation key, in the specification's order."""
    action: Fit
    """Way of the action that was taken."""
    expert_action: Fit
    """Way of the action to learn."""
    extras: tuple[str, ...]
    """Features of gatort's own that are kept as they are."""

    @property
    def actions(self) -> tuple[Fit, ...]:
        """The action that was taken, and the one to learn if it is another."""
        return tuple({fit.name: fit for fit in (self.action, self.expert_action)}.values())

    @property
    def features(self) -> list[str]:
        """Names of the features to read."""
        fits = [fit.source.feature for fit in (*self.keys, *self.actions)]
        return list(dict.fromkeys([*fits, *self.extras]))

    def episode(self, raw: RawEpisode) -> Episode:
        """Return an episode of the data set in gatort's keys and units."""
        every = slice(None, None, self.mapping.take_every)
        values = {name: found[every] for name, found in raw.values.items()}
        action = self.action.apply(values[self.action.source.feature])  # (K, A)
        kept: dict[str, NDArray[Any]] = {}
        if layout.STAMP in self.extras:
            kept["stamps_ns"] = values[layout.STAMP].reshape(-1).astype(np.int64)
        if layout.LABELLED in self.extras:
            kept["labelled"] = values[layout.LABELLED].reshape(-1).astype(np.bool_)
        if layout.PLACES in self.extras:
            kept["places"] = values[layout.PLACES].reshape(len(action), -1, 3).astype(np.float32)
        return Episode(
            seed=raw.number if raw.seed is None else raw.seed,
            succeeded=self.mapping.succeeded if raw.succeeded is None else raw.succeeded,
            observations=tuple(fit.apply(values[fit.source.feature]) for fit in self.keys),
            actions=action,
            expert_actions=self.expert_action.apply(values[self.expert_action.source.feature]),
            **kept,
        )


def fit(data: DataSet, mapping: Mapping, spec: PolicySpec) -> Fitting:
    """Match a mapping with a data set and a specification.

    Raises:
        ConfigError: the mapping names a key, feature, column or unit that does not exist, or lacks
            one, or numbers of values differ.
    """
    wanted = {key.name: key for key in spec.observations}
    for name in mapping.keys:
        if name not in wanted:
            raise ConfigError(
                f"keys: expected keys of the specification, found {name!r}; {_valid(name, wanted)}"
            )
    for name in wanted:
        if name not in mapping.keys:
            raise ConfigError(
                f"{name}: expected a table [keys.{_quoted(name)}], found none; every key of the "
                "specification needs one"
            )
    action = _action("action", mapping.action, spec, data)
    expert_action = action
    if mapping.expert_action is not None:
        expert_action = _action("expert_action", mapping.expert_action, spec, data)
    keys = tuple(_key(key, mapping.keys[key.name], data) for key in spec.observations)
    return Fitting(spec, mapping, keys, action, expert_action, tuple(_extras(data)))


def _extras(data: DataSet) -> Iterator[str]:
    """Yield the features of gatort's own that a data set has."""
    own = (layout.LABELLED, layout.PLACES) if data.own is not None else ()
    for name in (layout.STAMP, *own):
        column = data.columns.get(name)
        if column is not None and (name == layout.PLACES or prod(column.shape) == 1):
            yield name


def _action(name: str, source: FeatureSource, spec: PolicySpec, data: DataSet) -> Fit:
    units = tuple(actuator.unit for actuator in spec.actuators)
    names = tuple(actuator.name for actuator in spec.actuators)
    return _numbers(name, name, (len(names),), "float32", units, names, source, data)


def _key(key: ObservationKey, source: FeatureSource, data: DataSet) -> Fit:
    table = f"keys.{_quoted(key.name)}"
    if key.encoding != "image":
        units = (key.unit,) * key.size
        names = tuple(f"{key.name}/{index}" for index in range(key.size))
        return _numbers(key.name, table, key.shape, key.dtype, units, names, source, data)

    column = _column(key.name, source, data)
    if not column.is_picture:
        raise ConfigError(
            f"{key.name}: from: expected pictures of three colours in 8 bits, found "
            f"{source.feature!r} of shape {column.shape}; "
            f"{_offered(data, is_picture=True)}"
        )
    if column.shape != key.shape and not source.resize:
        raise ConfigError(
            f"{key.name}: expected pictures of shape {key.shape}, found {column.shape} in "
            f"{source.feature!r}; state resize = true in [{table}]"
        )
    none = np.empty(0)
    return Fit(key.name, table, key.shape, key.dtype, (), source, None, none, none)


def _numbers(
    name: str,
    table: str,
    shape: tuple[int, ...],
    dtype: str,
    units: tuple[str, ...],
    names: tuple[str, ...],
    source: FeatureSource,
    data: DataSet,
) -> Fit:
    column = _column(name, source, data)
    if column.is_picture:
        raise ConfigError(
            f"{name}: from: expected numbers, found pictures in {source.feature!r}; "
            f"{_offered(data, is_picture=False)}"
        )
    size, found = prod(shape), prod(column.shape)
    if source.columns is None:
        if found != size:
            raise ConfigError(
                f"{name}: expected {size} values a tick, found {found} in {source.feature!r}; name "
                f"{size} of them with columns in [{table}]"
            )
        _require_order(name, table, names, column)
    columns = tuple(range(found)) if source.columns is None else _indices(name, source, column)
    if len(columns) != size:
        raise ConfigError(f"{name}: columns: expected {size} of them, found {len(columns)}")
    stated = _each(name, "unit", source.unit, size, units)
    factors = [factor_to(unit, given, name) for unit, given in zip(units, stated, strict=True)]
    scales = _each(name, "scale", source.scale, size, ())
    offsets = _each(name, "offset", source.offset, size, ())
    return Fit(
        name, table, shape, dtype, units, source, columns,
        np.array(factors) * np.array(scales), np.array(offsets, np.float64),
    )  # fmt: skip


def _require_order(name: str, table: str, names: tuple[str, ...], column: Column) -> None:
    """Refuse a feature that names the same values in another order."""
    if set(column.names) == set(names) and column.names != names:
        order = [column.names.index(each) for each in names]
        raise ConfigError(
            f"{name}: expected the order {', '.join(names)}, found {', '.join(column.names)} in "
            f"{column.name!r}; state columns = {order} in [{table}]"
        )


def _column(name: str, source: FeatureSource, data: DataSet) -> Column:
    if source.feature not in data.columns:
        raise ConfigError(
            f"{name}: from: expected a feature of {data.path}, found {source.feature!r}; "
            f"{_valid(source.feature, data.columns)}"
        )
    return data.columns[source.feature]


def _indices(name: str, source: FeatureSource, column: Column) -> tuple[int, ...]:
    """Return the index of each column that the mapping names."""
    size = prod(column.shape)
    found = []
    for each in source.columns or ():
        if isinstance(each, str) and each in column.names:
            found.append(column.names.index(each))
        elif isinstance(each, int) and 0 <= each < size:
            found.append(each)
        else:
            valid = ", ".join(column.names) or f"0 to {size - 1}"
            raise ConfigError(
                f"{name}: columns: expected some of {valid} in {column.name!r}, found {each!r}"
            )
    if len(set(found)) != len(found):
        raise ConfigError(f"{name}: columns: expected each once, found one twice: {found}")
    return tuple(found)


def _each(name: str, field: str, given: Any, size: int, default: Sequence[Any]) -> Sequence[Any]:
    """Return one value for each element."""
    if given is None:
        return default
    if not isinstance(given, tuple):
        return (given,) * size
    if len(given) != size:
        raise ConfigError(f"{name}: {field}: expected 1 or {size} values, found {len(given)}")
    return given


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'


def _valid(name: str, valid: Table[str, Any]) -> str:
    close = get_close_matches(name, list(valid), 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid ones are {', '.join(sorted(valid))}"


def _offered(data: DataSet, *, is_picture: bool) -> str:
    names = [name for name, each in data.columns.items() if each.is_picture == is_picture]
    return f"such features are {', '.join(sorted(names)) or 'none'}"


def require_rate(data: DataSet, mapping: Mapping, spec: PolicySpec) -> None:
    """Check the rate that a data set states.

    Raises:
        DemonstrationError: it is absent, or another than the policy's.
    """
    hz = data.hz if data.hz is not None else mapping.fps
    if hz is None:
        raise DemonstrationError(
            f"{data.path}: expected a rate in {data.hz_place}, found none; state fps in the mapping"
        )
    if data.hz is not None and mapping.fps is not None and data.hz != mapping.fps:
        raise DemonstrationError(
            f"{data.path}: fps: expected {mapping.fps:g} as the mapping says, found {data.hz:g} in "
            f"{data.hz_place}; leave fps out of the mapping, or mend the data set"
        )
    expected = spec.control_hz * mapping.take_every
    if hz != expected:
        ratio = hz / spec.control_hz
        remedy = (
            f"state take_every = {round(ratio)} to keep one tick in {round(ratio)}"
            if ratio == round(ratio) and ratio > 1
            else f"record at {spec.control_hz} Hz, or train a policy with another control_hz"
        )
        raise DemonstrationError(
            f"{data.path}: fps: expected {expected:g}, the policy's control_hz"
            f"{f' times take_every {mapping.take_every}' if mapping.take_every > 1 else ''}, "
            f"found {hz:g}; {remedy}"
        )
