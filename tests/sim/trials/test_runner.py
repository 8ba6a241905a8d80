"""Trials: the same seed gives the same trial, over every link and in every process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gatort.policies.loading import SHIPPED_BUNDLE, PolicyOptions, load_policy
from gatort.runtime.bundle import load_manifest
from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import ConfigError
from gatort.runtime.policy import Policy
from gatort.sim.trials.journal import Journal, Trial
from gatort.sim.trials.runner import TrialRunner, TrialSetup, require_unseen, run_trials

RunnerOver = Callable[..., TrialRunner]


def outcome(trial: Trial) -> dict[str, object]:
    return trial.model_dump(exclude={"policy_us"})


def test_the_same_seed_gives_the_same_trial_after_another_one(runner_over: RunnerOver) -> None:
    runner = runner_over()
    first, _, again = (runner.run(seed) for seed in (40, 41, 40))
    assert outcome(first) == outcome(again)


def test_the_same_seed_samples_the_same_actions_at_a_temperature() -> None:
    warm = partial(load_policy, PolicyOptions(threads=1), Sampler(2.0))
    runner = TrialRunner(TrialSetup(load_policy=warm, seconds=0.5))
    positions = []
    for seed in (40, 41, 40):
        runner.run(seed)
        positions.append(runner.robot.positions.copy())
    assert (positions[0] == positions[2]).all()
    assert (positions[0] != positions[1]).any()


def test_a_delay_within_the_budget_costs_nothing_and_a_longer_one_arms_nothing(
    runner_over: RunnerOver,
) -> None:
    within, beyond = (runner_over(delay_ms=delay_ms).run(40) for delay_ms in (12, 13))
    assert (within.ticks, within.refused, within.dropped) == (20, 0, 0)
    assert (beyond.ticks, beyond.succeeded) == (0, False)
    assert beyond.refusal is not None
    assert "within 25 ms" in beyond.refusal


def test_the_arm_drops_late_commands_and_goes_to_safe_by_itself(runner_over: RunnerOver) -> None:
    runner = runner_over(delay_ms=11.7, jitter_ms=1)
    late = [trial for seed in range(40, 46) if (trial := runner.run(seed)).dropped > 1]
    assert late
    assert all(trial.ticks < 20 for trial in late)


def test_a_single_loss_costs_nothing_because_each_command_is_sent_twice(
    runner_over: RunnerOver,
) -> None:
    few, many = (runner_over(loss=loss).run(40) for loss in (0.05, 0.35))
    assert (few.lost, few.ticks) == (0, 20)
    assert many.lost > 0


def test_the_same_seed_meets_the_same_link_and_another_seed_meets_another(
    runner_over: RunnerOver,
) -> None:
    runner = runner_over(jitter_ms=10, loss=0.3)
    first, other, again = (runner.run(seed) for seed in (40, 41, 40))
    assert outcome(first) == outcome(again)
    assert (first.refused, first.lost, first.ticks) != (other.refused, other.lost, other.ticks)


def test_trials_in_the_journal_are_not_run_again(
    stack_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = TrialSetup(load_policy=lambda: stack_policy, seconds=0.2)
    journal = Journal(tmp_path / "t.json", load_manifest(SHIPPED_BUNDLE), PolicyOptions())
    ran = []
    run = TrialRunner.run
    monkeypatch.setattr(
        TrialRunner, "run", lambda runner, seed: ran.append(seed) or run(runner, seed)
    )
    first = list(run_trials(setup, [40], journal=journal))
    both = list(run_trials(setup, [40, 41], journal=journal))
    assert ran == [40, 41]
    assert both[0] == first[0]
    assert journal.read() == both


def test_two_processes_find_the_same_as_one() -> None:
    load = partial(load_policy, PolicyOptions(threads=1))
    setup = TrialSetup(load_policy=load, seconds=0.5)
    alone = sorted(run_trials(setup, [40, 41]), key=lambda each: each.seed)
    shared = sorted(run_trials(setup, [40, 41], workers=2), key=lambda each: each.seed)
    assert [outcome(each) for each in alone] == [outcome(each) for each in shared]


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (range(999_999, 1_000_001), r"1000000 to .* for training: choose seeds outside them"),
        (range(1_999_999, 2_000_000), "demonstrations use 1000000 to 1999999 for training"),
    ],
)
def test_training_seeds_are_refused_whatever_the_manifest_says(seeds: range, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        require_unseen(seeds, load_manifest(SHIPPED_BUNDLE))
