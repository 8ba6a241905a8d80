from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatort.runtime.errors import ConfigError
from gatort.runtime.inner_loop import FADE_NS, Drop, InnerLoop
from gatort.runtime.safety import LONGEST_VALIDITY_NS, SAFE_LEAD_NS, Command, State
from gatort.runtime.spec import Actuator, ObservationKey, PolicySpec

MS = 1_000_000
PERIOD_NS, VALID_NS = 50 * MS, 60 * MS


def command(sequence: int, at_ns: int, *values: float, valid_ns: int = VALID_NS) -> Command:
    return Command(sequence, sequence, at_ns, valid_ns, np.array(values or (20.0, -10.0, 0.0)))


def one_joint(safe: float, rate_per_s: float) -> PolicySpec:
    return PolicySpec(
        observations=(
            ObservationKey(name="q", shape=(1,), dtype="int32", unit="1", encoding="discrete"),
        ),
        actuators=(
            Actuator(name="j", unit="N·m", low=-30, high=30, safe=safe, rate_per_s=rate_per_s),
        ),
        control_hz=20,
        action_delay_ms=25,
        window_frames=1,
    )


@pytest.fixture
def loop(spec: PolicySpec) -> InnerLoop:
    return InnerLoop(spec)


@pytest.fixture
def armed(loop: InnerLoop) -> InnerLoop:
    loop.arm(0)
    return loop


def test_before_it_is_armed_it_holds_the_safe_command_and_takes_no_other(loop: InnerLoop) -> None:
    assert loop.state is State.DISARMED
    assert not loop.accept(command(1, 0), 0)
    assert loop.step(1000 * MS).tolist() == [0, 0, 0]
    assert loop.dropped == {Drop.STOPPED: 1}


