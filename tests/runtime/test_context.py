from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.context import Block, Context, allocate_frame, rotary_tables
from gatort.runtime.errors import SpecError
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, SEPARATOR_ID, ModelDims, PolicySpec


def run_frame(
    context: Context, seen: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """One frame; `seen` gets (position in the stream, mask row, cos, sin, cache row) of each of its
    T positions."""
    spec, k = context.spec, context.frames

    def keep(block: Block) -> None:
        for index, j in enumerate(block.local.tolist()):
            row = int(block.write_index[0]) + index
            position = k * spec.frame_tokens + j
            seen.append(
                (
                    position,
                    block.mask[index].copy(),
                    block.cos[index].copy(),
                    block.sin[index].copy(),
                    row,
                )
            )

    for block in context.frame.passes:
        keep(block)
    context.end_frame(FIRST_CONTINUOUS_ID + 1000 + k)


@pytest.mark.parametrize("window_frames", [1, 2, 3, 5])
def test_over_many_wraps_every_position_sees_the_stream_positions_of_the_banded_mask(
    spec: PolicySpec, dims: ModelDims, window_frames: int
) -> None:
    spec = spec.model_copy(update={"window_frames": window_frames})
    tokens, seen = spec.frame_tokens, []
    context = Context(spec, dims)
    for _ in range(4 * window_frames + 1):
        run_frame(context, seen)
    assert [position for position, *_ in seen] == list(range(len(seen)))
    held = np.full(spec.window_tokens, -1)  # which stream position each cache row holds
    rows = iter(seen)
    for k in range(4 * window_frames + 1):
        frame = [next(rows) for _ in range(tokens)]
        # The prefill writes all its rows before any of them attends.
        for position, _, _, _, row in frame[: spec.observation_tokens + 2]:
            held[row] = position
        for position, mask, _, _, row in frame:
            held[row] = position
            first = max(0, k - window_frames + 1) * tokens
            assert sorted(held[mask].tolist()) == list(range(first, position + 1))


def test_angles_are_those_of_the_unbounded_position_even_after_a_day_of_ticks(
    spec: PolicySpec, dims: ModelDims
) -> None:
    context, seen = Context(spec, dims), []
    # The frame before the one in question: its end sets up the angles of the next.
    context.frames = 20 * 86_400 - 1
    context.end_frame(FIRST_CONTINUOUS_ID)
    run_frame(context, seen)
    cos, sin = rotary_tables(
        np.array([position for position, *_ in seen], np.float64), dims.head_size
    )
    # float32 keeps 24 bits of a number up to 1; the product of two float64 turns is exact far
    # beyond that.
    np.testing.assert_allclose(np.array([row[2] for row in seen]), cos, atol=1e-7)
    np.testing.assert_allclose(np.array([row[3] for row in seen]), sin, atol=1e-7)


def test_the_first_frame_opens_with_the_separator_and_later_ones_with_the_last_action_token(
    spec: PolicySpec, dims: ModelDims
) -> None:
    context = Context(spec, dims)
    assert context.frame.prefill.ids[0, 0] == SEPARATOR_ID
    assert context.frame.prefill.ids[0, -1] == SEPARATOR_ID
    context.end_frame(FIRST_CONTINUOUS_ID + 7)
    assert context.frame.prefill.ids[0, 0] == FIRST_CONTINUOUS_ID + 7


BLOCK_ARRAYS = ("ids", "patches", "local", "cos", "sin", "mask", "write_index", "bias")


def addresses(context: Context) -> list[int]:
    arrays = [getattr(block, name) for block in context.frame.passes for name in BLOCK_ARRAYS]
    return [array.ctypes.data for array in arrays if array is not None]


def snapshot(context: Context) -> list[np.ndarray]:
    names = ("mask", "cos", "sin", "write_index", "local")
    return [getattr(block, name).copy() for block in context.frame.passes for name in names]


def test_an_abandoned_tick_leaves_no_trace_in_the_next_one(
    spec: PolicySpec, dims: ModelDims
) -> None:
    disturbed, smooth = Context(spec, dims), Context(spec, dims)
    for _ in range(5):
        run_frame(disturbed, [])
        run_frame(smooth, [])
    disturbed.frame.tokens[:] = FIRST_CONTINUOUS_ID
    for found, expected in zip(snapshot(disturbed), snapshot(smooth), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_after_a_reset_nothing_earlier_is_seen(spec: PolicySpec, dims: ModelDims) -> None:
    context = Context(spec, dims)
    for _ in range(4):
        run_frame(context, [])
    context.reset()
    assert context.frame.prefill.mask.sum() == sum(range(1, spec.observation_tokens + 3))
    assert context.frame.prefill.ids[0, 0] == SEPARATOR_ID
    assert context.frames == 0


def test_blocks_keep_their_memory_for_as_long_as_the_context_lives(
    spec: PolicySpec, dims: ModelDims
) -> None:
    context = Context(spec, dims)
    before = addresses(context)
    for _ in range(7):
        run_frame(context, [])
    context.reset()
    assert addresses(context) == before


def test_a_frames_arrays_lie_apart_and_aligned_in_one_buffer_with_the_outputs_last(
    every_encoding_spec: PolicySpec, dims: ModelDims
) -> None:
    frame = allocate_frame(every_encoding_spec, dims)
    taken = np.zeros(frame.memory.size, np.int64)
    inputs = [getattr(block, name) for block in frame.passes for name in BLOCK_ARRAYS[1:]]
    outputs = [*frame.tokens[:, None], *frame.logits]
    for array in (frame.prefill.ids, *inputs, *outputs):
        start = frame.offset(array)
        assert start % 256 == 0
        taken[start : start + array.nbytes] += 1
    assert taken.max() == 1
    assert all(
        frame.offset(array) < frame.outputs_at
        for array in (frame.prefill.ids, *inputs)
        if array.size
    )
    assert all(frame.offset(array) >= frame.outputs_at for array in outputs)


def test_a_decode_reads_the_token_that_the_pass_before_it_wrote(
    spec: PolicySpec, dims: ModelDims
) -> None:
    frame = allocate_frame(spec, dims)
    frame.tokens[:] = FIRST_CONTINUOUS_ID + np.arange(spec.action_tokens)
    assert [int(block.ids[0, 0]) for block in frame.passes[1:]] == frame.tokens[:-1].tolist()
    assert [block.local.tolist() for block in frame.passes[1:]] == [[7], [8]]


def test_images_stand_after_the_text_and_outside_the_ids(
    every_encoding_spec: PolicySpec, dims: ModelDims
) -> None:
    context = Context(every_encoding_spec, dims.model_copy(update={"first_token_id": 0}))
    assert context.frame.prefill.patches is not None
    assert context.frame.prefill.patches.shape == (4, 3, 16, 16)
    assert all(len(block.patches) == 0 for block in context.frame.passes[1:])
    assert context.frame.prefill.ids.shape == (1, every_encoding_spec.observation_tokens + 2 - 4)
    assert len(context.frame.prefill.local) == every_encoding_spec.observation_tokens + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_size": 15}, "head_size: expected an even number, found 15"),
        ({"local_positions": 8}, "expected at least the frame's 9 tokens, found 8"),
    ],
)
def test_a_model_too_small_for_the_frame_is_refused(
    spec: PolicySpec, dims: ModelDims, change: dict[str, int], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        Context(spec, dims.model_copy(update=change))


def test_a_policy_with_text_needs_a_model_that_embeds_low_ids(
    every_encoding_spec: PolicySpec, dims: ModelDims
) -> None:
    with pytest.raises(
        SpecError,
        match=r"first_token_id: expected 0 for the text and discrete keys \['task', 'b'\]",
    ):
        Context(every_encoding_spec, dims)
