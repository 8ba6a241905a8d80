"""Specifications: observation keys, actuators, the frame that they make, model dimensions.

Every record is frozen and checked when it is made. Unknown fields, NaN and inverted ranges are
refused there, and nothing downstream asks again. Letters used for shapes throughout gatort:
O observation tokens, A action tokens, T = O + A + 1 tokens in a frame, n frames in the window,
W = n·T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    model_validator,
)

from .errors import ObservationError, SpecError

# Gato's vocabulary (arXiv 2205.06175, section 2.1 and appendix B). Discrete ids share the text
# range.
TEXT_TOKENS = 32_000
DISCRETE_TOKENS = 1_024
CONTINUOUS_BINS = 1_024
FIRST_CONTINUOUS_ID = TEXT_TOKENS
SEPARATOR_ID = FIRST_CONTINUOUS_ID + CONTINUOUS_BINS
VOCABULARY = SEPARATOR_ID + 1

OTHER_UNIT_RANGES = 1.0
"""A value this many widths outside its range is taken for one in another unit, such as degrees."""

PATCH_PIXELS = 16
MOST_SIDE = 4_096
"""Largest side of an array of an observation."""
MOST_WIDTH = 16_384
"""Largest width of a model; Gato's largest has 2,048."""
MAX_WINDOW_TOKENS = 1_024

# Bounds of specifications that strangers wrote: far above any policy, and far below a full memory.
MOST_KEYS = 64
MOST_VALUES = 1 << 24
"""Most values of one key, such as 4 megapixels of three colours."""
Name = Annotated[str, Field(max_length=200)]
"""Name or unit of something in a specification."""
Ends = Annotated[tuple[FiniteFloat, ...], Field(max_length=4 * MAX_WINDOW_TOKENS)]
"""One number for each element of a key."""

LARGEST_SEED = 2**63 - 1
"""Largest seed that PyTorch takes, and that every reader of JSON keeps whole in 64 bits."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""Start of a sequence of random numbers."""

Precision = Literal["fp32", "fp16", "int8", "int4", "w8a8"]
"""Precision of a model's weights.

Weights in int8 and int4 are multiplied as fp32 or fp16. The precision w8a8 also rounds activations
to 8 bits at run time and multiplies whole numbers, for a CPU.
"""

Encoding = Literal["text", "image", "discrete", "mu_law", "unit"]
# Gato orders a timestep as text, image patches, tensors; keys are sorted within a kind.
_ENCODING_ORDER = {"text": 0, "image": 1, "discrete": 2, "mu_law": 2, "unit": 2}
_DTYPES = {"image": "uint8", "text": "int32", "discrete": "int32"}
"""NumPy dtype of each encoding; the others are float32."""


class Strict(BaseModel):
    """A frozen record that refuses unknown fields and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed: checked like a new record, nothing cached.

        Raises:
            pydantic.ValidationError: the changed fields break a rule of the record.
        """
        copied = super().model_copy(deep=deep)
        fields = {name: getattr(copied, name) for name in self.model_fields_set}
        return type(self)(**fields | dict(update or {}))


class ObservationKey(Strict):
    """One array of an observation, and its encoding as tokens."""

    name: Name
    """Path such as `arm/joint_position`; `/` nests, and keys are ordered lexicographically."""
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_SIDE)], ...], Field(max_length=4)]
    """Array shape; images are (height, width, 3), text is (tokens,)."""
    dtype: Literal["float32", "int32", "uint8"]
    """NumPy dtype of the array."""
    unit: Name
    """SI unit of each value, or `1` for a plain number."""
    encoding: Encoding
    """Rule that turns values into tokens, see `tokenizer`."""
    low: Ends = ()
    """Lower end of each element's range, row-major; maps to −1. For the encoding `unit` only."""
    high: Ends = ()
    """Upper end of each element's range; maps to +1. For the encoding `unit` only."""
    fastest_per_s: Ends = ()
    """Fastest change of each element, in the unit per second; empty for no limit.

    The guard refuses an observation that jumped farther since the one before.
    """

    @property
    def size(self) -> int:
        """Number of values, the product of the shape."""
        return prod(self.shape)

    @property
    def tokens(self) -> int:
        """Number of tokens that the key takes in a frame."""
        if self.encoding == "image":
            return (self.shape[0] // PATCH_PIXELS) * (self.shape[1] // PATCH_PIXELS)
        return self.size

    def outside(self, values: NDArray[Any], ranges: float = 0.0) -> NDArray[np.bool_]:
        """Return where values lie outside their range; nowhere for a key without ranges.

        Args:
            values: values (…, *shape).
            ranges: distance from the range from which a value counts, as a multiple of its width.
        """
        if not self.low:
            return np.zeros(values.shape, np.bool_)
        low, high = self._range
        margin = ranges * (high - low)
        found: NDArray[np.bool_] = (values < low - margin) | (values > high + margin)
        return found

    @cached_property
    def _range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of the range, in the array's shape."""
        return np.reshape(self.low, self.shape), np.reshape(self.high, self.shape)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size > MOST_VALUES:
            raise ValueError(
                f"{self.name}: expected at most {MOST_VALUES} values, found {self.size}"
            )
        dtype = _DTYPES.get(self.encoding, "float32")
        if self.dtype != dtype:
            raise ValueError(
                f"{self.name}: encoding {self.encoding!r} needs dtype {dtype}, found {self.dtype}"
            )
        if self.encoding == "image":
            self._check_image()
        self._check_range()
        if self.fastest_per_s:
            self._check_fastest()
        return self

    def _check_image(self) -> None:
        whole_patches = not any(side % PATCH_PIXELS for side in self.shape[:2])
        if len(self.shape) != 3 or self.shape[2] != 3 or not whole_patches:
            raise ValueError(
                f"{self.name}: expected an image shape (height, width, 3) "
                f"in multiples of {PATCH_PIXELS}, found {self.shape}"
            )

    def _check_range(self) -> None:
        expected = self.size if self.encoding == "unit" else 0
        for end in (self.low, self.high):
            if len(end) != expected:
                raise ValueError(
                    f"{self.name}: encoding {self.encoding!r} takes {expected or 'no'} range "
                    f"values, found {len(end)}"
                )
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"{self.name}: low must be below high in every element")

    def _check_fastest(self) -> None:
        if len(self.fastest_per_s) != self.size or min(self.fastest_per_s) <= 0:
            raise ValueError(
                f"{self.name}: expected {self.size} values above 0 in fastest_per_s, or an empty "
                f"tuple, found {self.fastest_per_s}"
            )


