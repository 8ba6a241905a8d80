"""`gatort compare` on reports that the other commands wrote, with figures exchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatort.launch import cli
from gatort.runtime.exit_status import ExitStatus

TRIALS = {
    "bundle": "stack",
    "robot": "mujoco",
    "seed": 5000,
    "episodes": 100,
    "failed_seeds": [],
    "link": {"loss": 0.0},
    "view": None,
}
FAULTS = {"rows": [{"row": 1, "verdict": "held"}, {"row": 2, "verdict": "inconclusive"}]}


def profiled(scale: float, seed: int, slow: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    durations = scale * (4 + random.random(400)) + slow * (np.arange(400) % 20 == 0)
    return {
        "bundle": "stack",
        "engine": "onnx cpu",
        "observations": "scripted",
        "paced": False,
        "latency_ms": {},
        "durations_ms": durations.tolist(),
    }


@pytest.fixture
def compared(tmp_path: Path) -> Any:
    def compare(first: Any, second: Any, *flags: str) -> tuple[int, dict[str, str]]:
        paths = [tmp_path / "first.json", tmp_path / "second.json", tmp_path / "out.json"]
        for path, content in zip(paths, (first, second), strict=False):
            path.write_text(json.dumps(content))
        status = cli.main(["compare", *map(str, paths[:2]), "--json", str(paths[2]), *flags])
        if not paths[2].exists():
            return status, {}
        figures = json.loads(paths[2].read_text())["figures"]
        return status, {each["name"]: each["verdict"] for each in figures}

    return compare


@pytest.mark.parametrize(
    ("first", "second", "verdict", "status"),
    [
        ([], [5001], "no difference shown", ExitStatus.DONE),
        ([], list(range(5000, 5006)), "worse", ExitStatus.NEGATIVE),
        (list(range(5000, 5006)), [5050], "no difference shown", ExitStatus.DONE),
        (list(range(5000, 5010)), [5050], "better", ExitStatus.DONE),
        (list(range(5000, 5010)), list(range(5000, 5010)), "no difference shown", ExitStatus.DONE),
    ],
)
def test_trials_are_compared_layout_by_layout(
    compared: Any, first: list[int], second: list[int], verdict: str, status: ExitStatus
) -> None:
    found = compared(TRIALS | {"failed_seeds": first}, TRIALS | {"failed_seeds": second})
    assert found == (status, {"success": verdict})


@pytest.mark.parametrize(
    ("second", "verdicts", "status"),
    [
        (profiled(1.0, 2), ["no difference shown"] * 2, ExitStatus.DONE),
        (profiled(1.05, 2), ["no difference shown"] * 2, ExitStatus.DONE),
        (profiled(1.5, 2), ["worse"] * 2, ExitStatus.NEGATIVE),
        (profiled(0.5, 2), ["better"] * 2, ExitStatus.DONE),
        (profiled(1.0, 2, slow=20.0), ["no difference shown", "worse"], ExitStatus.NEGATIVE),
    ],
)
def test_durations_are_compared_by_median_and_tail(
    compared: Any, second: dict[str, Any], verdicts: list[str], status: ExitStatus
) -> None:
    found, figures = compared(profiled(1.0, 1), second)
    assert (found, list(figures.values())) == (status, verdicts)


def test_the_tolerance_may_be_nothing(compared: Any) -> None:
    status, _ = compared(profiled(1.0, 1), profiled(1.05, 2), "--tolerance", "0")
    assert status == ExitStatus.NEGATIVE


@pytest.mark.parametrize(
    ("verdict", "judged", "status"),
    [
        ("held", "no difference shown", ExitStatus.DONE),
        ("inconclusive", "no difference shown", ExitStatus.DONE),
        ("broken", "worse", ExitStatus.NEGATIVE),
    ],
)
def test_a_fault_that_held_and_is_broken_now_is_worse(
    compared: Any, verdict: str, judged: str, status: ExitStatus
) -> None:
    second = {"rows": [{"row": 1, "verdict": verdict}, {"row": 2, "verdict": "broken"}]}
    found, figures = compared(FAULTS, second)
    assert (found, figures["row 1"], figures["row 2"]) == (status, judged, "no difference shown")


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (TRIALS, TRIALS | {"seed": 1}, "seed: expected the same in both reports"),
        (TRIALS, FAULTS, "expected two reports of one kind"),
        (TRIALS, {"seed": 1}, "expected a report of `gatort trials`"),
        (TRIALS, [1], "second.json: "),
        (TRIALS, TRIALS | {"failed_seeds": [4999]}, "expected seeds from 5000 to 5099, found 4999"),
        (TRIALS, TRIALS | {"episodes": 0}, "episodes: expected at least 1"),
        (FAULTS, {"rows": FAULTS["rows"][:1]}, "found row 2 in one of them alone"),
        (profiled(1, 1), profiled(1, 1) | {"paced": True}, "paced: expected the same"),
        (profiled(1, 1), profiled(1, 1) | {"durations_ms": [1.0]}, "durations_ms: expected"),
    ],
)
def test_reports_that_cannot_be_compared_are_refused_in_one_sentence(
    compared: Any, first: Any, second: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(first, second) == (ExitStatus.REFUSED, {})
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert sentence in found


def test_the_reports_of_gatort_itself_can_be_read(
    bundle: Path, tmp_path: Path, compared: Any
) -> None:
    report = tmp_path / "own.json"
    flags = ["--bundle", str(bundle), "--robot", "scripted", "--flat-out", "--ticks", "120"]
    assert cli.main(["profile", *flags, "--json", str(report)]) == ExitStatus.DONE
    own = json.loads(report.read_text())
    assert len(own["durations_ms"]) == 120
    assert compared(own, own)[0] == ExitStatus.DONE
