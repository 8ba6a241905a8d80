"""`gatort run`, half a second at a time and mostly on a virtual clock, and the bundles and robots
that it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatort.launch import cli, run_report
from gatort.runtime.bundle import MANIFEST_FILE, ONNX_FILE
from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import RobotError
from gatort.runtime.live_run import LiveRun
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording.messages import ObservationMessage, arrays
from gatort.runtime.recording.reader import Recording
from gatort.runtime.robot import Observation
from gatort.sim import graphics
from gatort.sim.film import FILM_SIZE
from gatort.sim.insets import placed
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC


@pytest.fixture(autouse=True)
def in_an_empty_directory_and_virtual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", VirtualClock)


def run(bundle: Path, *arguments: str) -> int:
    return cli.main(["run", "--bundle", str(bundle), "--seconds", "0.5", *arguments])


def edit_manifest(bundle: Path, edit: Any) -> None:
    path = bundle / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_run_ends_with_a_summary_a_latency_picture_and_its_figures(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--json", "r.json", "--seed", "7") == 0
    text = capsys.readouterr().out
    assert "seed 7: no success after 0.5 s; 10 ticks" in text
    assert "passes a tick: mean" in text
    assert (tmp_path / "runs" / "latency.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["ticks"], record["succeeded"], record["stopped"]) == (10, False, False)
    assert list(record["latency_ms"])[:3] == ["tick", "observe", "tokenize"]
    assert record["latency_ms"]["tick"].keys() == {"p50", "p99", "p99.9", "max"}


def test_a_run_whose_actions_come_too_late_is_stopped_and_exits_with_1(
    bundle: Path,
    slow_clock: type[VirtualClock],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", slow_clock)
    assert run(bundle, "--json", "r.json") == 1
    record = json.loads(Path("r.json").read_text())
    assert record["stopped"]
    assert record["ticks"] < 10
    assert record["refused"]["observation refused"] > 0
    text = capsys.readouterr().out
    assert "stopped in" in text
    assert "action deadline 25 ms" in " ".join(text.split())
    assert record["deadline_ms"] == 25
    assert record["scheduling"]
    assert record["processor"].keys() >= {"waited_s", "preempted", "others_s", "takers"}


def test_a_prompt_precedes_the_first_observation(
    bundle: Path, prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--prompt", str(prompt)) == 0
    prompt.write_bytes(prompt.read_bytes()[:500])
    assert run(bundle, "--prompt", str(prompt)) == 2
    assert "expected an episode as a whole NPZ file" in capsys.readouterr().err


def test_a_run_wakes_at_the_control_rate_of_its_clock(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines_ns: list[int] = []

    class WatchedClock(VirtualClock):
        def sleep_until_ns(self, deadline_ns: int) -> None:
            super().sleep_until_ns(deadline_ns)
            deadlines_ns.append(deadline_ns)

    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", WatchedClock)
    assert run(pristine_bundle, "--json", "r.json") == 0
    assert json.loads(Path("r.json").read_text())["ticks"] == len(deadlines_ns) == 10
    assert set(np.diff(deadlines_ns)) == {50_000_000}


def test_ctrl_c_stops_the_robot_and_still_gives_the_summary(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look = LiveRun._look

    def press_ctrl_c(live: LiveRun, tick: TickRecord) -> bool:
        look(live, tick)
        if live.telemetry.ticks == 3:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(LiveRun, "_look", press_ctrl_c)
    assert run(bundle, "--json", "r.json") == 130
    record = json.loads(Path("r.json").read_text())
    assert (record["ticks"], record["interrupted"], record["stopped"]) == (3, True, False)
    assert "no success, stopped by the operator after 0.1 s" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_dry_run_predicts_each_command_and_is_marked_as_one(
    pristine_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(pristine_bundle, "--dry-run", "--json", "r.json", "--record", "dry.mcap") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "dry run after 0.5 s; 10 ticks" in text
    assert "dry run: none of 10 commands would have broken a limit of the arm" in text
    dry = json.loads(Path("r.json").read_text())["dry_run"]
    assert (dry["ticks"], dry["broken"], dry["first"]) == (10, 0, None)
    assert all(len(dry[key]) == 7 for key in ("torque_nm", "torque_change_nm", "speed_rad_s"))
    assert min(dry["room_rad"]) > 0.3
    recording = Recording(Path("dry.mcap"))
    assert recording.run.robot == "mujoco (dry run)"
    seen = [each.message for each in recording.messages()]
    joints = [
        arrays(each.values, recording.run.interface.observations)[0]
        for each in seen
        if isinstance(each, ObservationMessage)
    ]
    assert np.abs(joints[-1] - joints[0]).max() < 1e-4  # The arm was never driven.


def test_a_dry_run_that_would_break_a_limit_ends_with_1_and_names_the_first(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = dataclasses.replace(run_report.PANDA_LIMITS, speed_rad_s=(0.01,) * 7)
    monkeypatch.setattr(run_report, "PANDA_LIMITS", slow)
    assert run(pristine_bundle, "--dry-run", "--json", "r.json") == 1
    dry = json.loads(Path("r.json").read_text())["dry_run"]
    assert 0 < dry["broken"] <= dry["ticks"] == 10
    text = " ".join(capsys.readouterr().out.split())
    assert f"{dry['broken']} of 10 commands would have broken a limit of the arm; tick" in text
    assert "above its limit of 0.01" in text


@pytest.mark.parametrize("flag", [("--arm",), ("--viewer",), ("--video", "run.mp4")])
def test_a_dry_run_moves_nothing_that_could_be_armed_or_watched(
    pristine_bundle: Path, flag: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(pristine_bundle, "--dry-run", *flag) == 2
    assert "leave" in capsys.readouterr().err


def diverge_at(observation: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the robot fail where it reads its sensors; the first observation comes before the first
    tick."""
    observe, count = SimulatedRobot.observe, iter(range(1, 1_000))

    def observe_or_fail(robot: SimulatedRobot) -> Observation:
        if next(count) == observation:
            raise error
        return observe(robot)

    monkeypatch.setattr(SimulatedRobot, "observe", observe_or_fail)


