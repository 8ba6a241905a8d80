from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.conftest import onnx_engine, onnx_parity

from gatort.export.parity import LOGIT_TOLERANCE, PairParity, ParityReport, compare
from gatort.policies.model import Gato
from gatort.policies.weights import read_model
from gatort.runtime.context import Block, Frame
from gatort.runtime.engines.engine import Engine, Mark, no_mark
from gatort.runtime.engines.torch import TorchEngine


class Disturbed:
    """Engine that changes its blocks before it reads them, as a wrong graph would."""

    name = "disturbed"
    stepwise = True

    def __init__(self, engine: Engine, disturb: Callable[[Block], None]) -> None:
        self.engine, self.disturb = engine, disturb

    def see(self, frame: Frame) -> None:
        self.engine.see(frame)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        for block in frame.passes:
            self.disturb(block)
        self.engine.tick(frame, mark)

    def reset(self) -> None:
        self.engine.reset()


def test_a_policy_with_two_cameras_agrees_over_more_than_three_wraps(camera_bundle: Path) -> None:
    report = onnx_parity(camera_bundle)
    assert report.wraps > 3
    assert report.tokens == report.frames * 3
    assert report.agrees, report
    # Only float32 rounding is left, far below the tolerance.
    assert report.largest_difference < 1e-4
    assert report.largest_logit > 1


def test_a_policy_without_images_agrees_and_with_other_observations_too(bundle: Path) -> None:
    reports = [onnx_parity(bundle, seed) for seed in (0, 1)]
    assert all(report.agrees for report in reports), reports
    assert reports[0].largest_logit != reports[1].largest_logit


def test_the_engine_of_pytorch_is_a_path_of_its_own(bundle: Path) -> None:
    model = read_model(bundle)
    report = compare(model, TorchEngine(model, model.spec, model.dims), wraps=1)
    assert len(report.pairs) == 3
    assert report.agrees


def test_the_three_paths_are_named(bundle: Path) -> None:
    pairs = [(pair.first, pair.second) for pair in onnx_parity(bundle).pairs]
    assert pairs == [
        ("torch whole", "torch cpu float32 ring"),
        ("torch whole", "onnx cpu ring"),
        ("torch cpu float32 ring", "onnx cpu ring"),
    ]


def test_one_weight_that_differs_is_found(bundle: Path) -> None:
    model = read_model(bundle)
    with torch.no_grad():
        model.layers[0].attention.qkv.weight[0, 0] += 1.0
    report = compare(model, onnx_engine(bundle))
    assert not report.agrees
    # Both PyTorch paths have the change; only ONNX Runtime's lacks it.
    assert report.pairs[0].largest_difference < LOGIT_TOLERANCE < report.pairs[1].largest_difference


def _other_half(block: Block) -> None:
    block.sin *= -1


def _own_frame_only(block: Block) -> None:
    block.mask[:] = np.roll(block.mask, 1, axis=1)


def _one_row_further(block: Block) -> None:
    block.write_index -= block.write_index[0] > 0


@pytest.mark.parametrize("disturb", [_other_half, _own_frame_only, _one_row_further])
def test_a_wrong_angle_mask_or_cache_row_is_found(
    bundle: Path, disturb: Callable[[Block], None]
) -> None:
    assert not compare(read_model(bundle), Disturbed(onnx_engine(bundle), disturb)).agrees


def test_a_window_that_only_looks_right_until_it_wraps_is_found(
    make_model: Callable[..., Gato],
) -> None:
    model = make_model()
    window = model.spec.window_tokens

    def hide_wrapped(block: Block) -> None:
        if block.cos[0, 0] != 1.0 and block.write_index[0] == 0:
            block.mask[:, window // 3 :] = False

    report = compare(model, Disturbed(TorchEngine(model, model.spec, model.dims), hide_wrapped))
    assert not report.agrees


def test_rounded_weights_may_move_logits_but_few_tokens() -> None:
    moved = PairParity("a", "b", 0.5, 0.96)
    reports = [
        ParityReport(precision, 10, 3.1, 30, 1.0, (moved,))
        for precision in ("int4", "int8", "fp32")
    ]
    assert [report.agrees for report in reports] == [True, False, False]


def test_logits_that_are_not_finite_never_agree() -> None:
    pair = PairParity("a", "b", float("nan"), 1.0)
    report = ParityReport(
        precision="int4", frames=10, wraps=3.1, tokens=30, largest_logit=1.0, pairs=(pair,)
    )
    assert not report.agrees
