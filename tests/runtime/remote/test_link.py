from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.remote.link import (
    LONGEST_HOLD_BACK_NS,
    MOST_IN_FLIGHT,
    DelayLine,
    LinkConditions,
    LinkedRobot,
)
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
PERIOD_MS = 50


def line(seed: int = 0, **conditions: float) -> DelayLine[int]:
    return DelayLine(LinkConditions(link_seed=seed, **conditions), "to_robot")


def arrivals(line: DelayLine[int], sent: int, spacing_ms: int = PERIOD_MS) -> list[tuple[int, int]]:
    """Return (instant in ns, message) of messages 0, 1, 2, … sent at a regular pace."""
    seen: list[tuple[int, int]] = []
    for item in range(sent):
        seen += _until(line, item * spacing_ms * MS)
        line.push(item * spacing_ms * MS, item)
    return seen + _until(line, 1 << 60)


def _until(line: DelayLine[int], end_ns: int) -> list[tuple[int, int]]:
    seen = []
    while (due_ns := line.next_due_ns) is not None and due_ns <= end_ns:
        seen += [(due_ns, item) for item in line.pop_due(due_ns)]
    return seen


def test_a_perfect_line_hands_over_at_once() -> None:
    assert LinkConditions().perfect
    assert arrivals(line(), 20) == [(item * PERIOD_MS * MS, item) for item in range(20)]


def test_delay_is_exact_and_jitter_stays_within_its_bound() -> None:
    late_ms = [
        at_ns / MS - item * PERIOD_MS
        for at_ns, item in arrivals(line(delay_ms=7, jitter_ms=5), 500)
    ]
    assert min(late_ms) >= 7
    assert max(late_ms) <= 12
    # Uniform over 5 ms: the mean of 500 lies within five standard errors, 5 / √12 / √500 each.
    assert np.mean(late_ms) == pytest.approx(9.5, abs=5 * 5 / 12**0.5 / 500**0.5)


def test_without_reordering_messages_keep_their_order_however_the_jitter_falls() -> None:
    assert [item for _, item in arrivals(line(jitter_ms=100), 500, spacing_ms=1)] == list(
        range(500)
    )


def test_loss_takes_its_share_and_counts_it() -> None:
    lossy = line(loss=0.1)
    arrived = arrivals(lossy, 2000)
    assert len(arrived) + lossy.lost == 2000
    assert lossy.lost == pytest.approx(200, abs=5 * (2000 * 0.1 * 0.9) ** 0.5)


def test_a_reordered_message_is_overtaken_by_the_next_one_alone() -> None:
    swapping = line(reorder=0.3)
    order = [item for _, item in arrivals(swapping, 300)]
    assert sorted(order) == list(range(300))
    assert sum(after < before for before, after in pairwise(order)) == swapping.overtaken > 50
    assert max(abs(place - item) for place, item in enumerate(order)) == 1


def test_a_held_message_that_nothing_overtakes_arrives_in_the_end() -> None:
    held = line(reorder=1)
    held.push(0, 0)
    assert held.next_due_ns == LONGEST_HOLD_BACK_NS
    assert held.pop_due(LONGEST_HOLD_BACK_NS) == [0]
    assert held.next_due_ns is None


def test_the_same_seed_treats_the_same_messages_alike() -> None:
    conditions = {"delay_ms": 3.0, "jitter_ms": 8.0, "loss": 0.2, "reorder": 0.2}
    assert arrivals(line(7, **conditions), 200) == arrivals(line(7, **conditions), 200)
    assert arrivals(line(7, **conditions), 200) != arrivals(line(8, **conditions), 200)


def test_the_two_directions_draw_apart() -> None:
    conditions = LinkConditions(loss=0.5)
    up, down = (
        DelayLine[int](conditions, direction) for direction in ("to_robot", "to_controller")
    )
    assert arrivals(up, 100) != arrivals(down, 100)


def test_more_loss_leaves_the_jitter_of_the_others_as_it_was() -> None:
    whole, lossy = (
        dict(map(reversed, arrivals(line(jitter_ms=9, loss=loss), 200))) for loss in (0, 0.5)
    )
    assert lossy.items() <= whole.items()


def test_a_line_never_holds_more_than_its_bound() -> None:
    long = line(delay_ms=1000)
    for item in range(MOST_IN_FLIGHT + 10):
        long.push(0, item)
    assert len(long) == MOST_IN_FLIGHT
    assert long.lost == 10


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.1}, {"delay_ms": -1}, {"jitter_ms": float("nan")}, {"latency": 1}]
)
def test_conditions_that_no_link_has_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LinkConditions(**wrong)


