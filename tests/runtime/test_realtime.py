from __future__ import annotations

import gc
import os

import pytest
from pydantic import ValidationError

from gatort.runtime.realtime import RealtimeConfig, apply


def test_garbage_collection_is_off_inside_and_back_afterwards() -> None:
    with apply(RealtimeConfig()) as refused:
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert refused == []
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_everything_is_put_back_when_the_loop_fails() -> None:
    before = os.sched_getaffinity(0)
    config = RealtimeConfig(cpus=(min(before),))

    def fail() -> None:
        with apply(config) as refused:
            assert refused == []
            assert os.sched_getaffinity(0) == {min(before)}
            raise RuntimeError("loop")

    with pytest.raises(RuntimeError, match="loop"):
        fail()
    assert os.sched_getaffinity(0) == before
    assert gc.isenabled()


def test_a_core_that_is_not_there_is_refused_in_a_sentence_and_the_loop_runs_on() -> None:
    with apply(RealtimeConfig(cpus=(1023,))) as refused:
        assert len(refused) == 1
        assert "CPU affinity [1023] was refused" in refused[0]


def test_fifo_is_granted_for_this_thread_or_refused_with_the_limit_to_raise() -> None:
    before = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    with apply(RealtimeConfig(fifo_priority=1)) as refused:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        assert policy == os.SCHED_FIFO if not refused else "rtprio limit" in refused[0]
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == before


@pytest.mark.parametrize(
    "bad", [{"fifo_priority": 0}, {"fifo_priority": 100}, {"cpus": ()}, {"fifo": 3}]
)
def test_a_request_that_means_nothing_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RealtimeConfig.model_validate(bad)
