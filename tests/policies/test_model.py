from __future__ import annotations

import numpy as np
import pytest
import torch

from gatort.policies.model import Gato, PatchNorm, action_positions, banded_mask, smooth_bins
from gatort.policies.presets import PRESETS, preset
from gatort.runtime.context import Context, rotary_tables
from gatort.runtime.decoding import FORCED
from gatort.runtime.engines.torch import TorchEngine
from gatort.runtime.errors import ConfigError
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    SEPARATOR_ID,
    ModelDims,
    PolicySpec,
)

# Both sides sum the same float32 products of size near 1 in another order. A wrong row or angle
# shows at 1e-2.
SAME = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture
def model(spec: PolicySpec, dims: ModelDims) -> Gato:
    torch.manual_seed(0)
    return lively(Gato(spec, dims))


@pytest.fixture
def seeing_model(every_encoding_spec: PolicySpec, dims: ModelDims) -> Gato:
    torch.manual_seed(0)
    return lively(Gato(every_encoding_spec, dims.model_copy(update={"first_token_id": 0})))


def lively(model: Gato) -> Gato:
    """Make the first weights ten times larger, so that a wrong mask or angle shows."""
    with torch.no_grad():
        for parameter in model.layers.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return model.eval()


def random_ids(model: Gato, frames: int) -> torch.Tensor:
    """Return frames (F, T − p) of random tokens, with the separators in place."""
    spec = model.spec
    ids = torch.randint(
        FIRST_CONTINUOUS_ID, SEPARATOR_ID, (frames, spec.frame_tokens - spec.image_tokens)
    )
    ids[:, -spec.action_tokens] = SEPARATOR_ID
    return ids