class Actuator(Strict):
    """One number of an action: a joint torque, a velocity, a gripper opening, a button."""

    name: Name
    """Path such as `arm/joint1_torque`."""
    unit: Name
    """SI unit of the value."""
    low: FiniteFloat
    """Smallest value that the robot takes."""
    high: FiniteFloat
    """Largest value that the robot takes."""
    safe: FiniteFloat
    """Value to which the robot fades in SAFE."""
    rate_per_s: FiniteFloat | None = None
    """Largest change per second that the inner loop passes on; `None` for no limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"{self.name}: expected low < high, found [{self.low}, {self.high}] {self.unit}"
            )
        if not self.low <= self.safe <= self.high:
            raise ValueError(
                f"{self.name}: expected a safe command in [{self.low}, {self.high}] {self.unit}, "
                f"found {self.safe}"
            )
        if self.rate_per_s is not None and self.rate_per_s <= 0:
            raise ValueError(f"{self.name}: rate_per_s must be above 0, found {self.rate_per_s}")
        return self


def _gato_order(keys: tuple[ObservationKey, ...]) -> tuple[ObservationKey, ...]:
    names = [key.name for key in keys]
    if len(set(names)) != len(names):
        raise ValueError(f"observation keys must be unique, found {', '.join(names)}")
    return tuple(sorted(keys, key=lambda key: (_ENCODING_ORDER[key.encoding], key.name)))


class Interface(Strict):
    """The contract between a policy and a robot: observations, commands and timing."""

    observations: Annotated[
        tuple[ObservationKey, ...], Field(max_length=MOST_KEYS), AfterValidator(_gato_order)
    ]
    """Observation keys, sorted into Gato's order."""
    actuators: Annotated[tuple[Actuator, ...], Field(max_length=MOST_KEYS)]
    """Actuators, in the order of an action's values."""
    control_hz: Annotated[int, Field(ge=1, le=1000)]
    """Number of ticks per second."""
    action_delay_ms: PositiveInt
    """Constant time from an observation's stamp to the effect of its command."""

    @cached_property
    def pictures(self) -> tuple[int, ...]:
        """Place of each image key among the observation keys."""
        return tuple(
            index for index, key in enumerate(self.observations) if key.encoding == "image"
        )

    @property
    def period_ns(self) -> int:
        """Duration of one tick."""
        return 1_000_000_000 // self.control_hz

    @property
    def action_delay_ns(self) -> int:
        """`action_delay_ms` in nanoseconds."""
        return self.action_delay_ms * 1_000_000

    @model_validator(mode="after")
    def _check_interface(self) -> Self:
        if not self.observations or not self.actuators:
            raise ValueError("expected at least one observation key and one actuator")
        if self.action_delay_ns > self.period_ns:
            raise ValueError(
                f"action_delay_ms: expected at most one period at {self.control_hz} Hz, "
                f"found {self.action_delay_ms}"
            )
        return self


class PolicySpec(Interface):
    """A policy's side of the contract, and the frame that follows from it."""

    window_frames: PositiveInt
    """n: number of whole frames that the cache holds."""

    @cached_property
    def observation_tokens(self) -> int:
        """O: number of tokens of an observation."""
        return sum(key.tokens for key in self.observations)

    @property
    def action_tokens(self) -> int:
        """A: number of action tokens, one per actuator."""
        return len(self.actuators)

    @property
    def frame_tokens(self) -> int:
        """T = O + A + 1: number of tokens in a frame."""
        return self.observation_tokens + self.action_tokens + 1

    @property
    def window_tokens(self) -> int:
        """W = n·T: length of the KV cache."""
        return self.window_frames * self.frame_tokens

    @cached_property
    def image_tokens(self) -> int:
        """P: number of image patches among the O observation tokens."""
        return sum(key.tokens for key in self.observations if key.encoding == "image")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_tokens > MAX_WINDOW_TOKENS:
            largest = MAX_WINDOW_TOKENS // self.frame_tokens
            raise ValueError(
                f"window_frames: expected at most {largest} frames of {self.frame_tokens} tokens "
                f"(Gato's window has {MAX_WINDOW_TOKENS} tokens), found {self.window_frames}"
            )
        return self


