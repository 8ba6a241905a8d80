"""`gatort trials` over a link, and `--sweep`: where a task fails is known before an arm is powered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.launch.commands.trials import (
    Trialist,
    TrialOptions,
)
from gatort.launch.journal import Journal
from gatort.launch.options import resolve
from gatort.launch.sweep import (
    VALUES,
    along,
)
from gatort.runtime.bundle import load_manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.remote.link import LinkConditions


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatort.sim.tasks.stacking.task.Stacking.seconds", 1.0)


def options(bundle: Path, **link: float) -> TrialOptions:
    return resolve(TrialOptions, TrialOptions(bundle=bundle, link=LinkConditions(**link)), None)


def sweep(bundle: Path, tmp_path: Path, *arguments: str) -> int:
    which = ["--bundle", str(bundle), "--episodes", "2", "--seed", "40", "--workers", "1"]
    return cli.main(["trials", *which, "--plot", str(tmp_path / "s.png"), *arguments])


def test_a_delay_within_the_budget_costs_nothing_and_with_one_beyond_it_nothing_is_armed(
    bundle: Path,
) -> None:
    within, beyond = (Trialist(options(bundle, delay_ms=delay_ms)).run(40) for delay_ms in (12, 13))
    assert (within.ticks, within.refused, within.dropped) == (20, 0, 0)
    assert (beyond.ticks, beyond.succeeded) == (0, False)
    assert beyond.refusal is not None
    assert "within 25 ms" in beyond.refusal


def test_late_commands_are_dropped_by_the_arm_which_goes_to_safe_by_itself(bundle: Path) -> None:
    trialist = Trialist(options(bundle, delay_ms=11.7, jitter_ms=1))
    late = [trial for seed in range(40, 46) if (trial := trialist.run(seed)).dropped > 1]
    assert late
    assert all(trial.ticks < 20 for trial in late)


def test_lost_commands_are_counted_and_single_losses_cost_none_for_each_is_sent_twice(
    bundle: Path,
) -> None:
    lossy = [Trialist(options(bundle, loss=loss)).run(40) for loss in (0.05, 0.35)]
    assert (lossy[0].lost, lossy[0].ticks) == (0, 20)
    assert lossy[1].lost > 0


def test_the_same_seed_meets_the_same_link_and_another_seed_another(bundle: Path) -> None:
    trialist = Trialist(options(bundle, jitter_ms=10, loss=0.3))
    first, other, again = (trialist.run(seed) for seed in (40, 41, 40))
    assert first.model_dump(exclude={"policy_us"}) == again.model_dump(exclude={"policy_us"})
    assert (first.refused, first.lost, first.ticks) != (other.refused, other.lost, other.ticks)


def test_each_link_has_a_journal_of_its_own(bundle: Path, tmp_path: Path) -> None:
    manifest = load_manifest(bundle)
    links = ({}, {"delay_ms": 5}, {"loss": 0.1}, {"link_seed": 1})
    assert len(
        {Journal(tmp_path / "t.json", manifest, options(bundle, **link)).path for link in links}
    ) == len(links)


def test_a_sweep_reports_each_value_and_draws_a_picture(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "s.json"
    assert (
        sweep(bundle, tmp_path, "--sweep", "delay", "--values", "0", "15", "--json", str(report))
        == 0
    )
    record = json.loads(report.read_text())
    assert record["sweep"] == "delay"
    assert [(point["delay_ms"], point["episodes"]) for point in record["points"]] == [
        (0, 2),
        (15, 2),
    ]
    assert [point["missing"] for point in record["points"]] == [0, 1]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "100.0%" in capsys.readouterr().out


def test_a_sweep_goes_on_where_it_was_stopped(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, run, ran = tmp_path / "s.json", Trialist.run, []
    arguments = ("--sweep", "loss", "--values", "0", "0.5", "--json", str(report))

    def run_until_ctrl_c(trialist: Trialist, seed: int) -> object:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((trialist.options.link.loss, seed))
        return run(trialist, seed)

    monkeypatch.setattr(Trialist, "run", run_until_ctrl_c)
    assert sweep(bundle, tmp_path, *arguments) == 130
    assert ran == [(0, 40), (0, 41), (0.5, 40)]
    ran.clear()
    assert sweep(bundle, tmp_path, *arguments) == 0
    assert ran == [(0.5, 41)]


def test_each_sweep_starts_from_a_perfect_link_and_keeps_the_other_conditions() -> None:
    for axis, values in VALUES.items():
        link = LinkConditions() if axis == "loss" else LinkConditions(loss=0.01)
        links = along(link, axis, None)
        assert len(links) == len(values)
        assert links[0] == link
        assert all(each.loss == 0.01 for each in links) == (axis != "loss")


def test_a_value_that_no_link_has_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"--values: loss: .* less than or equal to 1, found 2"):
        along(LinkConditions(), "loss", [0, 2])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sweep", "delay", "--delay-ms", "5"), "--sweep delay sets --delay-ms itself"),
        (("--values", "5"), "add --sweep delay"),
        (("--loss", "0.1", "--record"), "leave out the link's conditions"),
        (("--sweep", "latency"), "latency"),
        (("--loss", "1.5"), "less than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    assert sweep(bundle, tmp_path, *arguments) == 2
    assert sentence in capsys.readouterr().err
