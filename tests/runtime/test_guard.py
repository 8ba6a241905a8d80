from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.guard import Guard, Limit, Refusal
from gatort.runtime.robot import Observation
from gatort.runtime.safety import COMMAND_MARGIN_NS, State
from gatort.runtime.spec import PolicySpec

GOOD = np.array([1.0, -2.0, 3.0])
NAN = np.array([1.0, np.nan, 3.0])


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000_000_000)


@pytest.fixture
def guard(spec: PolicySpec, clock: VirtualClock) -> Guard:
    guard = Guard(spec, clock)
    guard.arm()
    return guard


def seen(clock: VirtualClock, sequence: int = 7) -> Observation:
    return Observation(sequence, clock.now_ns(), (), np.zeros(3))


def test_a_good_action_becomes_a_command_that_names_its_observation_and_when_it_applies(
    guard: Guard, clock: VirtualClock, spec: PolicySpec
) -> None:
    command = guard.admit(GOOD, seen(clock))
    assert command is not None
    assert command.values.tolist() == GOOD.tolist()
    assert command.observation_sequence == 7
    assert command.apply_at_ns == clock.now_ns() + spec.action_delay_ns
    assert command.valid_for_ns == spec.period_ns + COMMAND_MARGIN_NS
    assert not guard.refused
    assert not guard.limited


def test_the_command_owns_its_values(guard: Guard, clock: VirtualClock) -> None:
    action = GOOD.copy()
    command = guard.admit(action, seen(clock))
    action[:] = 99
    assert command is not None
    assert command.values.tolist() == GOOD.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused_not_limited(
    guard: Guard, clock: VirtualClock, bad: float
) -> None:
    assert guard.admit(np.array([0.0, bad, 0.0]), seen(clock)) is None
    assert guard.refused == {Refusal.NOT_FINITE: 1}
    assert not guard.limited


def test_an_action_is_late_only_after_the_moment_at_which_it_should_apply(
    guard: Guard, clock: VirtualClock, spec: PolicySpec
) -> None:
    observation = seen(clock)
    clock.advance_ns(spec.action_delay_ns)
    assert guard.admit(GOOD, observation) is not None
    observation = seen(clock)
    clock.advance_ns(spec.action_delay_ns + 1)
    assert guard.admit(GOOD, observation) is None
    assert guard.refused == {Refusal.LATE: 1}


@pytest.mark.parametrize("shift_ns", [0, -50_000_000, 100_000_000])
def test_an_observation_that_is_not_newer_or_from_the_future_is_not_answered(
    spec: PolicySpec, clock: VirtualClock, shift_ns: int
) -> None:
    # Without a rate limit nothing else would stand between a repeated stamp and a NaN.
    free = tuple(actuator.model_copy(update={"rate_per_s": None}) for actuator in spec.actuators)
    guard = Guard(spec.model_copy(update={"actuators": free}), clock)
    guard.arm()
    clock.advance_ns(50_000_000)
    assert guard.admit(GOOD, seen(clock)) is not None
    assert guard.admit(GOOD, Observation(8, clock.now_ns() + shift_ns, (), np.zeros(3))) is None
    assert guard.refused == {Refusal.STALE: 1}


def test_over_range_is_limited_and_flagged(guard: Guard, clock: VirtualClock) -> None:
    command = guard.admit(np.array([31.0, -1e9, 0.0]), seen(clock))
    assert command is not None
    assert command.values.tolist() == [30, -30, 0]
    assert guard.limited == {Limit.RANGE: 1}


def test_over_rate_is_limited_against_the_last_admitted_action_and_flagged(
    guard: Guard, clock: VirtualClock, spec: PolicySpec
) -> None:
    guard.admit(np.full(3, 30.0), seen(clock))
    clock.advance_ns(spec.period_ns)
    command = guard.admit(np.full(3, -30.0), seen(clock))
    assert command is not None
    np.testing.assert_allclose(command.values, -20.0, rtol=1e-12)  # 1000 N·m/s for 50 ms
    assert guard.limited == {Limit.RATE: 1}


def test_refusals_in_a_row_go_to_hold_then_safe_then_latched(
    guard: Guard, clock: VirtualClock
) -> None:
    states = []
    for _ in range(4):
        guard.admit(NAN, seen(clock))
        states.append(guard.state)
    assert states == [State.HOLD, State.SAFE, State.LATCHED, State.LATCHED]


def test_a_good_action_after_one_refusal_goes_back_to_run(
    guard: Guard, clock: VirtualClock
) -> None:
    for _ in range(3):
        guard.refuse(Refusal.ENGINE)
        assert guard.state is State.HOLD
        clock.advance_ns(50_000_000)
        assert guard.admit(GOOD, seen(clock)) is not None
        assert guard.state is State.RUN


@pytest.mark.parametrize("refusals", [2, 3])
def test_good_actions_never_re_arm_and_only_an_operator_does(
    guard: Guard, clock: VirtualClock, refusals: int
) -> None:
    for _ in range(refusals):
        guard.refuse(Refusal.OBSERVATION)
    for _ in range(5):
        assert guard.admit(GOOD, seen(clock)) is None
    assert guard.state is State.LATCHED
    guard.arm()
    assert guard.admit(GOOD, seen(clock)) is not None


