"""`gatort doctor` shows the parts of a machine, and the install line of each missing part."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.runtime.robots.franka.control_box import ControlBox

from gatort.launch import cli
from gatort.launch.commands import doctor
from gatort.runtime import grant, machine
from gatort.runtime.robots.franka import computer
from gatort.runtime.robots.franka.computer import examine_arm_computer
from gatort.runtime.robots.franka.fci import Ask, Fci
from gatort.sim import graphics
from gatort.sim import make as robots


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    graphics.choose_gl.cache_clear()
    yield
    graphics.choose_gl.cache_clear()


def findings() -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine()}


def test_every_subject_of_a_machine_is_examined_and_written_as_json(tmp_path: Path) -> None:
    report = tmp_path / "d.json"
    assert cli.main(["doctor", "--json", str(report)]) in (0, 1)
    subjects = {finding["subject"] for finding in json.loads(report.read_text())["findings"]}
    assert subjects >= {
        "Python",
        "processor",
        "memory",
        "shared memory",
        "ONNX Runtime",
        "C compiler",
        "GL",
        "rendered frame",
        "TensorRT",
        "clock",
        "SCHED_FIFO",
    }


def test_a_missing_part_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda _: None)
    examined = findings()
    assert examined["simulator"].mend == "pip install 'gatort[sim]'"
    assert examined["training"].mend == "pip install 'gatort[train]'"
    assert examined["latency pictures"].mend == "pip install 'gatort[trials]'"
    assert examined["rendered frame"].state == "absent"
    assert all(finding.mend for finding in examined.values() if finding.state != "ok")


def test_without_a_compiler_the_debian_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = doctor._compiler()
    assert found.state == "absent"
    assert "gcc" in found.mend


def test_without_a_gl_library_the_debian_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no such library")
    found = doctor._gl()
    assert found.state == "absent"
    assert "libegl1" in found.mend
    assert "libosmesa6" in found.mend


def test_a_missing_bundle_is_broken_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "SHIPPED_BUNDLE", tmp_path / "nowhere")
    assert doctor._shipped_bundle().state == "broken"
    assert cli.main(["doctor"]) == 1


def test_the_frame_that_is_rendered_is_neither_black_nor_white() -> None:
    if graphics.choose_gl() is None:
        pytest.skip(graphics.INSTALL_HINT)
    found = doctor._rendered_frame()
    assert found.state == "ok"
    assert 20 < float(found.found.split("brightness ")[1].split(" of")[0]) < 240
    assert robots.simulator_installed()


def test_the_install_line_is_printed_with_its_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda _: None)
    cli.main(["doctor"])
    assert "'gatort[sim]'" in capsys.readouterr().out


def test_a_quota_and_a_memory_limit_are_told_with_their_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "20000 100000\n",
        "sys/fs/cgroup/cpu.stat": "nr_periods 204\nnr_throttled 199\nthrottled_usec 16000000\n",
        "sys/fs/cgroup/memory.max": "536870912\n",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(doctor, "read_grant", lambda: grant.read_grant(tmp_path))
    monkeypatch.setattr(machine, "read_grant", lambda: grant.read_grant(tmp_path))
    processor, memory = doctor._processor(), doctor._memory()
    assert processor.state == memory.state == "absent"
    assert "with a CPU quota of 0.2, 0.5 GiB" in processor.found
    assert "throttled in 199 of 204 periods" in processor.found
    assert "docker --cpus" in processor.mend
    assert memory.found == "0.5 GiB, by the limit of a control group"


def test_a_processor_without_wheels_is_told_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(doctor, "installed_version", lambda _: None)
    examined = findings()
    assert "pybullet has no wheel for aarch64" in examined["second simulator"].mend
    assert "pylibfranka has no wheel for aarch64" in examined["Franka hand"].mend
    assert "written for x86-64" in examined["C compiler"].found


def test_without_shared_memory_the_remedy_is_one_worker() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can take /dev/shm away")
    code = (
        "from gatort.launch.commands.doctor import _shared_memory\n"
        "from gatort.sim.workers import spread\n"
        "print(_shared_memory())\n"
        "list(spread(int, [1, 2], 2))\n"
    )
    script = 'mount -t tmpfs -o ro none /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if not done.stdout:
        pytest.skip(f"no mounts of one's own here: {done.stderr}")
    assert "state='absent'" in done.stdout
    assert "--workers 1" in done.stdout
    assert "WorkerError: cannot start workers" in done.stderr


# -- A Franka arm's computer -----------------------------------------------------------------------


@pytest.fixture
def box() -> Iterator[ControlBox]:
    with closing(ControlBox("127.0.8.1")) as box:
        yield box


def examined_arm(address: str) -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in examine_arm_computer(address)}


def test_the_computer_of_a_franka_arm_is_examined_without_a_request_but_the_first(
    box: ControlBox,
) -> None:
    found = examined_arm("127.0.8.1")
    assert list(found) == [
        "kernel", "CPU governor", "isolated cores", "control box", "network card", "arm's states",
    ]  # fmt: skip
    assert found["control box"].found == "127.0.8.1, protocol 10"
    assert found["arm's states"].found.startswith("100.0% arrived; gaps p50")
    assert [ask for ask, _ in box.asked] == [Ask.CONNECT]


def test_an_arm_whose_states_do_not_arrive_is_broken(box: ControlBox) -> None:
    box.is_silent = True
    found = examined_arm("127.0.8.1")["arm's states"]
    assert (found.state, found.found) == ("broken", "0 of 1000 arrived")
    assert "firewall" in found.mend


def test_an_arm_that_gatort_holds_is_named_so_and_is_no_defect(box: ControlBox) -> None:
    with closing(Fci("127.0.8.1")):
        found = examined_arm("127.0.8.1")["control box"]
    assert found.state == "absent"
    assert found.found.startswith("held: a program of this computer, such as `gatort robot`, is c")
    assert "run `gatort doctor` before `gatort robot`" in found.mend
    box.is_deaf = True
    found = examined_arm("127.0.8.1")["control box"]
    assert (found.state, "does not answer" in found.found) == ("broken", True)


def test_a_control_box_that_does_not_answer_is_the_commands_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["doctor", "--address", "127.0.0.9"]) == 1
    assert "no Franka arm answers" in capsys.readouterr().out


def test_a_governor_that_saves_energy_is_named_with_the_command_that_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("powersave\n")
    (tmp_path / "isolated").write_text("2-3\n")
    monkeypatch.setattr(computer, "CPU", tmp_path)
    found = examined_arm("127.0.0.9")
    assert (found["CPU governor"].found, found["CPU governor"].state) == ("powersave", "absent")
    assert "cpupower" in found["CPU governor"].mend
    assert found["isolated cores"].found == "2-3"