class Linked:
    """A scripted arm behind a link, and the states of each of its inner steps."""

    def __init__(self, spec: PolicySpec, **conditions: float) -> None:
        self.clock, robot_clock = VirtualClock(), VirtualClock()
        self.arm = ScriptedRobot(spec, robot_clock)
        self.arm.on_step = lambda at_ns, state, values: self.trace.append((at_ns, state, values[0]))
        self.trace: list[tuple[int, State, float]] = []
        self.robot = LinkedRobot(self.arm, robot_clock, self.clock, LinkConditions(**conditions))

    def send(self, sequence: int, apply_at_ns: int) -> None:
        self.robot.command(Command(sequence, sequence, apply_at_ns, 60 * MS, np.ones(3)))

    def pass_ms(self, duration_ms: int) -> None:
        self.clock.advance_ns(duration_ms * MS)
        self.robot.observe()


def test_an_observation_is_read_one_way_after_it_was_asked_for_and_comes_back_another_later(
    spec: PolicySpec,
) -> None:
    linked = Linked(spec, delay_ms=4)
    observation = linked.robot.observe()
    assert observation.stamp_ns == 4 * MS
    assert linked.clock.now_ns() == 8 * MS


def test_a_perfect_link_takes_no_time(spec: PolicySpec) -> None:
    linked = Linked(spec)
    linked.robot.arm()
    assert linked.robot.observe().stamp_ns == linked.clock.now_ns() == 0
    linked.send(1, 25 * MS)
    linked.pass_ms(30)
    first = next(at_ns for at_ns, _, value in linked.trace if value > 0)
    assert (
        first == 26 * MS
    )  # The slew starts at 25 ms, so the step after it is the first above zero.
    assert linked.trace[-1] == (30 * MS, State.RUN, 1.0)


def test_a_command_takes_effect_at_its_instant_while_it_arrives_in_time(spec: PolicySpec) -> None:
    linked = Linked(spec, delay_ms=10)
    linked.robot.arm()
    linked.robot.observe()
    linked.send(1, linked.clock.now_ns() + 10 * MS)
    linked.pass_ms(50)
    assert not linked.arm.inner_loop.dropped
    assert linked.trace[-1][2] == 1.0


def test_a_command_that_the_delay_makes_late_is_dropped_by_the_arm(spec: PolicySpec) -> None:
    linked = Linked(spec, delay_ms=10)
    linked.robot.arm()
    linked.robot.observe()
    linked.send(1, linked.clock.now_ns() + 10 * MS - 1)
    linked.pass_ms(50)
    assert dict(linked.arm.inner_loop.dropped) == {"late": 1}


def test_a_lost_request_is_asked_again_five_milliseconds_later(spec: PolicySpec) -> None:
    seeds = range(200)
    waits = set()
    for seed in seeds:
        linked = Linked(spec, loss=0.1, link_seed=seed)
        linked.robot.observe()
        waits.add(linked.clock.now_ns() // MS)
    assert {0, 5, 10} <= waits <= {0, 5, 10, 15, 20}


def test_no_answer_within_the_action_delay_is_an_observation_error_and_the_next_may_come(
    spec: PolicySpec,
) -> None:
    linked = Linked(spec, loss=1)
    with pytest.raises(ObservationError, match="within 25 ms, found no answer to 5 requests"):
        linked.robot.observe()
    assert linked.clock.now_ns() == 25 * MS


def test_an_answer_to_an_earlier_observe_is_never_taken_for_a_new_one(spec: PolicySpec) -> None:
    linked = Linked(spec, delay_ms=20)
    with pytest.raises(ObservationError):
        linked.robot.observe()
    asked_ns = linked.clock.now_ns()
    with pytest.raises(ObservationError):  # The first one's answer arrives meanwhile, at 40 ms.
        linked.robot.observe()
    assert linked.clock.now_ns() == asked_ns + 25 * MS


def test_the_arm_goes_to_safe_by_itself_when_every_command_is_lost(spec: PolicySpec) -> None:
    linked = Linked(spec, delay_ms=2)
    linked.robot.arm()
    armed_ns = 2 * MS
    linked.pass_ms(200)
    changes = {state: at_ns for at_ns, state, _ in reversed(linked.trace)}
    assert changes[State.SAFE] - armed_ns == 95 * MS
    assert changes[State.LATCHED] - armed_ns == 135 * MS
    assert linked.robot.state is State.LATCHED
