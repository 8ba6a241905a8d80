"""Contracts of engines: one call a tick, A tokens and their logits, and a cache that forgets.

Letters: A action tokens, R bins, O observation tokens; see `gatort.runtime.spec`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import Manifest, load_manifest
from gatort.runtime.context import Context
from gatort.runtime.decoding import FORCED
from gatort.runtime.engines.engine import Engine
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, PolicySpec


def random_observations(spec: PolicySpec, frames: int, seed: int = 0) -> NDArray[np.int64]:
    """Return random observation tokens, (frames, O)."""
    shape = (frames, spec.observation_tokens)
    bins = np.random.default_rng(seed).integers(0, CONTINUOUS_BINS, shape)
    return bins + FIRST_CONTINUOUS_ID


def run_frames(
    engine: Engine,
    context: Context,
    frames: Iterable[NDArray[np.int64]],
    abandoned: frozenset[int] = frozenset(),
) -> tuple[NDArray[np.float32], list[int]]:
    """Run frames greedily. Return the logits (frames·A, R) of every pass and the stream of tokens.

    Args:
        engine: engine under test.
        context: context of the engine's specification.
        frames: observation tokens (O,) of each frame.
        abandoned: indices of frames before which another tick is run and given up.
    """
    frame = context.frame
    logits: list[NDArray[np.float32]] = []
    stream: list[int] = []
    frame.bias.fill(0.0)

    for index, observed in enumerate(frames):
        if index in abandoned:
            context.observation_ids[:] = observed[::-1]
            engine.tick(frame)

        context.observation_ids[:] = observed
        stream += frame.prefill.ids[0].tolist()
        engine.tick(frame)

        logits.append(frame.logits.copy())
        stream += frame.tokens[:-1].tolist()
        context.end_frame(int(frame.tokens[-1]))

    return np.concatenate(logits), stream


class EngineContract:
    """Tests that every engine passes, a scripted one too. Inherit and override `make_engine`."""

    def make_engine(self, bundle: Path, manifest: Manifest) -> Engine:
        """Return the engine under test for a bundle.

        Raises:
            NotImplementedError: the class under test does not override this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method make_engine(bundle, manifest)"
        )

    @pytest.fixture
    def bundle(self) -> Path:
        """Return the directory of the policy to run: the shipped one, unless overridden."""
        return SHIPPED_BUNDLE

    @pytest.fixture
    def manifest(self, bundle: Path) -> Manifest:
        """Return the bundle's manifest."""
        return load_manifest(bundle)

    @pytest.fixture
    def engine(self, bundle: Path, manifest: Manifest) -> Engine:
        """Make the engine."""
        return self.make_engine(bundle, manifest)

    @pytest.fixture
    def context(self, manifest: Manifest) -> Context:
        """Make an empty context for the bundle's specification."""
        return Context(manifest.spec, manifest.model)

    def test_logits_are_finite_float32_one_per_bin(self, engine: Engine, context: Context) -> None:
        """Run two frames and look at their logits."""
        logits, _ = run_frames(engine, context, random_observations(context.spec, 2))
        assert logits.shape == (2 * context.spec.action_tokens, CONTINUOUS_BINS)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()

    def test_a_tick_leaves_its_inputs_as_they_were(self, engine: Engine, context: Context) -> None:
        """Compare a frame's inputs before and after a tick."""
        run_frames(engine, context, random_observations(context.spec, 4))
        inputs = context.frame.memory[: context.frame.outputs_at]
        before = inputs.copy()
        engine.tick(context.frame)
        np.testing.assert_array_equal(inputs, before)

    def test_each_token_is_the_bin_with_the_largest_sum_of_logit_and_bias(
        self, engine: Engine, context: Context
    ) -> None:
        """Add random biases and compare tokens with the largest sums."""
        frame = context.frame
        rng = np.random.default_rng(0)
        for _ in range(5):
            frame.bias[:] = rng.normal(scale=3.0, size=frame.bias.shape)
            engine.tick(frame)
            best = (frame.logits + frame.bias).argmax(axis=1)
            assert frame.tokens.tolist() == (FIRST_CONTINUOUS_ID + best).tolist()
            context.end_frame(int(frame.tokens[-1]))

    def test_every_pass_is_marked_or_the_whole_tick_once(
        self, engine: Engine, context: Context
    ) -> None:
        """Count the marks of one tick."""
        marks: list[None] = []
        engine.tick(context.frame, lambda: marks.append(None))
        assert len(marks) == (context.spec.action_tokens if engine.stepwise else 1)

    def test_after_a_reset_the_same_frames_give_the_same_logits_to_the_bit(
        self, engine: Engine, context: Context
    ) -> None:
        """Run frames, run others, reset, and run the first frames again."""
        first, _ = run_frames(engine, context, random_observations(context.spec, 7))
        run_frames(engine, context, random_observations(context.spec, 3, seed=1))
        context.reset()
        engine.reset()
        again, _ = run_frames(engine, context, random_observations(context.spec, 7))
        np.testing.assert_array_equal(again, first)

    def test_it_has_a_name_for_reports(self, engine: Engine) -> None:
        """Read the engine's name."""
        assert engine.name


class ModelEngineContract(EngineContract):
    """Tests of an engine that computes the bundle's model, with its cache."""

    def test_a_forced_token_is_the_input_of_the_next_pass(
        self, engine: Engine, context: Context
    ) -> None:
        """Force other tokens than the engine chose and compare the logits of each pass."""
        frame = context.frame
        frame.bias.fill(0.0)
        engine.tick(frame)
        free = frame.tokens.copy()
        free_logits = frame.logits.copy()

        forced = np.where(free == FIRST_CONTINUOUS_ID + 5, 6, 5)
        frame.bias[np.arange(len(forced)), forced] = FORCED
        engine.tick(frame)
        frame.bias.fill(0.0)

        assert frame.tokens.tolist() == (FIRST_CONTINUOUS_ID + forced).tolist()
        np.testing.assert_array_equal(frame.logits[0], free_logits[0])
        assert np.abs(frame.logits[1:] - free_logits[1:]).max() > 1e-3

    def test_a_tick_that_is_given_up_leaves_no_trace_after_four_wraps(
        self, engine: Engine, context: Context
    ) -> None:
        """Run frames over four wraps of the window, with and without abandoned ticks."""
        spec = context.spec
        frames = random_observations(spec, 4 * spec.window_frames + 1)
        kept, _ = run_frames(engine, context, frames)
        context.reset()
        engine.reset()
        mixed, _ = run_frames(engine, context, frames, abandoned=frozenset({2, 5, 9}))
        np.testing.assert_array_equal(mixed, kept)
