"""Each example runs as a user would run it, with small settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec
from gatort.testing import scripted_policy

EXAMPLES = Path(__file__).parents[1] / "examples"
LONGEST_LINES = 60


def run_example(name: str, *arguments: str | Path, module: str = "") -> str:
    command = [sys.executable, *(["-m", module] if module else [])]
    done = subprocess.run(
        [*command, EXAMPLES / name, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_page_and_names_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_LINES
    assert f"    python examples/{path.name}" in text


def test_the_shipped_policy_is_driven_in_mujoco() -> None:
    pytest.importorskip("mujoco")
    assert "stacked after" in run_example("drive_in_mujoco.py", "--seconds", "1")


def test_an_own_robot_is_driven_and_passes_its_contract() -> None:
    assert "100 ticks, joint at 0.500 rad" in run_example("own_robot.py")
    tested = run_example("own_robot.py", "-q", "-p", "no:cacheprovider", module="pytest")
    assert "14 passed" in tested


def test_a_recording_is_read_and_plotted(tmp_path: Path, spec: PolicySpec) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    from gatort.runtime.recording.messages import RunRecord
    from gatort.runtime.recording.recorder import Recorder
    from gatort.runtime.recording.tick_recorder import TickRecorder

    path = tmp_path / "run.mcap"
    clock = VirtualClock()
    robot = ScriptedRobot(spec, clock)
    loop = scripted_policy(spec, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]).control(robot, clock)
    with Recorder(path, RunRecord.of("scripted", spec, "a machine", clock)) as recorder:
        loop.run(20, TickRecorder(recorder, loop))

    said = run_example("read_recording.py", path, "--out", tmp_path / "plot.png")
    assert "20 ticks" in said
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_expert_of_an_own_task_succeeds(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    said = run_example("own_task.py", tmp_path, "--episodes", "2")
    assert said.count("held after") == 2


@pytest.mark.slow
def test_a_policy_is_trained_on_own_demonstrations(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    said = run_example("own_demonstrations.py", tmp_path, "--episodes", "3", "--steps", "2")
    assert "the policy commands" in said
    assert (tmp_path / "policy" / "bundle" / "policy.onnx").is_file()
