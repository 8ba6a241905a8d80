"""An exact tick gives the tokens of a greedy one, whatever the guess. `native` gives its logits to
the bit, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.policies.loading import (
    CPU_ENGINES,
    SHIPPED_BUNDLE,
    SHIPPED_CAMERA_BUNDLE,
    EngineName,
    PolicyOptions,
    decoding_of,
    load_policy,
)
from gatort.runtime.clock import VirtualClock
from gatort.runtime.decoding import Decision, Sampler
from gatort.runtime.engines.engine import Decoding
from gatort.runtime.errors import ConfigError, EngineError
from gatort.runtime.policy import Policy
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, Precision

pytestmark = pytest.mark.native
FRAMES = 24
"""Twelve times around the ring of the shipped policies."""
Values = tuple[NDArray[Any], ...]


def policy(
    bundle: Path,
    decoding: Decoding,
    precision: Precision = "fp32",
    temperature: float = 0.0,
    engine: EngineName = "native",
) -> Policy:
    options = PolicyOptions(
        bundle=bundle, engine=engine, decoding=decoding, precision=precision, threads=2
    )
    return load_policy(options, Sampler(temperature, seed=5))


def observations(of: Policy, count: int) -> list[Values]:
    clock = VirtualClock()
    robot = scripted_robot(of.spec, clock, seed=2)
    found = []
    for _ in range(count):
        clock.sleep_until_ns(clock.now_ns() + of.spec.period_ns)
        found.append(robot.observe().values)
    return found


def kept(decision: Decision) -> tuple[list[int], NDArray[np.float32]]:
    return decision.tokens.tolist(), decision.logits.copy()


@pytest.mark.parametrize("bundle", [SHIPPED_BUNDLE, SHIPPED_CAMERA_BUNDLE], ids=["state", "camera"])
@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_exact_equals_greedy_to_the_bit(
    bundle: Path, precision: Precision, temperature: float
) -> None:
    greedy = policy(bundle, "greedy", precision, temperature)
    exact = policy(bundle, "exact", precision, temperature)
    passes = []
    for values in observations(greedy, FRAMES):
        expected, found = greedy.decide(values), exact.decide(values)
        tokens, logits = kept(expected)
        assert found.tokens.tolist() == tokens
        np.testing.assert_array_equal(found.logits, logits)
        assert expected.passes == greedy.spec.action_tokens
        passes.append(found.passes)
        greedy.commit()
        exact.commit()
    assert 1 <= min(passes) < max(passes) <= greedy.spec.action_tokens
    assert np.mean(passes) < greedy.spec.action_tokens - 1


@pytest.mark.parametrize("bundle", [SHIPPED_BUNDLE, SHIPPED_CAMERA_BUNDLE], ids=["state", "camera"])
@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_exact_gives_the_tokens_of_greedy_unless_two_bins_tie(
    bundle: Path, engine: EngineName, temperature: float
) -> None:
    greedy = policy(bundle, "greedy", temperature=temperature, engine=engine)
    exact = policy(bundle, "exact", temperature=temperature, engine=engine)
    passes = []
    for values in observations(greedy, FRAMES):
        expected, found = greedy.decide(values), exact.decide(values)
        passes.append(found.passes)
        for index, token in enumerate(found.tokens - FIRST_CONTINUOUS_ID):
            scores = expected.logits[index] + expected.bias[index]
            np.testing.assert_allclose(found.logits[index], expected.logits[index], atol=1e-4)
            assert scores.max() - scores[token] < 1e-4
            if found.tokens[index] != expected.tokens[index]:
                break  # All that follows may differ.
        greedy.force(values, found.action)
        greedy.commit()
        exact.commit()
    assert 2 <= min(passes) < max(passes) <= greedy.spec.action_tokens
    assert exact.engine.name == f"{greedy.engine.name} exact"


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_no_guess_changes_a_bit_of_an_exact_tick(engine: EngineName) -> None:
    exact = policy(SHIPPED_BUNDLE, "exact", engine=engine)
    guess = exact._context.frame.guess
    random = np.random.default_rng(0)
    for values in observations(exact, 4):
        tokens, logits = kept(exact.decide(values))
        for right in range(len(tokens)):
            drawn = FIRST_CONTINUOUS_ID + random.integers(CONTINUOUS_BINS, size=len(tokens) - 1)
            guess[:] = [*tokens[:right], *drawn[right:]]
            found = exact.decide(values)
            assert found.tokens.tolist() == tokens
            np.testing.assert_array_equal(found.logits[1:], logits[1:])
        assert found.passes == 2, "a right guess needs its first pass and one check"
        exact.commit()


def test_any_guess_gives_the_same_tokens_and_the_right_one_takes_one_pass() -> None:
    greedy, exact = policy(SHIPPED_BUNDLE, "greedy"), policy(SHIPPED_BUNDLE, "exact")
    guess = exact._context.frame.guess
    random = np.random.default_rng(0)
    for values in observations(greedy, FRAMES):
        tokens, logits = kept(greedy.decide(values))
        for right in range(len(tokens)):
            drawn = FIRST_CONTINUOUS_ID + random.integers(CONTINUOUS_BINS, size=len(tokens) - 1)
            guess[:] = [*tokens[:right], *drawn[right:]]
            found = exact.decide(values)
            assert found.tokens.tolist() == tokens
            np.testing.assert_array_equal(found.logits, logits)
            assert found.passes <= len(tokens) - right
        assert found.passes == 1
        greedy.commit()
        exact.commit()


def test_a_given_action_takes_one_pass() -> None:
    greedy, exact = policy(SHIPPED_BUNDLE, "greedy"), policy(SHIPPED_BUNDLE, "exact")
    action = [1.0, -2.0, 3.0, 0.5, -0.5, 0.1, 0.0, 0.04]
    for values in observations(greedy, 4):
        tokens, logits = kept(greedy.force(values, action))
        found = exact.force(values, action)
        assert found.tokens.tolist() == tokens
        np.testing.assert_array_equal(found.logits, logits)
        assert found.passes == 1
        greedy.commit()
        exact.commit()


def test_pictures_that_were_seen_before_the_joints_change_no_bit() -> None:
    whole = policy(SHIPPED_CAMERA_BUNDLE, "exact")
    seeing = policy(SHIPPED_CAMERA_BUNDLE, "exact")
    for values in observations(whole, 6):
        tokens, logits = kept(whole.decide(values))
        seeing.see([values[index] for index in seeing.spec.pictures])
        found = seeing.decide(values)
        assert found.tokens.tolist() == tokens
        np.testing.assert_array_equal(found.logits, logits)
        whole.commit()
        seeing.commit()


def test_a_tick_that_is_given_up_leaves_no_trace() -> None:
    calm, hasty = policy(SHIPPED_BUNDLE, "exact"), policy(SHIPPED_BUNDLE, "exact")
    seen = observations(calm, 8)
    for index, values in enumerate(seen):
        expected = calm.decide(values).tokens.tolist()
        calm.commit()
        hasty.decide(seen[(index + 3) % len(seen)])
        assert hasty.decide(values).tokens.tolist() == expected
        hasty.commit()


def test_tensorrt_has_no_exact_ticks_and_refuses_them() -> None:
    with pytest.raises(ConfigError, match="--engine tensorrt-rtx runs greedy alone"):
        load_policy(PolicyOptions(engine="tensorrt-rtx", decoding="exact"))


@pytest.mark.parametrize("engine", ["onnx", "torch", "native"])
def test_a_tick_beyond_the_most_passes_is_refused_and_a_later_one_is_exact(
    engine: EngineName,
) -> None:
    greedy = policy(SHIPPED_BUNDLE, "greedy", engine=engine)
    options = {"bundle": SHIPPED_BUNDLE, "engine": engine, "decoding": "exact", "threads": 2}
    capped = load_policy(PolicyOptions.model_validate({**options, "most_passes": 3}))
    refused = 0
    for values in observations(greedy, FRAMES):
        tokens, _ = kept(greedy.decide(values))
        try:
            found = capped.decide(values)
        except EngineError:
            refused += 1
            found = capped.force(values, greedy.tokenizer.decode_action(np.array(tokens)))
        assert found.tokens.tolist() == tokens
        assert found.passes <= 3
        greedy.commit()
        capped.commit()
    assert 0 < refused < FRAMES


@pytest.mark.parametrize("engine", ["onnx", "torch", "native"])
@pytest.mark.parametrize("bundle", [SHIPPED_BUNDLE, SHIPPED_CAMERA_BUNDLE], ids=["state", "camera"])
def test_a_parallel_tick_is_one_pass_that_no_guess_changes(
    bundle: Path, engine: EngineName
) -> None:
    parallel = policy(bundle, "parallel", engine=engine)
    reference = policy(bundle, "parallel", engine="torch")
    random = np.random.default_rng(0)
    for values in observations(parallel, 6):
        guess = parallel._context.frame.guess
        guess[:] = FIRST_CONTINUOUS_ID + random.integers(CONTINUOUS_BINS, size=len(guess))
        found = parallel.decide(values)
        assert found.passes == 1
        expected = reference.decide(values)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
        parallel.commit()
        reference.commit()
    assert parallel.engine.name.endswith("parallel")


def test_most_passes_without_exact_decoding_is_refused() -> None:
    with pytest.raises(ConfigError, match="--most-passes: expected --decoding exact"):
        load_policy(PolicyOptions(decoding="greedy", most_passes=3))


def test_exact_is_the_default_on_a_cpu_and_greedy_on_a_gpu() -> None:
    found = {name: decoding_of(PolicyOptions(engine=name)) for name in get_args(EngineName)}
    assert {name for name, decoding in found.items() if decoding == "exact"} == set(CPU_ENGINES)
    assert decoding_of(PolicyOptions(engine="torch-cuda", decoding="exact")) == "exact"


def test_a_loop_counts_the_passes_of_exact_ticks() -> None:
    chosen = policy(SHIPPED_BUNDLE, "exact")
    clock = VirtualClock()
    loop = chosen.control(scripted_robot(chosen.spec, clock, seed=2), clock)
    decisions: list[Decision] = []
    loop.run(FRAMES, lambda tick: decisions.append(tick.decision) if tick.decision else None)
    counted = loop.telemetry.passes
    taken = [each.passes for each in decisions]
    assert counted.ticks.tolist() == np.bincount(taken, minlength=9).tolist()
    assert counted.saved
    # The guess of a tick is the answer of the tick before.
    tokens = np.array([each.tokens[:-1] for each in decisions])
    assert counted.right.tolist() == (tokens[1:] == tokens[:-1]).sum(axis=0).tolist()