def test_a_robot_that_fails_in_a_run_is_reported_with_figures_and_exit_status_1(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge_at(5, RobotError("the simulation diverged"), monkeypatch)
    assert run(bundle, "--json", "r.json") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "no success, the robot failed (the simulation diverged) after 0.2 s; 4 ticks" in text
    record = json.loads(Path("r.json").read_text())
    assert (record["stopped"], record["ticks"]) == (True, 4)
    assert record["failure"] == "the robot failed (the simulation diverged)"
    assert Path("runs", "latency.png").exists()


def test_a_robot_that_fails_in_the_very_first_tick_is_reported_too(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge_at(2, RobotError("the simulation diverged"), monkeypatch)
    assert run(bundle, "--json", "r.json") == 1
    assert json.loads(Path("r.json").read_text())["ticks"] == 1


def test_a_robot_that_fails_before_the_first_tick_is_refused_in_one_sentence(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge_at(1, RobotError("no answer"), monkeypatch)
    assert run(bundle) == 2
    assert capsys.readouterr().err == "gatort: no answer\n"
    assert not list(Path().rglob("*.mcap"))


def test_ctrl_c_before_the_first_tick_gives_a_summary_without_latencies(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge_at(1, KeyboardInterrupt(), monkeypatch)
    assert run(bundle, "--json", "r.json") == 130
    assert "0 ticks" in capsys.readouterr().out
    assert json.loads(Path("r.json").read_text())["latency_ms"] == {}
    assert not Path("runs", "latency.png").exists()


def test_a_film_is_drawn_after_the_run(bundle: Path) -> None:
    if graphics.choose_gl() is None:
        pytest.skip(graphics.INSTALL_HINT)
    assert run(bundle, "--video", "run.mp4") == 0
    assert b"ftyp" in Path("run.mp4").read_bytes()[:12]


def test_a_film_shows_the_pictures_that_the_policy_got(camera_bundle: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    # Random weights may be stopped before the time is up.
    assert run(camera_bundle, "--video", "run.mp4", "--record", "run.mcap") in (0, 1)
    keys = CAMERA_SPEC.observations
    observed = [
        arrays(each.message.values, keys)[:2]
        for each in Recording(Path("run.mcap")).messages()
        if isinstance(each.message, ObservationMessage)
    ]
    height, width = FILM_SIZE
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "run.mp4"]
    raw = subprocess.run(
        [*decode, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    films = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    assert len(films) == len(observed) > 3
    for frame, pictures in zip(films, observed, strict=True):
        for left, bottom, inset in placed(pictures, height):
            rows, columns = inset.shape[:2]
            shown = frame[height - bottom - rows : height - bottom, left : left + columns]
            # Levels of 255: the film's codec blurs edges. Another tick's picture is as close here,
            # so test_picture_track.py checks that a tick keeps its own.
            assert np.abs(shown.astype(int) - inset).mean() < 8


def test_without_a_gl_library_a_run_goes_on_with_and_without_a_film(pristine_bundle: Path) -> None:
    # A process of its own: MuJoCo reads MUJOCO_GL when it is imported, and this value would spoil
    # the import.
    code = (
        "import sys, gatort.launch.commands.run as run; from gatort.launch.cli import main; "
        "from gatort.runtime.clock import VirtualClock; run.MonotonicClock = VirtualClock; "
        f"flags = ['run', '--bundle', {str(pristine_bundle)!r}, '--seconds', '0.5']; "
        "sys.exit(main(flags) or main([*flags, '--video', 'run.mp4']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MUJOCO_GL": "no such library"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "drawing runs/latency.png …\n" * 2)
    assert ran.stdout.count("no film: apt-get install libegl1") == 1
    assert not Path("run.mp4").exists()


def test_without_ffmpeg_the_run_goes_on_and_says_so_before_it_begins(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatort.sim.film.installed_version", lambda _: None)
    assert run(bundle, "--video", "run.mp4") == 0
    assert "no film: films need ffmpeg: pip install 'gatort[sim]'" in capsys.readouterr().out
    assert not Path("run.mp4").exists()


def change_a_byte(bundle: Path) -> None:
    onnx = bundle / ONNX_FILE
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"\0")


def drop_the_model(bundle: Path) -> None:
    (bundle / ONNX_FILE).unlink()


def cut_the_manifest(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(path.read_text()[:200])


def widen_the_model(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest["model"].update(heads=4))


def ask_for_a_force(bundle: Path) -> None:
    edit_manifest(
        bundle, lambda manifest: manifest["spec"]["observations"][-1].update(name="hand/force")
    )


def limit_a_torque_to_zero(bundle: Path) -> None:
    edit_manifest(
        bundle, lambda manifest: manifest["spec"]["actuators"][0].update(low=0.0, high=0.0)
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change_a_byte, "policy.onnx: changed since the bundle was written"),
        (drop_the_model, "policy.onnx: expected a file that the manifest names, found none"),
        (cut_the_manifest, "manifest.json: the file: expected JSON"),
        (widen_the_model, "model.safetensors: expected at least"),
        (ask_for_a_force, "lacks observation key 'hand/force'; it offers arm/joint_position"),
        (limit_a_torque_to_zero, "expected low < high, found [0.0, 0.0] N·m"),
    ],
)
def test_a_bundle_that_is_damaged_or_made_for_another_robot_is_refused(
    bundle: Path, damage: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(bundle)
    assert run(bundle) == 2
    assert sentence in capsys.readouterr().err


def test_without_a_bundle_the_policy_with_cameras_runs_where_pictures_can_be_drawn(
    camera_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.launch.commands.run.SHIPPED_CAMERA_BUNDLE", camera_bundle)
    assert cli.main(["run", "--seconds", "0.2", "--json", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["bundle"] == "random"


def test_without_pictures_the_policy_without_cameras_runs_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatort.launch.commands.run.choose_gl", lambda: None)
    assert cli.main(["run", "--seconds", "0.5", "--json", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["bundle"] == "stack"
    said = " ".join(capsys.readouterr().err.split())
    assert "no pictures, so a policy runs that is told where the blocks lie" in said
