"""One trial as arrays: observations, actions, and the actions of an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DemonstrationError
from .npz import read_npz
from .outputs import whole_file
from .spec import OTHER_UNIT_RANGES, ObservationKey, PolicySpec

PLACES = "places"
"""Name of the array of places, which an episode may lack."""
STAMPS = "stamp_ns"
"""Name of the array of stamps, which an episode may lack."""
LABELLED = "labelled"
"""Name of the array that tells the labelled ticks, which an episode may lack."""


@dataclass(frozen=True, slots=True)
class Episode:
    """K ticks of one trial."""

    seed: int
    """Seed of the trial's layout."""
    succeeded: bool
    """True if the task succeeded within the episode."""
    observations: tuple[NDArray[Any], ...]
    """One array (K, *shape) per observation key, in the specification's order."""
    actions: NDArray[np.float32]
    """(K, A) commanded actions, in each actuator's unit."""
    expert_actions: NDArray[np.float32]
    """(K, A) the expert's actions, which equal `actions` where the expert drove."""
    places: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 3), np.float32))
    """(K, bodies, 3) place of each body in the tool's frame, in m; no rows if unknown.

    A policy never observes them. Training may ask for them, so that it learns to localise."""
    stamps_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(K,) time at which each observation was read, on a monotonic clock; empty if unknown."""
    labelled: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """(K,) true where `expert_actions` is to be learned; empty if everywhere.

    Where a person took over from a policy, only their own ticks are."""

    @property
    def ticks(self) -> int:
        """Number of ticks, K."""
        return len(self.actions)

    def frames(self, last: int) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[np.float32]]]:
        """Yield the last `last` ticks as (observation values, action (A,)).

        `ControlLoop.prime` takes them as a prompt.
        """
        for tick in range(max(0, self.ticks - last), self.ticks):
            yield tuple(values[tick] for values in self.observations), self.actions[tick]

    def save(self, path: Path, spec: PolicySpec) -> None:
        """Write a compressed NPZ. A reader sees the whole file or no file.

        Raises:
            OutputError: the file cannot be written.
        """
        with whole_file(path) as partial, partial.open("wb") as file:
            self.write(file, spec)

    def write(self, file: IO[bytes], spec: PolicySpec) -> None:
        """Write the content of a compressed NPZ."""
        arrays = {
            f"observation/{key.name}": value
            for key, value in zip(spec.observations, self.observations, strict=True)
        }
        np.savez_compressed(
            file,
            allow_pickle=False,
            seed=np.int64(self.seed),
            succeeded=np.bool_(self.succeeded),
            action=self.actions,
            expert_action=self.expert_actions,
            **({PLACES: self.places} if len(self.places) else {}),
            **({STAMPS: self.stamps_ns} if len(self.stamps_ns) else {}),
            **({LABELLED: self.labelled} if len(self.labelled) else {}),
            **arrays,
        )

    @classmethod
    def load(cls, path: Path, spec: PolicySpec) -> Episode:
        """Read an episode and check it against the specification.

        Raises:
            DemonstrationError: the file is damaged or too large, lacks a key, or has another shape.
                A number in it is not finite, or an observation is in another unit.
        """
        arrays = read_npz(path, "an episode", DemonstrationError)
        expected = {f"observation/{key.name}": key.shape for key in spec.observations}
        expected |= {"action": (len(spec.actuators),), "expert_action": (len(spec.actuators),)}
        if missing := sorted({*expected, "seed", "succeeded"} - arrays.keys()):
            raise DemonstrationError(
                f"{path}: expected the array {missing[0]!r}, found only {', '.join(sorted(arrays))}"
            )
        ticks = len(np.atleast_1d(arrays["action"]))
        wanted = {name: (ticks, *shape) for name, shape in expected.items()}
        for name, shape in (wanted | {"seed": (), "succeeded": ()}).items():
            if arrays[name].shape != shape or arrays[name].dtype.kind not in "biuf":
                raise DemonstrationError(
                    f"{path}: {name}: expected numbers of shape {shape}, "
                    f"found {arrays[name].dtype} of shape {arrays[name].shape}"
                )
        places = arrays.get(PLACES, np.empty((0, 0, 3), np.float32))
        if places.ndim != 3 or places.shape[2] != 3 or places.dtype.kind not in "biuf":
            raise DemonstrationError(
                f"{path}: {PLACES}: expected numbers of shape ({ticks}, bodies, 3), "
                f"found {places.dtype} of shape {places.shape}"
            )
        stamps = arrays.get(STAMPS, np.empty(0, np.int64))
        if stamps.shape not in ((0,), (ticks,)) or stamps.dtype != np.int64:
            raise DemonstrationError(
                f"{path}: {STAMPS}: expected int64 of shape ({ticks},), "
                f"found {stamps.dtype} of shape {stamps.shape}"
            )
        labelled = arrays.get(LABELLED, np.empty(0, np.bool_))
        if labelled.shape not in ((0,), (ticks,)) or labelled.dtype.kind != "b":
            raise DemonstrationError(
                f"{path}: {LABELLED}: expected booleans of shape ({ticks},), "
                f"found {labelled.dtype} of shape {labelled.shape}"
            )
        for name in (*wanted, "seed"):
            _require_finite(path, name, arrays[name])
        for key in spec.observations:
            _require_unit(path, key, arrays[f"observation/{key.name}"])
            _require_kind(path, key, arrays[f"observation/{key.name}"].dtype)
        return cls(
            seed=int(arrays["seed"]),
            succeeded=bool(arrays["succeeded"]),
            observations=tuple(
                _as(path, f"observation/{key.name}", arrays[f"observation/{key.name}"], key.dtype)
                for key in spec.observations
            ),
            actions=_as(path, "action", arrays["action"], "float32"),
            expert_actions=_as(path, "expert_action", arrays["expert_action"], "float32"),
            places=_as(path, PLACES, places, "float32"),
            stamps_ns=stamps,
            labelled=labelled,
        )


def _require_kind(path: Path, key: ObservationKey, found: np.dtype[Any]) -> None:
    """Refuse whole numbers where a key has fractions, and the reverse."""
    if not np.can_cast(found, key.dtype, "same_kind"):
        raise DemonstrationError(
            f"{path}: observation/{key.name}: expected {key.dtype}, found {found}"
        )


def _as(path: Path, name: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return finite numbers in another type; refuse those that it does not hold."""
    with np.errstate(over="ignore"):
        converted = values.astype(dtype, copy=False)
    _require_finite(path, name, converted)
    return converted


def _require_finite(path: Path, name: str, values: NDArray[Any]) -> None:
    """Refuse numbers that would make every weight NaN that is trained on them."""
    bad = ~np.isfinite(values)
    if bad.any():
        tick = int(np.argwhere(bad)[0][0]) if bad.ndim else 0
        raise DemonstrationError(
            f"{path}: {name}: expected finite numbers, found {values[bad][0]} at tick {tick}"
        )


def _require_unit(path: Path, key: ObservationKey, values: NDArray[Any]) -> None:
    """Refuse values so far outside their range that they are in another unit."""
    far = key.outside(values, OTHER_UNIT_RANGES)
    if far.any():
        tick = int(np.argwhere(far)[0][0])
        raise DemonstrationError(
            f"{path}: {key.name}: expected values in {key.unit}, within {min(key.low):g} to "
            f"{max(key.high):g}, found {values[far][0]:g} at tick {tick}; check the unit"
        )
