"""`gatort compare` on reports that the other commands wrote, with figures exchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatort.launch import cli
from gatort.launch.report_kinds import VERSIONS, ReportKind
from gatort.runtime.exit_status import ExitStatus

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "quota_cores": None,
    "memory_gib": 8.0,
    "system": "Linux 6",
    "python": "3.11.9",
    "versions": {},
}


def origin(kind: ReportKind) -> dict[str, Any]:
    written = {"kind": kind, "schema": VERSIONS[kind], "gatort": "0", "date": "2026-11-29"}
    return {"report": written, "machine": MACHINE}


TRIALS = {
    **origin("trials"),
    "bundle": "stack",
    "bundle_sha256": "0" * 64,
    "engine": "onnx",
    "precision": "fp32",
    "robot": "mujoco",
    "seed": 5000,
    "episodes": 100,
    "failed_seeds": [],
    "link": {"loss": 0.0},
    "view": None,
}
FAULTS = {
    **origin("faults"),
    "rows": [{"row": 1, "verdict": "held"}, {"row": 2, "verdict": "inconclusive"}],
}


def profiled(scale: float, seed: int, slow: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    durations = scale * (4 + random.random(400)) + slow * (np.arange(400) % 20 == 0)
    return {
        **origin("profile"),
        "bundle": "stack",
        "engine": "onnx cpu",
        "threads": 2,
        "observations": "scripted",
        "paced": False,
        "durations_ms": durations.tolist(),
    }


@pytest.fixture
def compared(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("reports")  # Their keys are only those that are compared.

    def compare(first: Any, second: Any, *flags: str) -> tuple[int, dict[str, str]]:
        paths = [made / "first.json", made / "second.json", tmp_path / "out.json"]
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
    rows = [{"row": 1, "verdict": verdict}, {"row": 2, "verdict": "broken"}]
    found, figures = compared(FAULTS, FAULTS | {"rows": rows})
    assert (found, figures["row 1"], figures["row 2"]) == (status, judged, "no difference shown")


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (TRIALS, TRIALS | {"seed": 1}, "seed: expected the same in both reports"),
        (TRIALS, FAULTS, "expected two reports of one kind"),
        (TRIALS, {"seed": 1}, "expected a report of `gatort trials`"),
        (TRIALS, TRIALS | origin("info"), "found one of the kind 'info'"),
        (TRIALS, TRIALS | {"report": {"schema": 1, "gatort": "0.9"}}, "kind"),
        (
            TRIALS,
            TRIALS | {"report": origin("trials")["report"] | {"schema": 99}},
            "expected version 1 of the kind trials, found version 99, written by gatort 0",
        ),
        (TRIALS, [1], "second.json: "),
        (TRIALS, TRIALS | {"failed_seeds": [4999]}, "expected seeds from 5000 to 5099, found 4999"),
        (TRIALS, TRIALS | {"episodes": 0}, "episodes: expected at least 1"),
        (FAULTS, FAULTS | {"rows": FAULTS["rows"][:1]}, "found row 2 in one of them alone"),
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


def test_the_subjects_are_named_and_two_machines_are_noticed(
    compared: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = profiled(1.0, 2) | {"engine": "native", "machine": MACHINE | {"cores": 8}}
    assert compared(profiled(1.0, 1), other)[0] == ExitStatus.DONE
    said = capsys.readouterr().out
    assert "stack, onnx cpu, 2 threads, gatort 0, 2026-11-29, a processor, 2 cores" in said
    assert "stack, native, 2 threads" in said
    assert "two machines (cores 2 → 8): the figures compare these as well" in said
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["second"]["machine"] == "a processor, 8 cores, 8 GiB"
    assert len(found["notes"]) == 1
    assert compared(profiled(1.0, 1), profiled(1.0, 1))[0] == ExitStatus.DONE
    assert "two machines" not in capsys.readouterr().out
