"""Gato's tokens in NumPy (arXiv 2205.06175, section 2.1): observations in, actions out.

    text, discrete      the id itself
    mu_law, unit        squashed into [−1, 1], cut into 1024 uniform bins, shifted to [32000, 33024)
    image               16×16 patches in raster order, pixels in [−1, 1] / √16

Keys come in Gato's order (text, images, tensors by name), which `PolicySpec` already holds. No
allocation grows. Letters: O observation tokens, P of them image patches, C of them continuous, A
action tokens, N observations in a batch. `…` is empty for one tick and N in training: both run the
same arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import EngineError, ObservationError, SpecError
from .patches import image_patches
from .spec import (
    CONTINUOUS_BINS,
    DISCRETE_TOKENS,
    FIRST_CONTINUOUS_ID,
    PATCH_PIXELS,
    SEPARATOR_ID,
    TEXT_TOKENS,
    Encoding,
    ObservationKey,
    PolicySpec,
)

AnyArray: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int64]

MU_LAW_MU = 100.0
MU_LAW_M = 256.0
_MU_LAW_SCALE = 1.0 / math.log(MU_LAW_MU * MU_LAW_M + 1.0)
_IDS_BELOW = {"text": TEXT_TOKENS, "discrete": DISCRETE_TOKENS}


@dataclass(frozen=True, slots=True)
class _Part:
    """Source of one key's values, and destination of its tokens."""

    key: ObservationKey
    source: int
    """Index of the key among an observation's values."""
    ids: slice
    """Columns of the ids, or of the patches for an image."""
    scratch: slice
    """Columns among the C continuous values; empty for other encodings."""


@dataclass(slots=True)
class _Scratch:
    """Working memory of one call, (…, C) each."""

    values: Floats
    squashed: Floats
    finite: NDArray[np.bool_]

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> _Scratch:
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_))


