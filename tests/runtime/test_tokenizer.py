from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gatort.runtime.errors import EngineError, ObservationError, SpecError
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    Actuator,
    ObservationKey,
    PolicySpec,
)
from gatort.runtime.tokenizer import MU_LAW_M, MU_LAW_MU, Tokenizer

finite = st.floats(-(2.0**100), 2.0**100, width=32)
ends = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(
    lambda pair: pair[1] - pair[0] > 1e-3
)


def policy(*keys: ObservationKey, actuator: tuple[float, float] = (-1.0, 1.0)) -> PolicySpec:
    low, high = actuator
    return PolicySpec(
        observations=keys,
        actuators=(Actuator(name="joint", unit="N·m", low=low, high=high, safe=low),),
        control_hz=20,
        action_delay_ms=25,
        window_frames=1,
    )


def real(encoding: str, low: float = -1.0, high: float = 1.0, size: int = 1) -> ObservationKey:
    given_ends = {"low": (low,) * size, "high": (high,) * size} if encoding == "unit" else {}
    return ObservationKey(
        name="key", shape=(size,), dtype="float32", unit="m", encoding=encoding, **given_ends
    )


def bins_of(spec: PolicySpec, values: list[float]) -> NDArray[np.int64]:
    arrays = np.array(values, np.float32)[:, None]
    return Tokenizer(spec).encode_batch([arrays])[0][:, 0] - FIRST_CONTINUOUS_ID


def inverse_mu_law(squashed: float) -> float:
    size = math.expm1(abs(squashed) * math.log(MU_LAW_MU * MU_LAW_M + 1)) / MU_LAW_MU
    return math.copysign(size, squashed)


@given(ends, finite)
def test_an_action_comes_back_within_half_a_bin_of_itself_clipped(
    ends: tuple[float, float], value: float
) -> None:
    low, high = ends
    tokenizer = Tokenizer(policy(real("unit"), actuator=ends))
    found = tokenizer.decode_action(tokenizer.encode_action([value]))[0]
    # 1 ppm of the range: bin edges are rounded to float64, so a value on an edge may fall on either
    # side.
    half_bin = (high - low) * (0.5 / CONTINUOUS_BINS + 1e-6)
    assert abs(found - min(max(value, low), high)) <= half_bin


@given(st.integers(0, CONTINUOUS_BINS - 1), ends)
def test_every_bin_centre_of_an_action_encodes_to_its_own_bin(
    index: int, ends: tuple[float, float]
) -> None:
    tokenizer = Tokenizer(policy(real("unit"), actuator=ends))
    token = np.array([index + FIRST_CONTINUOUS_ID])
    assert tokenizer.encode_action(tokenizer.decode_action(token)) == token


@given(ends, finite)
def test_a_unit_value_falls_into_the_bin_whose_centre_is_within_half_a_bin(
    ends: tuple[float, float], value: float
) -> None:
    low, high = ends
    value = float(np.float32(value))
    index = bins_of(policy(real("unit", low, high)), [value])[0]
    centre = low + (index + 0.5) / CONTINUOUS_BINS * (high - low)
    assert abs(centre - min(max(value, low), high)) <= (high - low) * (0.5 / CONTINUOUS_BINS + 1e-6)


@given(st.floats(-300, 300, width=32))
def test_a_mu_law_value_falls_into_the_bin_that_the_paper_gives_it(value: float) -> None:
    index = bins_of(policy(real("mu_law")), [value])[0]
    low, high = (inverse_mu_law(2 * edge / CONTINUOUS_BINS - 1) for edge in (index, index + 1))
    clipped = min(max(value, -MU_LAW_M), MU_LAW_M)
    slack = 1e-9 * max(1.0, abs(clipped))  # rounding of log1p and expm1
    assert low - slack <= clipped <= high + slack