def hidden(
    model: Gato,
    ids: torch.Tensor,
    patches: torch.Tensor | None = None,
    first: int = 0,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return hidden states of frames (F, T − p) whose first token is at position `first`."""
    spec, frames = model.spec, len(ids)
    positions = np.arange(frames * spec.frame_tokens)
    cos, sin = rotary_tables((first + positions).astype(np.float64), model.dims.head_size)
    return model(
        ids[None] if patches is not None else ids.reshape(1, -1),
        None if patches is None else patches[None],
        torch.from_numpy(positions % spec.frame_tokens),
        torch.from_numpy(cos),
        torch.from_numpy(sin),
        banded_mask(frames, spec.frame_tokens, spec.window_frames),
        rows,
    )


def ring_logits(model: Gato, ids: torch.Tensor, patches: torch.Tensor | None) -> torch.Tensor:
    """Return the logits (F·A, R) of the same frames through the ring."""
    spec = model.spec
    context = Context(spec, model.dims)
    engine, logits = TorchEngine(model, spec, model.dims), []
    prefill = context.frame.prefill.ids.size
    for frame, row in enumerate(ids.numpy()):
        context.frame.prefill.ids[0] = row[:prefill]
        if patches is not None:
            context.patches[:] = patches[frame].numpy()
        # The last action token is predicted and fed to nobody: any will do.
        tokens = np.array([*row[prefill:], FIRST_CONTINUOUS_ID])
        context.frame.bias.fill(0.0)
        context.frame.bias[np.arange(len(tokens)), tokens - FIRST_CONTINUOUS_ID] = FORCED
        engine.tick(context.frame)
        context.end_frame(int(tokens[-1]))
        logits.append(context.frame.logits.copy())
    return torch.from_numpy(np.concatenate(logits))


@torch.no_grad()
def test_the_ring_equals_one_pass_over_everything_after_more_than_three_wraps(model: Gato) -> None:
    frames = 4 * model.spec.window_frames + 2
    ids = random_ids(model, frames)
    whole = model.head(hidden(model, ids, rows=action_positions(frames, model.spec))[0])
    torch.testing.assert_close(ring_logits(model, ids, None), whole, **SAME)


@torch.no_grad()
def test_the_ring_equals_one_pass_with_text_and_images_too(seeing_model: Gato) -> None:
    spec, frames = seeing_model.spec, 4 * seeing_model.spec.window_frames + 2
    ids = random_ids(seeing_model, frames)
    patches = torch.rand(frames, spec.image_tokens, 3, 16, 16) / 2 - 0.25
    whole = seeing_model.head(
        hidden(seeing_model, ids, patches, rows=action_positions(frames, spec))[0]
    )
    torch.testing.assert_close(ring_logits(seeing_model, ids, patches), whole, **SAME)


@torch.no_grad()
def test_asking_for_some_rows_changes_none_of_them(model: Gato) -> None:
    ids = random_ids(model, 5)
    rows = action_positions(5, model.spec)
    torch.testing.assert_close(hidden(model, ids, rows=rows), hidden(model, ids)[:, rows], **SAME)


@torch.no_grad()
def test_an_hour_of_ticks_later_the_same_frames_give_the_same_hidden_states(model: Gato) -> None:
    ids = random_ids(model, 5)
    later = 3600 * 20 * model.spec.frame_tokens
    # Angles are computed in float64, so only the float32 rounding of cos and sin differs.
    torch.testing.assert_close(
        hidden(model, ids, first=later), hidden(model, ids), atol=1e-4, rtol=0.0
    )


@torch.no_grad()
def test_a_token_changes_nothing_before_itself(model: Gato) -> None:
    ids = random_ids(model, 4)
    changed = ids.clone()
    changed[2, 4] += 1 if ids[2, 4] < SEPARATOR_ID - 1 else -1
    at = 2 * model.spec.frame_tokens + 4
    before, after = hidden(model, ids), hidden(model, changed)
    torch.testing.assert_close(after[:, :at], before[:, :at], atol=0.0, rtol=0.0)
    assert not torch.equal(after[:, at], before[:, at])


@torch.no_grad()
def test_one_layer_forgets_a_frame_that_left_the_window(spec: PolicySpec, dims: ModelDims) -> None:
    torch.manual_seed(0)
    model = lively(Gato(spec, dims.model_copy(update={"layers": 1})))
    ids = random_ids(model, 5)
    changed = ids.clone()
    changed[0] = random_ids(model, 1)
    seen, gone = (
        slice(2 * spec.frame_tokens, 3 * spec.frame_tokens),
        slice(3 * spec.frame_tokens, None),
    )
    before, after = hidden(model, ids), hidden(model, changed)
    assert not torch.allclose(after[:, seen], before[:, seen])
    torch.testing.assert_close(after[:, gone], before[:, gone], **SAME)


def test_a_row_sees_its_own_frame_up_to_itself_and_the_frames_before_it_whole() -> None:
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1],
    ]
    assert banded_mask(frames=3, frame_tokens=2, window_frames=2).int().tolist() == expected


def test_action_tokens_are_predicted_from_the_separator_on(spec: PolicySpec) -> None:
    assert action_positions(2, spec).tolist() == [6, 7, 8, 15, 16, 17]


def test_the_head_is_the_bins_own_embedding(model: Gato) -> None:
    row = 700
    logits = model.head(model.tokens.weight[row])
    assert logits.shape == (CONTINUOUS_BINS,)
    torch.testing.assert_close(logits[row], (model.tokens.weight[row] ** 2).sum(), **SAME)


def test_neighbouring_bins_start_alike_and_distant_ones_do_not() -> None:
    bins = torch.nn.functional.normalize(smooth_bins(192, torch.Generator().manual_seed(0)), dim=-1)
    assert (bins[1:] * bins[:-1]).sum(-1).min() > 0.9
    assert (bins[500:] * bins[:-500]).sum(-1).mean() < 0.5


def test_patch_norm_is_group_norm() -> None:
    torch.manual_seed(0)
    norm, reference = PatchNorm(), torch.nn.GroupNorm(32, 96)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(96))
        norm.bias.copy_(torch.randn(96))
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(5, 96, 4, 4)
    torch.testing.assert_close(norm(x), reference(x), atol=1e-5, rtol=1e-5)


def test_patch_positions_are_sampled_in_training_and_their_mean_otherwise(
    seeing_model: Gato,
) -> None:
    embedding = seeing_model.patches
    # Two images of 2×1 and 1×2 patches: intervals [0, 64) and [64, 128), or all of [0, 128).
    row, column = embedding._positions()
    assert row.tolist() == [32, 96, 64, 64]
    assert column.tolist() == [64, 64, 32, 96]
    embedding.train()
    rows = torch.stack([embedding._positions()[0] for _ in range(200)])  # (200, p)
    assert (rows.min(0).values >= torch.tensor([0, 64, 0, 0])).all()
    assert (rows.max(0).values < torch.tensor([64, 128, 128, 128])).all()
    assert (rows.float().std(0) > 10).all()


def test_every_parameter_learns(seeing_model: Gato) -> None:
    spec = seeing_model.spec
    ids, patches = random_ids(seeing_model, 3), torch.rand(3, spec.image_tokens, 3, 16, 16)
    rows = action_positions(3, spec)
    logits = seeing_model.train().head(hidden(seeing_model, ids, patches, rows=rows))
    torch.nn.functional.cross_entropy(logits[0], torch.randint(0, 1024, (len(rows),))).backward()
    assert [
        name for name, p in seeing_model.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_stochastic_depth_drops_branches_in_training_only(
    spec: PolicySpec, dims: ModelDims
) -> None:
    torch.manual_seed(0)
    model = Gato(spec, dims, stochastic_depth=0.5)
    ids = random_ids(model, 3)
    assert torch.equal(hidden(model.eval(), ids), hidden(model, ids))
    assert not torch.equal(hidden(model.train(), ids), hidden(model, ids))


# Gato, table 5, less the d×d per layer that rotary positions free.
@pytest.mark.parametrize(
    ("name", "millions"), [("gato-79m", 77), ("gato-364m", 362), ("gato-1.2b", 1190)]
)
def test_a_preset_has_the_papers_size(spec: PolicySpec, name: str, millions: int) -> None:
    with torch.device("meta"):
        model = Gato(spec, preset(name))
    assert model.parameters_total / 1e6 == pytest.approx(millions, rel=0.01)


def test_an_unknown_preset_is_refused_with_the_valid_names() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown preset 'stak'.*tiny, stack, camera, gato-79m, gato-364m.*mean 'stack'",
    ):
        preset("stak")


def test_every_preset_has_even_heads_that_make_up_its_width() -> None:
    for dims in PRESETS.values():
        assert dims.head_size % 2 == 0
        assert dims.heads * dims.head_size == dims.width


def test_a_smooth_table_reads_neighbours_alike_and_stays_as_it_is(model: Gato) -> None:
    bins = slice(model.bins_at, model.bins_at + CONTINUOUS_BINS)
    with torch.no_grad():
        model.tokens.weight.normal_()
    others = model.tokens.weight[: bins.start].clone()

    model.smooth_table(32)
    table = model.tokens.weight[bins].detach().clone()
    apart = (table[1:] - table[:-1]).norm(dim=1) / table[1:].norm(dim=1)
    assert float(apart.mean()) < 0.1
    assert torch.linalg.matrix_rank(table) == 32
    assert torch.equal(model.tokens.weight[: bins.start], others)

    model.smooth_table(32)
    torch.testing.assert_close(model.tokens.weight[bins].detach(), table)