class Tokenizer:
    """Tokenizer of one specification: observations to ids and patches, action tokens to values."""

    def __init__(self, spec: PolicySpec) -> None:
        """Lay out the frame's observation tokens.

        Raises:
            SpecError: a range is too narrow or too wide to be cut into bins in float64.
        """
        self.spec = spec
        self._lay_out()
        self._prepare_bins()
        self._action_low = np.array([actuator.low for actuator in spec.actuators])
        self._action_high = np.array([actuator.high for actuator in spec.actuators])
        self._action_step = (self._action_high - self._action_low) / CONTINUOUS_BINS

    def _lay_out(self) -> None:
        """Find the columns of each key among the ids, the patches and the continuous values."""
        self._parts: list[_Part] = []
        ids = 0
        patches = 0
        continuous = 0
        for source, key in enumerate(self.spec.observations):
            if key.encoding == "image":
                columns = slice(patches, patches + key.tokens)
                patches = columns.stop
            else:
                columns = slice(ids, ids + key.tokens)
                ids = columns.stop

            real = key.encoding in ("mu_law", "unit")
            scratch = slice(continuous, continuous + key.tokens if real else continuous)
            continuous = scratch.stop
            self._parts.append(_Part(key, source, columns, scratch))

        self._continuous = continuous
        self._parts_real = self._parts_of("mu_law", "unit")
        self._parts_whole = self._parts_of("text", "discrete")
        self._parts_image = self._parts_of("image")

    def _parts_of(self, *encodings: Encoding) -> list[_Part]:
        return [part for part in self._parts if part.key.encoding in encodings]

    def _prepare_bins(self) -> None:
        """Compute ranges, shifts and scales (C,) with bin = (clip(x) − shift) · scale.

        Mu-law columns are squashed between the clipping and the shift.
        """
        low: list[float] = []
        high: list[float] = []
        mu_law: list[bool] = []
        for part in self._parts_real:
            key = part.key
            if key.encoding == "unit":
                _require_bins(key)
                low += key.low
                high += key.high
            else:
                low += [-MU_LAW_M] * key.size
                high += [MU_LAW_M] * key.size
            mu_law += [key.encoding == "mu_law"] * key.size

        self._low = np.array(low)
        self._high = np.array(high)
        self._mu_law = np.array(mu_law, np.bool_)
        self._any_mu_law = bool(self._mu_law.any())
        self._shift = np.where(self._mu_law, -1.0, self._low)
        self._scale = CONTINUOUS_BINS / np.where(self._mu_law, 2.0, self._high - self._low)
        self._continuous_runs = self._runs()
        self._scratch = _Scratch.of((self._continuous,))

    def _runs(self) -> list[tuple[slice, slice]]:
        """Join neighbouring continuous keys, to be copied at once: (columns of ids, of scratch)."""
        runs: list[tuple[slice, slice]] = []
        for part in self._parts_real:
            if runs and runs[-1][0].stop == part.ids.start:
                ids, scratch = runs.pop()
                runs.append(
                    (slice(ids.start, part.ids.stop), slice(scratch.start, part.scratch.stop))
                )
            else:
                runs.append((part.ids, part.scratch))
        return runs

    def encode(
        self,
        values: Sequence[AnyArray],
        out_ids: Ids,
        out_patches: NDArray[np.float32] | None = None,
    ) -> None:
        """Tokenize one observation in place.

        Args:
            values: one array per key, in the specification's order, with that key's shape and
                dtype.
            out_ids: (O − P,) buffer for text and tensor ids.
            out_patches: (P, 3, 16, 16) buffer for image patches; required for a policy with images.

        Raises:
            ObservationError: a shape, dtype or id is wrong, or a value is not finite; names the
                key.
        """
        self.encode_without_pictures(values, out_ids)
        if self._parts_image:
            self._encode_images([values[index] for index in self.spec.pictures], out_patches)

    def encode_without_pictures(self, values: Sequence[AnyArray], out_ids: Ids) -> None:
        """Tokenize text and tensors of one observation in place. Arguments as for `encode`.

        Raises:
            ObservationError: as `encode`.
        """
        self._encode_ids(values, out_ids, self._scratch)

    def encode_pictures(
        self, pictures: Sequence[AnyArray], out_patches: NDArray[np.float32] | None
    ) -> None:
        """Cut the pictures of one observation into patches.

        Args:
            pictures: one array per image key, in the specification's order.
            out_patches: as for `encode`.

        Raises:
            ObservationError: there are more or fewer pictures than keys, or a shape or dtype is
                wrong; names the key.
        """
        if len(pictures) != len(self._parts_image):
            raise ObservationError(
                f"expected {len(self._parts_image)} pictures, found {len(pictures)}"
            )
        for part, picture in zip(self._parts_image, pictures, strict=True):
            _check_array(part.key, picture, ())
        self._encode_images(pictures, out_patches)

    def encode_batch(self, values: Sequence[AnyArray]) -> tuple[Ids, NDArray[np.float32]]:
        """Tokenize N observations at once, for training.

        Args:
            values: one array (N, *shape) per key, in the specification's order.

        Returns:
            Ids (N, O − P), and image patches (N, P, 3, 16, 16), P = 0 for a policy without images.

        Raises:
            ObservationError: as `encode`.
        """
        ids = self.encode_ids(values)
        shape = (len(ids), self.spec.image_tokens, 3, PATCH_PIXELS, PATCH_PIXELS)
        patches = np.empty(shape, np.float32)
        self._encode_images([values[index] for index in self.spec.pictures], patches)
        return ids, patches

    def encode_ids(self, values: Sequence[AnyArray]) -> Ids:
        """Tokenize N observations without their images. Returns ids (N, O − P).

        Args:
            values: one array (N, *shape) per key, in the specification's order.

        Raises:
            ObservationError: as `encode`.
        """
        count = len(values[0])
        ids = np.empty((count, self.spec.observation_tokens - self.spec.image_tokens), np.int64)
        self._encode_ids(values, ids, _Scratch.of((count, len(self._low))))
        return ids

    def _encode_ids(self, values: Sequence[AnyArray], ids: Ids, work: _Scratch) -> None:
        if len(values) != len(self._parts):
            raise ObservationError(
                f"expected an observation of {len(self._parts)} arrays, found {len(values)}"
            )
        lead = ids.shape[:-1]
        for part in self._parts:
            _check_array(part.key, values[part.source], lead)
        for part in self._parts_whole:
            array = values[part.source]
            _check_ids(part.key, array)
            ids[..., part.ids] = array.reshape(*lead, -1)
        if self._parts_real:
            self._encode_real(values, ids, work)

    def _encode_images(
        self, pictures: Sequence[AnyArray], patches: NDArray[np.float32] | None
    ) -> None:
        for part, picture in zip(self._parts_image, pictures, strict=True):
            if patches is None:
                raise ObservationError(
                    f"{part.key.name}: expected a buffer for {part.key.tokens} patches, found none"
                )
            image_patches(picture, patches[..., part.ids, :, :, :])

    def _encode_real(self, values: Sequence[AnyArray], ids: Ids, work: _Scratch) -> None:
        """Clip, squash and cut all C continuous values together."""
        x = work.values  # (…, C)
        for part in self._parts_real:
            array = values[part.source]
            x[..., part.scratch] = array.reshape(*x.shape[:-1], -1)
        np.isfinite(x, out=work.finite)
        if not work.finite.all():
            self._refuse_not_finite(x)
        np.maximum(x, self._low, out=x)
        np.minimum(x, self._high, out=x)
        if self._any_mu_law:
            self._squash(x, work.squashed)
        np.subtract(x, self._shift, out=x)
        np.multiply(x, self._scale, out=x)
        np.minimum(x, CONTINUOUS_BINS - 1, out=x)
        np.floor(x, out=x)
        np.add(x, FIRST_CONTINUOUS_ID, out=x)
        for columns, scratch in self._continuous_runs:
            np.copyto(ids[..., columns], x[..., scratch], casting="unsafe")

    def _squash(self, x: Floats, squashed: Floats) -> None:
        """Apply F(x) = sgn(x) · ln(μ|x| + 1) / ln(μM + 1) to the mu-law columns.

        x lies in ±M, hence F in ±1.
        """
        where = self._mu_law
        np.abs(x, out=squashed, where=where)
        np.multiply(squashed, MU_LAW_MU, out=squashed, where=where)
        np.log1p(squashed, out=squashed, where=where)
        np.multiply(squashed, _MU_LAW_SCALE, out=squashed, where=where)
        np.copysign(squashed, x, out=x, where=where)

    def _refuse_not_finite(self, x: Floats) -> None:
        for part in self._parts_real:
            found = x[..., part.scratch]
            if not np.isfinite(found).all():
                bad = found[~np.isfinite(found)][0]
                raise ObservationError(
                    f"{part.key.name}: expected finite values in {part.key.unit!r}, found {bad}"
                )

    def decode_action(self, tokens: ArrayLike) -> Floats:
        """Return the bin centres (A,) of action tokens (A,), in each actuator's unit; a new array.

        Raises:
            EngineError: a token is no action token, or their number is wrong.
        """
        bins = np.asarray(tokens, np.int64) - FIRST_CONTINUOUS_ID
        if bins.shape != self._action_low.shape or bins.min() < 0 or bins.max() >= CONTINUOUS_BINS:
            raise EngineError(
                f"expected {len(self._action_low)} action tokens "
                f"in [{FIRST_CONTINUOUS_ID}, {SEPARATOR_ID}), found {tokens!r}"
            )
        centres: Floats = self._action_low + (bins + 0.5) * self._action_step
        return centres

    def encode_action(self, values: ArrayLike) -> Ids:
        """Return the tokens (…, A) of action values (…, A), clipped to each actuator's range.

        Raises:
            ObservationError: a value is not finite; names the actuator.
        """
        x = np.asarray(values, np.float64)
        if not (finite := np.isfinite(x)).all():
            index = int(np.argwhere(~finite)[0][-1])
            raise ObservationError(
                f"action {self.spec.actuators[index].name!r}: expected finite values, "
                f"found {x[~finite][0]}"
            )
        x = (np.clip(x, self._action_low, self._action_high) - self._action_low) / self._action_step
        tokens: Ids = (
            np.floor(np.minimum(x, CONTINUOUS_BINS - 1)).astype(np.int64) + FIRST_CONTINUOUS_ID
        )
        return tokens


def _require_bins(key: ObservationKey) -> None:
    """Refuse a range that is too narrow or too wide for float64."""
    for low, high in zip(key.low, key.high, strict=True):
        width = high - low
        if not math.isfinite(width) or not math.isfinite(CONTINUOUS_BINS / width):
            raise SpecError(
                f"{key.name}: the range [{low}, {high}] cannot be cut into bins in float64"
            )


def _check_array(key: ObservationKey, array: AnyArray, lead: tuple[int, ...]) -> None:
    if array.shape != lead + key.shape:
        raise ObservationError(
            f"{key.name}: expected shape {lead + key.shape}, found {array.shape}"
        )
    if array.dtype != key.dtype:
        raise ObservationError(f"{key.name}: expected dtype {key.dtype}, found {array.dtype}")


def _check_ids(key: ObservationKey, array: AnyArray) -> None:
    below = _IDS_BELOW[key.encoding]
    if array.size and (array.min() < 0 or array.max() >= below):
        bad = int(array[(array < 0) | (array >= below)][0])
        raise ObservationError(
            f"{key.name}: expected {key.encoding} ids in [0, {below}), found {bad}"
        )