def test_mu_law_of_one_is_the_value_that_the_paper_gives() -> None:
    squashed = math.log(MU_LAW_MU + 1) / math.log(MU_LAW_MU * MU_LAW_M + 1)
    assert squashed == pytest.approx(0.4547, abs=5e-5)
    assert bins_of(policy(real("mu_law")), [1.0]) == int((squashed + 1) / 2 * CONTINUOUS_BINS)


@pytest.mark.parametrize("encoding", ["unit", "mu_law"])
@given(values=st.lists(finite, min_size=2, max_size=20))
def test_tokens_never_fall_as_values_rise(encoding: str, values: list[float]) -> None:
    found = bins_of(policy(real(encoding, -2.5, 7.0)), sorted(values))
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize(("encoding", "top"), [("unit", 1.0), ("mu_law", MU_LAW_M)])
def test_values_at_and_beyond_the_ends_take_the_first_and_last_bin(
    encoding: str, top: float
) -> None:
    found = bins_of(policy(real(encoding)), [-1e30, -top, top, 1e30])
    assert found.tolist() == [0, 0, CONTINUOUS_BINS - 1, CONTINUOUS_BINS - 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["unit", "mu_law"])
def test_a_value_that_is_not_finite_is_refused_with_the_key_and_the_value(
    encoding: str, bad: float
) -> None:
    tokenizer = Tokenizer(policy(real(encoding, size=3)))
    with pytest.raises(ObservationError, match=rf"key: expected finite values in 'm', found {bad}"):
        tokenizer.encode([np.array([0, bad, 0], np.float32)], np.zeros(3, np.int64))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_with_the_actuator(bad: float) -> None:
    with pytest.raises(ObservationError, match="'joint'"):
        Tokenizer(policy(real("unit"))).encode_action([bad])


def values_of(
    spec: PolicySpec, rng: np.random.Generator, lead: tuple[int, ...] = ()
) -> list[NDArray[Any]]:
    values: list[NDArray[Any]] = []
    for key in spec.observations:
        if key.dtype == "float32":
            values.append(rng.normal(size=(*lead, *key.shape)).astype(np.float32))
        else:
            values.append(rng.integers(0, 256, (*lead, *key.shape)).astype(key.dtype))
    return values


def test_tokens_lie_in_gatos_order_text_then_images_then_tensors_by_name(
    every_encoding_spec: PolicySpec,
) -> None:
    assert [key.name for key in every_encoding_spec.observations] == [
        "task",
        "left",
        "right",
        "a",
        "b",
        "z",
    ]
    values = values_of(every_encoding_spec, np.random.default_rng(0))
    ids, patches = np.zeros(4 + 3 + 4 + 2, np.int64), np.zeros((4, 3, 16, 16), np.float32)
    Tokenizer(every_encoding_spec).encode(values, ids, patches)
    assert ids[:4].tolist() == values[0].tolist()
    assert (ids[4:7] >= FIRST_CONTINUOUS_ID).all()
    assert ids[7:11].tolist() == values[4].ravel().tolist()
    assert (ids[11:] >= FIRST_CONTINUOUS_ID).all()


def test_patches_are_rows_of_16_by_16_in_raster_order_with_pixels_in_one_over_four(
    every_encoding_spec: PolicySpec,
) -> None:
    values = values_of(every_encoding_spec, np.random.default_rng(1))
    patches = np.zeros((4, 3, 16, 16), np.float32)
    Tokenizer(every_encoding_spec).encode(values, np.zeros(13, np.int64), patches)
    left, right = values[1], values[2]
    tiles = [left[:16], left[16:], right[:, :16], right[:, 16:]]
    for patch, tile in zip(patches, tiles, strict=True):
        # float32 has 24 bits; the two orders of multiplying and subtracting differ in the last.
        np.testing.assert_allclose(patch, (tile.transpose(2, 0, 1) / 255 * 2 - 1) / 4, atol=3e-8)


