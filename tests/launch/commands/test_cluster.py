"""`--cluster`: two machines of a Ray cluster find the same as this one, also if one is lost."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.ray_cluster import LONGEST_S, RayCluster, finished, gatort, two_machines
from tests.waiting import becomes

from gatort.launch import cli
from gatort.runtime.packages import installed_version
from gatort.studies.record import StudyRecord, TrialOutcome

ROOT = Path(__file__).parents[3]
STUDY = """
question = "Does drawing tokens hurt?"
layouts = 6
seconds = 4.0

[variants.likeliest]
bundle = "stack"

[variants.drawn]
bundle = "stack"
temperature = 5.0
"""

pytestmark = pytest.mark.skipif(installed_version("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster for the tests that leave it as it is."""
    with two_machines() as cluster:
        yield cluster


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return locked_study(tmp_path / "pick.toml")


def locked_study(path: Path) -> Path:
    path.write_text(STUDY, encoding="utf-8")
    assert cli.main(["study", "lock", str(path)]) == 0
    return path


def outcomes(study: Path) -> dict[int, TrialOutcome]:
    record = StudyRecord(study)
    assert len(record.trials) == len(record.outcomes)  # None twice, and none void.
    return record.outcomes


def trials_in(study: Path) -> int:
    return StudyRecord(study).path.read_bytes().count(b"\n") - 1


@pytest.mark.slow
def test_a_study_goes_on_without_a_machine_that_is_lost_and_finds_the_same_as_without_ray(
    study: Path, tmp_path: Path
) -> None:
    with two_machines() as cluster:
        run = gatort("study", "run", study, "--cluster", cluster.address)
        assert becomes(lambda: trials_in(study) >= 3, LONGEST_S)
        cluster.lose_the_second_machine()
        before = trials_in(study)
        status, text = finished(run)

    assert status == 0, text
    assert before < 12
    assert sorted(outcomes(study)) == list(range(12))

    alone = locked_study(tmp_path / "alone.toml")
    assert cli.main(["study", "run", str(alone), "--workers", "1"]) == 0
    assert outcomes(study) == outcomes(alone)


@pytest.mark.slow
def test_ctrl_c_stops_a_study_and_the_same_command_continues(
    study: Path, cluster: RayCluster
) -> None:
    run = gatort("study", "run", study, "--cluster", cluster.address)
    assert becomes(lambda: trials_in(study) >= 2, LONGEST_S)
    run.send_signal(signal.SIGINT)
    status, text = finished(run)
    before = StudyRecord(study).lines
    assert status == 130, text
    assert re.search(r"stopped with \d+ of 12 trials in .*; the same command continues", text)

    status, text = finished(gatort("study", "run", study, "--cluster", cluster.address))
    assert status == 0, text
    assert StudyRecord(study).lines[: len(before)] == before
    assert sorted(outcomes(study)) == list(range(12))


@pytest.mark.slow
def test_trials_are_those_of_this_machine(cluster: RayCluster, tmp_path: Path) -> None:
    for name, flags in (("far", ["--cluster", cluster.address]), ("here", ["--workers", "1"])):
        report = tmp_path / f"{name}.json"
        run = gatort("trials", "--episodes", "3", "--seed", "5000", "--json", report, *flags)
        status, text = finished(run)
        assert status == 0, text
    far, here = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("far", "here"))
    assert (far["cluster"], far["workers"]) == (cluster.address, None)
    assert (here["cluster"], here["workers"]) == (None, 1)
    assert far.keys() == here.keys()
    for key in here.keys() - {"cluster", "workers", "latency_ms", "report"}:
        assert far[key] == here[key]


@pytest.mark.slow
def test_demonstrations_are_those_of_this_machine(cluster: RayCluster, tmp_path: Path) -> None:
    far, here = tmp_path / "far", tmp_path / "here"
    for folder, flags in ((far, ["--cluster", cluster.address]), (here, ["--workers", "1"])):
        status, text = finished(gatort("demos", folder, "--episodes", "2", *flags))
        assert status == 0, text
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in far.iterdir())
    assert (far / "demonstrations.json").read_text() == (here / "demonstrations.json").read_text()
    for name in (name for name in names if name.endswith(".npz")):
        with np.load(far / name) as there, np.load(here / name) as alone:
            assert there.files == alone.files
            assert all(np.array_equal(there[key], alone[key]) for key in alone.files)


@pytest.mark.slow
def test_a_machine_with_other_code_is_refused_before_the_first_trial(
    study: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "gatort"
    shutil.copytree(ROOT / "src" / "gatort", other, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "sim" / "robot.py").open("a", encoding="utf-8") as source:
        source.write("# another release\n")

    with two_machines(other.parent) as cluster:
        status, text = finished(gatort("study", "run", study, "--cluster", cluster.address))

    assert status == 2, text
    assert "expected gatort's code as on the machine that asks, found another" in text
    assert trials_in(study) == 0


@pytest.mark.slow
def test_a_cluster_without_a_processor_left_ends_in_one_sentence(study: Path) -> None:
    with two_machines(first_cpus=0) as cluster:
        run = gatort("study", "run", study, "--cluster", cluster.address)
        assert becomes(lambda: trials_in(study) >= 1, LONGEST_S)
        cluster.lose_the_second_machine()
        status, text = finished(run)

    assert status == 2, text
    assert "expected a machine with a processor in the cluster, found none" in text


def test_an_address_where_nothing_listens_is_refused(study: Path) -> None:
    status, text = finished(gatort("study", "run", study, "--cluster", "ray://127.0.0.1:1"))
    assert status == 2
    assert "ray://127.0.0.1:1: expected the head of a Ray cluster, found: " in text
    assert "Connection refused" in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--cluster", "tcp://10.0.0.1:5"], "expected the address of a Ray cluster, such as ray:/"),
        (["--cluster", "ray://10.0.0.1"], "expected the address of a Ray cluster, such as ray://"),
        (["--cluster", "ray://a:1", "--workers", "2"], "--workers has no effect with --cluster"),
        (["--cluster", "ray://a:1", "--engine", "onnx-cuda"], "expected an engine on a CPU (onnx,"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trials", *flags]) == 2
    assert sentence in capsys.readouterr().err