class ModelDims(Strict):
    """Dimensions of the transformer, stored and never inferred from a preset's name.

    The bounds are several times those of Gato's largest model. They keep every index of the
    engines within 64 bits, and every sum of 8-bit codes within 32.
    """

    layers: Annotated[int, Field(ge=1, le=256)]
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1024)]
    """Number of attention heads."""
    head_size: Annotated[int, Field(ge=1, le=1024)]
    """Width of one attention head."""
    width: Annotated[int, Field(ge=1, le=MOST_WIDTH)]
    """D: width of the residual stream."""
    ff_half_width: Annotated[int, Field(ge=1, le=4 * MOST_WIDTH)]
    """F: half the width of the feed-forward part; GEGLU maps D → 2F → F → D."""
    first_token_id: Annotated[int, Field(ge=0, lt=VOCABULARY)]
    """First id of the embedding table, which ends at VOCABULARY.

    0 keeps text and discrete ids. FIRST_CONTINUOUS_ID drops them for a policy that has neither.
    """
    local_positions: Annotated[int, Field(ge=1, le=MOST_WIDTH)]
    """Number of rows of the table of positions within a frame (Gato: 512)."""

    @property
    def least_weights_bytes(self) -> int:
        """Size of the large matrices in float32: no file of this model's weights is smaller."""
        inner = self.heads * self.head_size
        rows = VOCABULARY - self.first_token_id + self.local_positions
        layer = 4 * inner + 3 * self.ff_half_width
        return 4 * self.width * (rows + self.layers * layer)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads * self.head_size > MOST_WIDTH:
            raise ValueError(
                f"expected heads × head_size up to {MOST_WIDTH}, "
                f"found {self.heads} × {self.head_size}"
            )
        return self


@dataclass(frozen=True, slots=True)
class KeySelection:
    """The keys of a policy among those that a robot offers."""

    offered: int
    """Number of keys that the robot offers."""
    indices: tuple[int, ...]
    """Place of each of the policy's keys in the robot's observations."""
    pictures: tuple[int, ...]
    """Place of each of the policy's image keys among the robot's image keys."""

    def select(self, values: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the arrays that the policy reads, in the policy's order; nothing is copied.

        Raises:
            ObservationError: the observation has more or fewer arrays than the robot offers.
        """
        if len(values) != self.offered:
            raise ObservationError(
                f"expected an observation of {self.offered} arrays, found {len(values)}"
            )
        return tuple(values[index] for index in self.indices)

    def select_pictures(self, pictures: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the pictures that the policy reads among those of `Robot.look`."""
        return tuple(pictures[index] for index in self.pictures)


def select_keys(policy: Interface, robot: Interface, giver: str = "the robot") -> KeySelection:
    """Match a policy with a robot, and find the policy's keys among the robot's.

    The robot must give every key that the policy reads, take every command that it makes, and keep
    its time. It may offer more keys.

    Args:
        policy: interface of the policy.
        robot: interface of the robot, or of the robot of a recording.
        giver: name of the robot or recording, for sentences.

    Raises:
        SpecError: the two differ; names the first difference.
    """
    offered = {key.name: key for key in robot.observations}
    for key in policy.observations:
        if key.name not in offered:
            raise SpecError(
                f"{giver} lacks observation key {key.name!r}; "
                f"it offers {', '.join(sorted(offered))}"
            )
        _require_same(f"observation key {key.name!r}", key, offered[key.name], giver)

    expected_names = [actuator.name for actuator in policy.actuators]
    found_names = [actuator.name for actuator in robot.actuators]
    if expected_names != found_names:
        raise SpecError(
            f"actuators: the policy commands {', '.join(expected_names)}, "
            f"{giver} has {', '.join(found_names)}"
        )
    for actuator, taken in zip(policy.actuators, robot.actuators, strict=True):
        _require_same(f"actuator {actuator.name!r}", actuator, taken, giver)

    for field in ("control_hz", "action_delay_ms"):
        expected = getattr(policy, field)
        found = getattr(robot, field)
        if expected != found:
            raise SpecError(f"{field}: the policy expects {expected}, {giver} has {found}")

    names = [key.name for key in robot.observations]
    indices = tuple(names.index(key.name) for key in policy.observations)
    pictures = tuple(robot.pictures.index(indices[index]) for index in policy.pictures)
    return KeySelection(len(names), indices, pictures)


def _require_same(what: str, wanted: Strict, offered: Strict, giver: str) -> None:
    for field in type(wanted).model_fields:
        expected, found = getattr(wanted, field), getattr(offered, field)
        if expected != found:
            raise SpecError(f"{what}: the policy expects {field} {expected}, {giver} has {found}")
