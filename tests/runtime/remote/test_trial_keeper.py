"""Successes and layouts of a simulated arm, on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.trial_keeper import TrialKeeper
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec

MS = 1_000_000


class TaskedArm(ScriptedRobot):
    """An arm whose task has succeeded when the test says so."""

    done = False

    @property
    def succeeded(self) -> bool:
        return self.done


class Bench:
    """One arm whose layouts are counted, and its trial keeper."""

    def __init__(self, spec: PolicySpec, longest_ns: int | None = 60 * MS) -> None:
        self.clock = VirtualClock(1_000 * MS)
        self.arm = TaskedArm(spec, self.clock)
        self.layouts = 0
        self.trials = TrialKeeper(self.arm, self.clock, self._lay, longest_ns)

    def _lay(self) -> None:
        self.layouts += 1
        self.arm.done = False

    def pass_ms(self, duration_ms: int) -> None:
        for _ in range(duration_ms):
            self.clock.advance_ns(MS)
            self.trials.watch()


@pytest.fixture
def bench(spec: PolicySpec) -> Callable[..., Bench]:
    return lambda **options: Bench(spec, **options)


def test_after_a_success_the_task_is_laid_out_anew(bench: Callable[..., Bench]) -> None:
    trial = bench()
    trial.arm.arm()
    for successes in (1, 2):
        trial.pass_ms(10)
        trial.arm.done = True
        trial.pass_ms(1)
        assert (trial.trials.successes, trial.trials.given_up) == (successes, 0)
        assert trial.layouts == successes


def test_a_success_that_lasts_counts_once(spec: PolicySpec) -> None:
    clock = VirtualClock()
    arm = TaskedArm(spec, clock)
    trials = TrialKeeper(arm, clock)
    arm.done = True
    for _ in range(5):
        trials.watch()
    assert trials.successes == 1


def test_a_layout_that_stays_solved_is_no_second_success(spec: PolicySpec) -> None:
    clock = VirtualClock()
    arm = TaskedArm(spec, clock)
    trials = TrialKeeper(arm, clock)
    for done in (True, False, True):  # A run that begins where the last one ended.
        arm.done = done
        trials.watch()
    assert trials.successes == 1


def test_a_layout_without_success_is_given_up_when_its_time_is_over(
    bench: Callable[..., Bench],
) -> None:
    trial = bench()
    trial.arm.arm()
    trial.pass_ms(60)
    assert trial.layouts == 0
    trial.pass_ms(1)
    assert (trial.layouts, trial.trials.given_up, trial.trials.successes) == (1, 1, 0)
    trial.pass_ms(60)
    assert trial.layouts == 1
    trial.pass_ms(1)
    assert trial.layouts == 2


def test_time_counts_only_while_the_arm_is_armed(bench: Callable[..., Bench]) -> None:
    trial = bench()
    trial.pass_ms(100)
    assert trial.layouts == 0
    trial.arm.arm()
    trial.pass_ms(60)
    assert trial.layouts == 0


def test_a_success_gives_the_next_layout_its_whole_time(bench: Callable[..., Bench]) -> None:
    trial = bench()
    trial.arm.arm()
    trial.pass_ms(50)
    trial.arm.done = True
    trial.pass_ms(1)
    trial.pass_ms(60)
    assert (trial.layouts, trial.trials.given_up) == (1, 0)


def test_a_success_at_the_last_instant_is_not_given_up(bench: Callable[..., Bench]) -> None:
    trial = bench()
    trial.arm.arm()
    trial.pass_ms(60)
    trial.arm.done = True
    trial.pass_ms(1)
    assert (trial.layouts, trial.trials.successes, trial.trials.given_up) == (1, 1, 0)


def test_without_a_longest_time_a_trial_lasts_until_it_succeeds(
    bench: Callable[..., Bench],
) -> None:
    trial = bench(longest_ns=None)
    trial.arm.arm()
    trial.pass_ms(500)
    assert (trial.layouts, trial.trials.given_up) == (0, 0)