def test_a_command_takes_effect_exactly_at_its_time_and_not_before(armed: InnerLoop) -> None:
    assert armed.accept(command(1, 25 * MS, 0.5, -0.5, 0.0), 10 * MS)
    assert armed.step(25 * MS - 1).tolist() == [0, 0, 0]
    # 1000 N·m/s from 25 ms on: 0.25 N·m after 0.25 ms, all of it after 0.5 ms.
    np.testing.assert_allclose(armed.step(25 * MS + MS // 4), [0.25, -0.25, 0], atol=1e-9)
    np.testing.assert_allclose(armed.step(25 * MS + MS), [0.5, -0.5, 0], atol=1e-12)


@given(st.lists(st.integers(1, 40 * MS), max_size=20))
def test_the_values_in_effect_do_not_depend_on_the_instants_of_the_steps(
    spec_steps: list[int],
) -> None:
    spec = one_joint(safe=1, rate_per_s=700)
    stepped, jumped = InnerLoop(spec), InnerLoop(spec)
    for loop in (stepped, jumped):
        loop.arm(0)
        assert loop.accept(command(1, 20 * MS, 25.0), 0)
        assert loop.accept(command(2, 47 * MS, -25.0), 0)
    end_ns = 0
    for step_ns in spec_steps:
        end_ns += step_ns
        found = stepped.step(end_ns)
    if spec_steps:
        # Sums of up to 20 float64 steps of at most 30 N·m.
        np.testing.assert_allclose(found, jumped.step(end_ns), atol=1e-9)
        assert stepped.state is jumped.state


def test_it_never_slews_faster_than_the_actuator_allows(armed: InnerLoop) -> None:
    before = armed.step(0).copy()
    for at_ns in range(0, 400 * MS, MS):
        if at_ns % PERIOD_NS == 0:
            armed.accept(
                command(at_ns // PERIOD_NS, at_ns, 30 * (-1) ** (at_ns // PERIOD_NS), 0, 0), at_ns
            )
        now = armed.step(at_ns).copy()
        assert np.abs(now - before).max() <= 1.0 + 1e-9  # 1000 N·m/s for 1 ms
        before = now


def test_an_actuator_without_a_rate_reaches_its_target_at_once(spec: PolicySpec) -> None:
    actuators = tuple(
        actuator.model_copy(update={"rate_per_s": None}) for actuator in spec.actuators
    )
    loop = InnerLoop(spec.model_copy(update={"actuators": actuators}))
    loop.arm(0)
    loop.accept(command(1, MS), 0)
    assert loop.step(MS).tolist() == [20, -10, 0]


def test_values_beyond_the_range_are_clipped(armed: InnerLoop) -> None:
    armed.accept(command(1, 0, 1e9, -1e9, 0), 0)
    assert armed.step(40 * MS).tolist() == [30, -30, 0]


def test_when_commands_stop_it_holds_then_fades_within_two_periods_then_latches(
    armed: InnerLoop,
) -> None:
    armed.accept(command(1, 25 * MS), 0)
    hold_ns = 25 * MS + VALID_NS + 1
    safe_ns = 25 * MS + 2 * PERIOD_NS - SAFE_LEAD_NS
    states = {}
    for at_ns in (
        hold_ns - 1,
        hold_ns,
        safe_ns - 1,
        safe_ns,
        safe_ns + FADE_NS // 2,
        safe_ns + FADE_NS,
    ):
        values = armed.step(at_ns).tolist()
        states[at_ns] = (armed.state, values)
    full, half = [20, -10, 0], [10, -5, 0]
    assert list(states.values()) == [
        (State.RUN, full),
        (State.HOLD, full),
        (State.HOLD, full),
        (State.SAFE, full),
        (State.SAFE, half),
        (State.LATCHED, [0, 0, 0]),
    ]


def test_lost_commands_reach_the_safe_torque_within_the_bound_of_one_step(armed: InnerLoop) -> None:
    """From `apply_at`: 95 ms until SAFE begins, 40 ms fade, and not even one late step makes it
    longer."""
    armed.accept(command(1, 0), 0)
    assert armed.step(2 * PERIOD_NS - SAFE_LEAD_NS + FADE_NS).tolist() == [0, 0, 0]
    assert armed.state is State.LATCHED


def test_a_command_during_hold_goes_back_to_run(armed: InnerLoop) -> None:
    armed.accept(command(1, 0), 0)
    armed.step(70 * MS)
    assert armed.state is State.HOLD
    assert armed.accept(command(2, 80 * MS, 1.0, 1.0, 1.0), 70 * MS)
    armed.step(80 * MS)
    assert armed.state is State.RUN


def test_without_any_command_the_age_counts_from_arming(armed: InnerLoop) -> None:
    armed.step(VALID_NS)
    assert armed.state is State.RUN
    armed.step(VALID_NS + 1)
    assert armed.state is State.HOLD


def test_latched_takes_nothing_until_an_operator_arms_again(armed: InnerLoop) -> None:
    armed.step(400 * MS)
    assert armed.state is State.LATCHED
    assert not armed.accept(command(1, 400 * MS), 400 * MS)
    armed.arm(400 * MS)
    assert armed.accept(command(1, 400 * MS), 400 * MS)


def test_a_fade_that_has_begun_ends_before_the_arm_can_be_armed(armed: InnerLoop) -> None:
    armed.accept(command(1, 0), 0)
    armed.step(115 * MS)
    armed.arm(115 * MS)
    assert armed.state is State.SAFE
    assert not armed.accept(command(2, 115 * MS), 115 * MS)
    assert armed.step(135 * MS).tolist() == [0, 0, 0]
    assert armed.state is State.LATCHED


@pytest.mark.parametrize(
    ("apply_at_ms", "state"), [(101, State.RUN), (110, State.RUN), (111, State.SAFE)]
)
def test_after_one_lost_command_the_next_one_saves_the_run_though_it_takes_effect_a_little_late(
    armed: InnerLoop, apply_at_ms: int, state: State
) -> None:
    armed.accept(command(1, 0), 0)
    armed.step(80 * MS)
    assert armed.accept(command(3, apply_at_ms * MS), 80 * MS)
    armed.step(apply_at_ms * MS)
    assert armed.state is state


@pytest.mark.parametrize("valid_ms", [60, 200])
def test_a_command_cannot_ask_to_be_in_effect_for_longer_than_the_robot_allows(
    spec: PolicySpec, valid_ms: int
) -> None:
    loop = InnerLoop(spec, safe_after_ns=80 * MS)
    loop.arm(0)
    assert loop.accept(command(1, 0, valid_ns=valid_ms * MS), 0)
    loop.step(79 * MS)
    assert loop.state in (State.RUN, State.HOLD)
    loop.step(80 * MS)
    assert loop.state is State.SAFE


@pytest.mark.parametrize("safe_after_ms", [49, 201])
def test_an_age_limit_out_of_range_is_refused_with_the_range(
    spec: PolicySpec, safe_after_ms: int
) -> None:
    with pytest.raises(ConfigError, match=f"expected 50 ms .* to 200 ms, found {safe_after_ms} ms"):
        InnerLoop(spec, safe_after_ns=safe_after_ms * MS)


def test_a_command_that_waits_when_safe_begins_is_thrown_away(armed: InnerLoop) -> None:
    armed.step(90 * MS)
    assert armed.accept(command(1, 130 * MS), 90 * MS)
    assert armed.step(131 * MS).tolist() == [0, 0, 0]
    assert armed.state is State.SAFE
    armed.step(500 * MS)
    assert armed.state is State.LATCHED
    armed.arm(500 * MS)
    assert armed.step(540 * MS).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (command(5, 20 * MS), Drop.REPEATED),
        (command(4, 20 * MS), Drop.REPEATED),
        (command(6, 10 * MS - 1), Drop.LATE),
        (command(6, 10 * MS + PERIOD_NS + 1), Drop.EARLY),
        (command(6, 20 * MS, valid_ns=0), Drop.VALIDITY),
        (command(6, 20 * MS, valid_ns=LONGEST_VALIDITY_NS + 1), Drop.VALIDITY),
        (command(6, 15 * MS), Drop.ORDER),
        (command(6, 20 * MS, 1.0, 2.0), Drop.SHAPE),
        (command(6, 20 * MS, 1.0, 2.0, np.nan), Drop.NOT_FINITE),
        (command(6, 20 * MS, 1.0, -np.inf, 3.0), Drop.NOT_FINITE),
    ],
)
def test_a_bad_command_is_dropped_counted_and_changes_nothing(
    armed: InnerLoop, bad: Command, reason: Drop
) -> None:
    assert armed.accept(command(5, 15 * MS, 1.0, 1.0, 1.0), 10 * MS)
    assert not armed.accept(bad, 10 * MS)
    assert armed.dropped == {reason: 1}
    assert armed.step(40 * MS).tolist() == [1, 1, 1]
    assert armed.state is State.RUN


def test_a_flood_of_commands_fills_the_queue_and_no_more(armed: InnerLoop) -> None:
    accepted = [armed.accept(command(index, (10 + index) * MS), 0) for index in range(6)]
    assert accepted == [True] * 4 + [False] * 2
    assert armed.dropped == {Drop.FULL: 2}


def test_an_operators_stop_fades_from_the_values_in_effect_and_latches(armed: InnerLoop) -> None:
    armed.accept(command(1, 0), 0)
    armed.step(30 * MS)
    armed.stop(30 * MS, "a test")
    assert armed.state is State.SAFE
    assert armed.step(50 * MS).tolist() == [10, -5, 0]
    armed.step(70 * MS)
    assert armed.state is State.LATCHED


def test_a_stop_on_overdue_steps_moves_no_value_at_once(armed: InnerLoop) -> None:
    armed.accept(command(1, 0), 0)
    assert armed.step(10 * MS).tolist() == [10, -10, 0]
    armed.stop(14 * MS, "a test")
    assert armed.in_effect.tolist() == [10, -10, 0]
    for at_ms in range(11, 15):  # The steps that were overdue.
        assert armed.step(at_ms * MS).tolist() == [10, -10, 0]
    assert armed.state is State.SAFE
    np.testing.assert_allclose(armed.step(34 * MS), [5, -5, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("stepped_ms", "stopped_ms"),
    [
        pytest.param(5, 98, id="HOLD and SAFE are overdue too"),
        pytest.param(100, 138, id="the end of the fade is overdue too"),
    ],
)
def test_a_stop_after_a_pause_never_makes_a_value_jump(
    armed: InnerLoop, stepped_ms: int, stopped_ms: int
) -> None:
    armed.accept(command(1, 0), 0)
    last = armed.step(stepped_ms * MS).copy()
    armed.stop(stopped_ms * MS, "a test")
    for at_ms in range(stepped_ms + 1, stopped_ms + 100):
        now = armed.step(at_ms * MS).copy()
        assert np.abs(now - last).max() <= 20 / 40 + 1e-9, at_ms
        last = now
    assert armed.state is State.LATCHED


def test_a_stop_before_arming_stays_disarmed(loop: InnerLoop) -> None:
    loop.stop(0, "a test")
    assert loop.state is State.DISARMED


def test_time_that_goes_back_changes_nothing(armed: InnerLoop) -> None:
    armed.accept(command(1, 10 * MS), 0)
    before = armed.step(15 * MS).copy()
    np.testing.assert_array_equal(armed.step(5 * MS), before)


def test_the_command_is_copied_so_that_its_owner_may_reuse_it(armed: InnerLoop) -> None:
    sent = command(1, MS)
    armed.accept(sent, 0)
    sent.values[:] = 99
    assert armed.step(40 * MS).tolist() == [20, -10, 0]


def missing_every(nth: int, commands: int) -> InnerLoop:
    """Return a watchdog after commands of which every nth was lost."""
    loop = InnerLoop(one_joint(safe=0, rate_per_s=1000))
    loop.arm(0)
    for step_ns in range(0, commands * PERIOD_NS, MS):
        number, since_ns = divmod(step_ns + 20 * MS, PERIOD_NS)
        if since_ns == 0 and number % nth:  # It arrives 20 ms before it takes effect.
            loop.accept(command(number, number * PERIOD_NS, 1.0), step_ns)
        loop.step(step_ns)
    return loop


def test_every_second_command_lost_for_a_second_stops_the_arm() -> None:
    loop = missing_every(2, commands=25)
    assert loop.state is State.LATCHED
    assert loop.reason == "8 times without a command in time within 1 s"


def test_every_fourth_command_may_be_lost_for_as_long_as_it_likes() -> None:
    loop = missing_every(4, commands=200)
    assert loop.state in (State.RUN, State.HOLD)
    assert loop.reason is None
