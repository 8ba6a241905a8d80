"""Competition for the processor: counters of the kernel, and a real competitor."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gatort.runtime.contention import Contention, ProcessorReading
from gatort.runtime.grant import Throttling

QUIET = Contention(
    seconds=10.0,
    waited_s=0.01,
    preempted=3,
    others_s=0.1,
    takers=[],
    own_s=0.0,
    own_takers=[],
    stolen_s=0.0,
    throttling=Throttling(),
)


def test_another_process_that_computes_is_named_with_its_time() -> None:
    before = ProcessorReading.now()
    # Not ours: its parent has ended, as for work of another terminal.
    code = (
        "import os, sys, time\n"
        "if os.fork():\n"
        "    os._exit(0)\n"
        "while time.process_time() < 0.3: pass\n"
        "print('computed', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "computed\n"
        found = Contention.between(before, ProcessorReading.now())
    assert sum(took_s for _, took_s in found.takers) >= 0.25
    assert found.others_s >= 0.25
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["{folder}/pose_sensor.py", "--rate", "30"], "pose_sensor.py"),
        (["-u", "-W", "error", "{folder}/pose_sensor.py"], "pose_sensor.py"),
        (["-m", "pose_sensor"], "pose_sensor"),
        (["-c", "input()"], "python"),
    ],
)
def test_a_python_program_is_named_by_its_script(
    tmp_path: Path, arguments: list[str], name: str
) -> None:
    (tmp_path / "pose_sensor.py").write_text("input()\n")
    words = [word.format(folder=tmp_path) for word in arguments]
    with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, cwd=tmp_path) as sensor:
        seen = ProcessorReading.now().processes[sensor.pid].name
        sensor.communicate(b"\n")
    assert seen.startswith(name)
    assert (name == "python") == seen.startswith("python")


def test_a_process_that_this_one_started_is_no_competitor() -> None:
    before = ProcessorReading.now()
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ours:
        assert ours.stdout is not None
        ours.stdout.readline()
        after = ProcessorReading.now()
        without = {n: each for n, each in after.processes.items() if n != ours.pid}
        found = Contention.between(before, after)
        missed = Contention.between(before, replace(after, processes=without))
        ours.communicate(b"\n")
    assert missed.others_s - found.others_s >= 0.25


def test_gatorts_own_processes_are_named_and_nobody_is_told_to_stop_them() -> None:
    before = replace(ProcessorReading.now(), busy_s=0.0, processes={})
    one = next(iter(ProcessorReading.now().processes.values()))
    beyond = 10_000_000  # Above the kernel's largest process number.
    processes = {
        beyond: one._replace(name="gatort-robot", parent=1, cpu_s=1.0),
        beyond + 1: one._replace(name="7", parent=beyond, cpu_s=2.0),
        beyond + 2: one._replace(name="python", parent=beyond + 1, cpu_s=0.5),
        beyond + 3: one._replace(name="gatort-door", parent=beyond, cpu_s=0.25),
        beyond + 4: one._replace(name="gatortade", parent=1, cpu_s=0.125),
    }
    after = replace(before, busy_s=3.875, processes=processes, at_ns=before.at_ns + 10**9)
    found = Contention.between(before, after)
    assert found.own_takers == [("gatort-robot", 3.5), ("gatort-door", 0.25)]
    assert (found.takers, found.others_s) == ([("gatortade", 0.12)], 0.125)

    sentence = replace(found, others_s=0.0).sentence("SCHED_FIFO 10", 7.0)
    assert "gatort's other processes computed for 3.8 s (gatort-robot 3.5 s, gat" in sentence
    assert "stop" not in sentence


def test_each_cause_is_named_with_its_time_and_its_remedy() -> None:
    found = replace(
        QUIET,
        waited_s=6.5,
        preempted=812,
        others_s=19.5,
        takers=[("stress", 12.25), ("ffmpeg", 7.0)],
        stolen_s=1.5,
        throttling=Throttling(204, 199, 16.0),
    )
    assert found.sentence("nice -10", 7.0) == (
        "processor: in 10.0 s the loop (nice -10) waited 6.50 s for a core and lost it 812×; "
        "the CPU quota stopped this process: throttled in 199 of 204 periods, 16.0 s in all; "
        "the hypervisor kept 1.5 s from this machine; "
        "other processes computed for 19.5 s (stress 12.2 s, ffmpeg 7.0 s). "
        "Try: raise the quota (docker --cpus, CPUQuota=, cpu.max); "
        "use a machine whose cores are its own; "
        "stop those others, or move them to other cores; "
        "grant SCHED_FIFO (`gatort doctor` says how)."
    )
    assert "grant" not in found.sentence("SCHED_FIFO 10, nice -10", 7.0)


def test_where_nobody_took_the_processor_the_policy_itself_is_named() -> None:
    sentence = QUIET.sentence("SCHED_FIFO 10", 31.5)
    assert "nothing else took the processor, and a tick takes 31.5 ms (p50)" in sentence
    assert "a faster --engine" in sentence