def test_a_batch_gives_what_single_ticks_give(every_encoding_spec: PolicySpec) -> None:
    tokenizer = Tokenizer(every_encoding_spec)
    batch = values_of(every_encoding_spec, np.random.default_rng(2), (7,))
    ids, patches = tokenizer.encode_batch(batch)
    for row in range(7):
        one_ids, one_patches = np.zeros(13, np.int64), np.zeros((4, 3, 16, 16), np.float32)
        tokenizer.encode([value[row] for value in batch], one_ids, one_patches)
        np.testing.assert_array_equal(one_ids, ids[row])
        np.testing.assert_array_equal(one_patches, patches[row])


@pytest.mark.parametrize(
    ("name", "index", "bad", "message"),
    [
        ("task", 0, 32_000, r"text ids in \[0, 32000\), found 32000"),
        ("b", 4, -1, r"discrete ids in \[0, 1024\), found -1"),
        ("b", 4, 1024, r"discrete ids in \[0, 1024\), found 1024"),
    ],
)
def test_an_id_out_of_range_is_refused_with_the_key(
    every_encoding_spec: PolicySpec, name: str, index: int, bad: int, message: str
) -> None:
    values = values_of(every_encoding_spec, np.random.default_rng(4))
    values[index].flat[1] = bad
    with pytest.raises(ObservationError, match=f"{name}: expected {message}"):
        Tokenizer(every_encoding_spec).encode(
            values, np.zeros(13, np.int64), np.zeros((4, 3, 16, 16), np.float32)
        )


def test_a_wrong_shape_dtype_or_number_of_arrays_is_refused(spec: PolicySpec) -> None:
    tokenizer, ids = Tokenizer(spec), np.zeros(5, np.int64)
    position, velocity = np.zeros(3, np.float32), np.zeros(2, np.float32)
    with pytest.raises(
        ObservationError, match=r"arm/velocity: expected shape \(2,\), found \(3,\)"
    ):
        tokenizer.encode([position, position], ids)
    with pytest.raises(
        ObservationError, match="arm/velocity: expected dtype float32, found float64"
    ):
        tokenizer.encode([position, velocity.astype(np.float64)], ids)
    with pytest.raises(ObservationError, match="2 arrays, found 1"):
        tokenizer.encode([position], ids)


@pytest.mark.parametrize(
    "tokens", [[FIRST_CONTINUOUS_ID - 1], [FIRST_CONTINUOUS_ID + 1024], [FIRST_CONTINUOUS_ID] * 2]
)
def test_tokens_that_are_no_action_are_refused(tokens: list[int]) -> None:
    with pytest.raises(EngineError, match="1 action tokens"):
        Tokenizer(policy(real("unit"))).decode_action(tokens)


def test_a_range_that_float64_cannot_cut_into_bins_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be cut"):
        Tokenizer(policy(real("unit", -1e308, 1e308)))


@settings(deadline=None)
@given(st.lists(finite, min_size=5, max_size=5))
def test_encoding_depends_on_nothing_that_came_before(values: list[float]) -> None:
    key = real("mu_law", size=5)
    used, fresh, ids, expected = (
        Tokenizer(policy(key)),
        Tokenizer(policy(key)),
        np.zeros(5, int),
        np.zeros(5, int),
    )
    used.encode([np.full(5, 77.0, np.float32)], ids)
    used.encode([np.array(values, np.float32)], ids)
    fresh.encode([np.array(values, np.float32)], expected)
    np.testing.assert_array_equal(ids, expected)


def calls_of(action: Callable[[], None]) -> int:
    """Count the Python and C functions that an action calls."""
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        action()
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in calls)


def test_a_tick_costs_as_many_calls_for_a_thousand_values_as_for_eight() -> None:
    calls = []
    for size in (8, 1_000):
        tokenizer = Tokenizer(policy(real("unit", size=size)))
        ids = np.zeros(size, np.int64)
        values = [np.zeros(size, np.float32)]
        calls.append(calls_of(lambda: tokenizer.encode(values, ids)))  # noqa: B023 called at once
    # NumPy works on all values of a tick together: no Python loop runs over them.
    assert calls[0] == calls[1] < 100
