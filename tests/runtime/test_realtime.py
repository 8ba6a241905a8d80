from __future__ import annotations

import gc
import os
import subprocess
import sys
from threading import Event, Thread, get_native_id

import pytest
from pydantic import ValidationError

from gatort.runtime.realtime import LOOP_PRIORITY, NICE, RealtimeConfig, apply


def test_garbage_collection_is_off_inside_and_back_afterwards() -> None:
    with apply(RealtimeConfig()) as found:
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert found.refused == []
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_everything_is_put_back_when_the_loop_fails() -> None:
    before = os.sched_getaffinity(0)
    config = RealtimeConfig(cpus=(min(before),))

    def fail() -> None:
        with apply(config) as found:
            assert found.refused == []
            assert os.sched_getaffinity(0) == {min(before)}
            raise RuntimeError("loop")

    with pytest.raises(RuntimeError, match="loop"):
        fail()
    assert os.sched_getaffinity(0) == before
    assert gc.isenabled()


def test_a_core_that_is_not_there_is_refused_in_a_sentence_and_the_loop_runs_on() -> None:
    with apply(RealtimeConfig(cpus=(1023,))) as found:
        assert len(found.refused) == 1
        assert "CPU affinity 1023 was refused" in found.refused[0]


def test_fifo_is_granted_for_this_thread_or_refused_with_the_limit_to_raise() -> None:
    before = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    with apply(RealtimeConfig(fifo_priority=1)) as found:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        assert policy == os.SCHED_FIFO if not found.refused else "rtprio limit" in found.refused[0]
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == before


@pytest.mark.parametrize(
    "bad", [{"fifo_priority": -1}, {"fifo_priority": 100}, {"cpus": ()}, {"fifo": 3}]
)
def test_a_request_that_means_nothing_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RealtimeConfig.model_validate(bad)


def test_a_loop_without_a_wish_names_the_scheduling_that_it_was_granted() -> None:
    before = (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(0, 0))
    with apply(RealtimeConfig()) as found:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        assert (policy == os.SCHED_FIFO) == (f"SCHED_FIFO {LOOP_PRIORITY}" in found.name)
        assert (os.getpriority(0, 0) == NICE) == (f"nice {NICE}" in found.name)
        assert found.refused == []  # Nobody asked, so nobody is told of a refusal.
    assert (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(0, 0)) == before


def test_the_engines_threads_are_preferred_too_and_put_back() -> None:
    stop, started = Event(), Event()
    threads: list[int] = []

    def compute() -> None:
        threads.append(get_native_id())
        started.set()
        stop.wait()

    thread = Thread(target=compute)
    thread.start()
    started.wait()
    try:
        before = os.getpriority(os.PRIO_PROCESS, threads[0])
        with apply(RealtimeConfig()) as found:
            inside = os.getpriority(os.PRIO_PROCESS, threads[0])
            assert inside == (NICE if f"nice {NICE}" in found.name else before)
            assert os.sched_getscheduler(threads[0]) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, threads[0]) == before
    finally:
        stop.set()
        thread.join()


def test_ordinary_scheduling_can_be_asked_for() -> None:
    before = os.sched_getscheduler(0)
    with apply(RealtimeConfig(fifo_priority=0)) as found:
        assert os.sched_getscheduler(0) == before
        assert found.name == "ordinary scheduling"


def test_a_loop_on_one_core_gets_no_real_time_priority_by_itself() -> None:
    before = os.sched_getaffinity(0)
    with apply(RealtimeConfig(cpus=(min(before),))) as found:
        # A loop that never slept would leave the core to nobody.
        assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
        assert "SCHED_FIFO" not in found.name


def test_without_any_right_the_loop_runs_with_ordinary_scheduling_and_says_so() -> None:
    code = (
        "import os, resource\n"
        "from gatort.runtime.realtime import RealtimeConfig, apply\n"
        "for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):\n"
        "    resource.setrlimit(limit, (0, 0))\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"
        "with apply(RealtimeConfig()) as found:\n"
        "    print(found.name, found.refused)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ordinary scheduling []\n", done.stderr
