"""Engines over the same weights: each has its own cache, and ticks wait for a turn."""

from __future__ import annotations

from contextlib import suppress
from threading import Semaphore, Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.policies.loading import EngineName, PolicyOptions, load_policies
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.engines.engine import Decoding, ScriptedEngine
from gatort.runtime.engines.turns import TurnEngine, Turns
from gatort.runtime.errors import ConfigError, EngineError
from gatort.runtime.policy import Policy
from gatort.runtime.robots.scripted import scripted_robot

FRAMES = 6
"""Three times around the ring of the shipped policy."""
LOOK_NS = 1_000_000


def wait_for(turns: Turns, waiting: int) -> None:
    clock = MonotonicClock()
    while len(turns._waiting) < waiting:
        clock.sleep_until_ns(clock.now_ns() + LOOK_NS)


def test_of_those_that_wait_the_one_that_is_due_first_gets_the_turn() -> None:
    turns = Turns(1, VirtualClock())
    order: list[int] = []

    def compute(due_ns: int) -> None:
        with turns.take(due_ns):
            order.append(due_ns)

    second = 10**9
    threads = [Thread(target=compute, args=(due * second,)) for due in (50, 30, 40)]
    with turns.take(second):
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_for(turns, number)
    for thread in threads:
        thread.join()
    assert order == [30 * second, 40 * second, 50 * second]


def test_as_many_ticks_compute_at_once_as_there_are_turns() -> None:
    turns = Turns(2, VirtualClock())
    with turns.take(10**9), turns.take(10**9):
        third = Thread(target=lambda: turns.take(60 * 10**9).__enter__())
        third.start()
        wait_for(turns, 1)
        assert third.is_alive()
    third.join()


def test_a_tick_that_is_due_before_its_turn_is_refused_and_its_place_given_up() -> None:
    turns = Turns(1, VirtualClock())
    with turns.take(10**9):
        with pytest.raises(EngineError, match="serve fewer robots"), turns.take(0):
            pytest.fail("expected no turn")
        assert not turns._waiting
    with turns.take(0):  # Free again: no wait, so nothing is too late.
        pass


def test_a_failed_tick_gives_its_turn_back() -> None:
    turns = Turns(1, VirtualClock())
    with pytest.raises(ZeroDivisionError), turns.take(0):
        _ = 1 / 0
    with turns.take(0):
        pass


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_turn_is_lost_or_given_twice_however_threads_come_and_give_up(at_once: int) -> None:
    clock = MonotonicClock()
    turns = Turns(at_once, clock)
    holders = Semaphore(at_once)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for patience_ns in random.integers(-100_000, 1_000_000, 40):
            with suppress(EngineError), turns.take(clock.now_ns() + int(patience_ns)):
                if not holders.acquire(blocking=False):
                    too_many.append(seed)
                    return
                clock.sleep_until_ns(clock.now_ns() + int(random.integers(100_000)))
                holders.release()

    too_many: list[int] = []
    threads = [Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not too_many
    assert not turns._waiting
    assert turns._free == at_once


def test_a_turn_engine_is_as_stepwise_as_its_engine() -> None:
    engine = TurnEngine(ScriptedEngine([1100]), Turns(1, VirtualClock()))
    assert (engine.name, engine.stepwise) == ("scripted", True)


def trace(policies: list[Policy]) -> list[NDArray[np.float32]]:
    """Return the logits (frames, A, R) of each policy, whose ticks take turns."""
    robots = [
        scripted_robot(policy.spec, VirtualClock(), seed=seed)
        for seed, policy in enumerate(policies)
    ]
    logits: list[list[NDArray[np.float32]]] = [[] for _ in policies]
    for _ in range(FRAMES):
        for robot, policy, kept in zip(robots, policies, logits, strict=True):
            kept.append(policy.decide(robot.observe().values).logits.copy())
            policy.commit()
    return [np.array(each) for each in logits]


@pytest.mark.parametrize(
    "engine", [pytest.param("native", marks=pytest.mark.native), "onnx", "torch"]
)
@pytest.mark.parametrize("decoding", ["greedy", "exact"])
def test_policies_over_the_same_weights_are_the_same_to_the_bit_as_alone(
    engine: EngineName, decoding: Decoding
) -> None:
    options = PolicyOptions(engine=engine, threads=1, decoding=decoding)
    turns = Turns(1, VirtualClock())
    together = trace([policy for policy, _ in load_policies(options, 3, turns)])
    alone = [policy for policy, _ in load_policies(options, 3, turns)]
    robots = [scripted_robot(alone[0].spec, VirtualClock(), seed=seed) for seed in range(3)]
    for policy, robot, expected in zip(alone, robots, together, strict=True):
        for logits in expected:
            decision = policy.decide(robot.observe().values)
            np.testing.assert_array_equal(decision.logits, logits)
            policy.commit()
    assert not np.array_equal(together[0], together[1])


def test_an_engine_for_one_robot_is_refused() -> None:
    from gatort.policies import loading

    options = PolicyOptions(engine="onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "make_engine", lambda *_: ScriptedEngine([1100]))
        with pytest.raises(ConfigError, match="--engine onnx drives one robot"):
            load_policies(options, 2, Turns(1, VirtualClock()))