def test_nothing_is_admitted_before_arming(spec: PolicySpec, clock: VirtualClock) -> None:
    guard = Guard(spec, clock)
    assert guard.admit(GOOD, seen(clock)) is None
    assert guard.state is State.DISARMED


def test_sequences_rise_over_arming_too(guard: Guard, clock: VirtualClock) -> None:
    first = guard.admit(GOOD, seen(clock))
    guard.arm()
    second = guard.admit(GOOD, seen(clock))
    assert first is not None
    assert second is not None
    assert second.sequence > first.sequence


def looked_at(clock: VirtualClock, position: float = 0.0, age_ms: float = 0.0) -> Observation:
    values = (np.full(3, position, np.float32), np.zeros(2, np.float32))
    return Observation(1, clock.now_ns() - round(age_ms * 1e6), values, np.zeros(3))


@pytest.fixture
def fast_guard(spec: PolicySpec, clock: VirtualClock) -> Guard:
    """Positions change by 2 rad/s at most: 0.15 rad a tick with the margin."""
    keys = tuple(
        key.model_copy(update={"fastest_per_s": (2.0,) * 3}) if key.name == "arm/position" else key
        for key in spec.observations
    )
    guard = Guard(spec.model_copy(update={"observations": keys}), clock)
    guard.arm()
    guard.inspect(looked_at(clock))
    clock.advance_ns(50_000_000)
    return guard


def test_an_observation_whose_action_would_be_late_is_refused_before_anything_is_inferred(
    guard: Guard, clock: VirtualClock
) -> None:
    guard.inspect(looked_at(clock, age_ms=25))
    clock.advance_ns(50_000_000)
    with pytest.raises(ObservationError, match=r"of the last 25 ms, found one 25\.1 ms old"):
        guard.inspect(looked_at(clock, age_ms=25.1))


def test_an_observation_that_was_seen_before_is_refused(guard: Guard, clock: VirtualClock) -> None:
    guard.inspect(frozen := looked_at(clock))
    clock.advance_ns(10_000_000)
    with pytest.raises(ObservationError, match=r"newer than the last one, .* 10\.0 ms old"):
        guard.inspect(frozen)


def test_a_value_that_jumps_farther_than_it_can_is_refused_and_one_that_comes_back_passes(
    fast_guard: Guard, clock: VirtualClock
) -> None:
    fast_guard.inspect(looked_at(clock, 0.149))
    clock.advance_ns(50_000_000)
    with pytest.raises(
        ObservationError, match=r"arm/position: expected element 0 .* at most 0\.15 rad in 50 ms"
    ):
        fast_guard.inspect(looked_at(clock, 0.31))
    clock.advance_ns(50_000_000)
    fast_guard.inspect(looked_at(clock, 0.44))  # against the last that passed: 0.3 rad in 100 ms


def test_nan_is_a_jump_in_whichever_key_it_stands(fast_guard: Guard, clock: VirtualClock) -> None:
    for _ in range(2):
        with pytest.raises(ObservationError, match="found nan"):
            fast_guard.inspect(looked_at(clock, np.nan))
        clock.advance_ns(50_000_000)
    fast_guard.inspect(looked_at(clock, 0.1))


def test_arming_forgets_where_the_arm_was(fast_guard: Guard, clock: VirtualClock) -> None:
    fast_guard.arm()
    fast_guard.inspect(looked_at(clock, 3.0))


def test_a_moving_key_that_repeats_its_values_under_new_stamps_is_refused(
    fast_guard: Guard, clock: VirtualClock
) -> None:
    for position in (0.1, 0.1, 0.1):
        fast_guard.inspect(looked_at(clock, position))
        clock.advance_ns(50_000_000)
    for times in (4, 5):
        with pytest.raises(ObservationError, match=f"arm/position: .* {times} times in a row"):
            fast_guard.inspect(looked_at(clock, 0.1))
        clock.advance_ns(50_000_000)
    fast_guard.inspect(looked_at(clock, 0.1001))


def test_arming_begins_the_count_of_repeats_anew(fast_guard: Guard, clock: VirtualClock) -> None:
    for _ in range(2):
        for _ in range(3):
            fast_guard.inspect(looked_at(clock, 0.1))
            clock.advance_ns(50_000_000)
        fast_guard.arm()


def test_values_outside_their_range_are_counted_by_key(guard: Guard, clock: VirtualClock) -> None:
    for position in (0.0, 3.2, -3.2, 0.5):
        guard.inspect(looked_at(clock, position))
        clock.advance_ns(50_000_000)
    assert guard.clipped == {"arm/position": 2}


def test_readings_in_degrees_are_refused_before_anything_is_armed(
    guard: Guard, clock: VirtualClock
) -> None:
    with pytest.raises(ObservationError, match=r"arm/position: .* rad, found 90; check the unit"):
        guard.require_units(looked_at(clock, 90.0))
    guard.require_units(looked_at(clock, 3.2))
