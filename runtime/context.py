"""The ring of frames: the positions, cache rows, angles and mask of each pass of a tick.

    frame k = [ last action token of tick k−1 | O observation tokens | separator | A−1 actions ]

Frame k lives in slot k mod n of the cache, with position j at row slot·T + j. No write ever wraps.
A frame sees itself causally and the n−1 frames before it whole. Letters: O, A, T = O + A + 1, n, W
= n·T as in `spec`; P image patches in a frame; H half the head size; R bins; t positions of a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import SpecError
from .spec import CONTINUOUS_BINS, PATCH_PIXELS, SEPARATOR_ID, ModelDims, PolicySpec

ROTARY_BASE = 10_000.0
ALIGNMENT_BYTES = 256
"""Alignment that TensorRT requires of a tensor's address."""


def rotary_frequencies(head_size: int) -> NDArray[np.float64]:
    """Return the rotary frequencies (H,), base^(−2i/head_size) (Su et al., arXiv 2104.09864)."""
    return ROTARY_BASE ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)


def rotary_tables(
    positions: NDArray[np.float64], head_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines (…, H) of positions (…).

    Angles are computed in float64, because an hour is millions of positions.
    """
    angles = np.asarray(positions, np.float64)[..., None] * rotary_frequencies(head_size)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@dataclass(slots=True)
class Block:
    """Inputs of one pass: t positions of one frame, of which p are image patches."""

    ids: NDArray[np.int64]
    """(1, t − p) token ids in frame order, image patches left out."""
    patches: NDArray[np.float32] | None
    """(p, 3, 16, 16) image patches, pixels in [−1, 1] / 4; `None` for a policy without images."""
    local: NDArray[np.int64]
    """(t,) position j of each token within its frame."""
    cos: NDArray[np.float32]
    """(t, H) cosines of the rotary angles of positions k·T + j."""
    sin: NDArray[np.float32]
    """(t, H) sines of the same angles."""
    mask: NDArray[np.bool_]
    """(t, W) mask: true where a position may attend to a cache row."""
    write_index: NDArray[np.int64]
    """(1,) first cache row that the pass writes."""
    bias: NDArray[np.float32]
    """(d, R) numbers added to the logits of the last d positions before the largest is taken.

    Zeros, a sampler's noise, or a token to force. These positions choose a token each."""


@dataclass(slots=True)
class Frame:
    """Inputs and outputs of the A passes of a tick: one prefill, then A − 1 decodes.

    All arrays are views of `memory`, each aligned for a device. An engine may copy a tick's inputs
    in at once and its outputs out at once. The arrays are rewritten in place and never reallocated.
    An engine may bind them.
    """

    memory: NDArray[np.uint8]
    """One buffer: inputs first, then outputs."""
    outputs_at: int
    """Offset in `memory` at which the outputs (tokens, logits, chosen) begin. bytes"""
    passes: tuple[Block, ...]
    """(A,) passes: the prefill (t = O + 2), then a decode (t = 1) for each action token but the
    last.

    The ids of decode i are the memory of token i − 1: a pass feeds the next one."""
    sight: Block | None
    """Beginning of the prefill (t = 1 + P): the last action token and the pictures.

    A view of the prefill. It can be run before the joints are read. `None` for a policy without
    images, and for one with text, which precedes images."""
    rest: Block
    """Part of the prefill after `sight`, a view of it. All of it where `sight` is `None`."""
    guess: NDArray[np.int64]
    """(A − 1,) guess of the action tokens but the last.

    `exact` decoding reads it. `parallel` decoding replaces it by separators, which tell nothing."""
    full: Block
    """The prefill and the guess in one pass (t = T, d = A), a view of both."""
    full_rest: Block
    """`rest` and the guess in one pass (d = A), a view of both."""
    check: Block
    """The actions but the last in one pass (t = d = A − 1). The engine writes its ids."""
    seen: bool
    """True if the next tick builds on a `sight` that has been run. The decoder sets it."""
    bias: NDArray[np.float32]
    """(A, R) biases of all passes, a row each."""
    tokens: NDArray[np.int64]
    """(A,) action tokens, written by the engine.

    Each is aligned, because each is a device input.
    """
    logits: NDArray[np.float32]
    """(A, R) logits, written by the engine."""
    chosen: NDArray[np.int64]
    """(A,) tokens of the passes of an `exact` tick, in one piece. An output like `tokens`."""
    runs: int
    """Number of passes that chose tokens in the last tick: A, unless the engine set fewer."""
    most_runs: int
    """Largest number of such passes. An exact tick that needs more fails."""

    @property
    def prefill(self) -> Block:
        """The first pass: last action token, observation and separator."""
        return self.passes[0]

    def offset(self, array: NDArray[Any]) -> int:
        """Return the offset in bytes of one of the frame's arrays in `memory`."""
        return array.ctypes.data - self.memory.ctypes.data


_Wanted = tuple[tuple[int, ...], DTypeLike]
"""Shape and dtype of an array in a frame's memory."""


def _allot(wanted: list[_Wanted]) -> tuple[NDArray[np.uint8], list[NDArray[Any]]]:
    """Return a zeroed buffer and aligned views of the wanted shapes and dtypes, in order."""
    sizes = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    starts = [
        0,
        *accumulate(-(-max(size, 1) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes),
    ]
    memory = np.zeros(starts[-1], np.uint8)
    views = [
        memory[start : start + size].view(dtype).reshape(shape)
        for start, size, (shape, dtype) in zip(starts, sizes, wanted, strict=False)
    ]
    return memory, views


def _block_arrays(tokens: int, patches: int, spec: PolicySpec, dims: ModelDims) -> list[_Wanted]:
    """Return shapes and dtypes of a block's arrays, without ids and bias, in field order."""
    half = dims.head_size // 2
    return [
        ((patches, 3, PATCH_PIXELS, PATCH_PIXELS), np.float32),
        ((tokens,), np.int64),
        ((tokens, half), np.float32),
        ((tokens, half), np.float32),
        ((tokens, spec.window_tokens), np.bool_),
        ((1,), np.int64),
    ]


def _block(
    ids: NDArray[np.int64],
    arrays: list[NDArray[Any]],
    bias: NDArray[np.float32],
    first: int,
    has_images: bool,
) -> Block:
    """Make a block over `_block_arrays` whose first frame position is `first`."""
    patches, local, cos, sin, mask, write_index = arrays
    local[:] = first + np.arange(len(local))
    return Block(ids, patches if has_images else None, local, cos, sin, mask, write_index, bias)


def _split(
    block: Block, spec: PolicySpec, rest_at: NDArray[np.int64]
) -> tuple[Block | None, Block]:
    """Return views of a block up to the last picture and after it.

    Args:
        block: block to split, from position 0 of the frame on.
        spec: keys of the policy.
        rest_at: (1,) array for the first cache row of the second part.
    """
    texts = any(key.encoding == "text" for key in spec.observations)
    if block.patches is None or texts:
        return None, block
    end = 1 + spec.image_tokens
    sight = replace(
        block,
        ids=block.ids[:, :1],
        local=block.local[:end],
        cos=block.cos[:end],
        sin=block.sin[:end],
        mask=block.mask[:end],
        bias=block.bias[:1],
    )
    rest = replace(
        block,
        ids=block.ids[:, 1:],
        patches=block.patches[:0],
        local=block.local[end:],
        cos=block.cos[end:],
        sin=block.sin[end:],
        mask=block.mask[end:],
        write_index=rest_at,
    )
    return sight, rest


def allocate_frame(spec: PolicySpec, dims: ModelDims) -> Frame:
    """Allocate a tick's arrays in one buffer."""
    prefill = spec.observation_tokens + 2
    actions = spec.action_tokens
    first = [0, *range(prefill, spec.frame_tokens)]  # (A,) frame position at which each pass begins
    wanted: list[_Wanted] = [
        ((1, spec.frame_tokens - spec.image_tokens), np.int64),
        ((actions, CONTINUOUS_BINS), np.float32),
        ((1,), np.int64),
        ((1,), np.int64),
        *_block_arrays(spec.frame_tokens, spec.image_tokens, spec, dims),
        *_block_arrays(1, 0, spec, dims) * (actions - 1),
        (
            (actions, ALIGNMENT_BYTES // np.dtype(np.int64).itemsize),
            np.int64,
        ),  # a token a row, so that each is aligned
        ((actions, CONTINUOUS_BINS), np.float32),
        ((actions,), np.int64),
        ((1, actions - 1), np.int64),
    ]
    memory, (full_ids, bias, rest_at, check_at, *inputs, tokens, logits, chosen, check_ids) = (
        _allot(wanted)
    )
    prefill_ids = full_ids[:, : prefill - spec.image_tokens]
    ids = [prefill_ids, *(tokens[index : index + 1, :1] for index in range(actions - 1))]
    each = len(inputs) // actions
    patches, *arrays, write_index = inputs[:each]
    has_images = bool(spec.image_tokens)
    full = _block(full_ids, inputs[:each], bias, 0, has_images)
    inputs[:each] = patches, *(array[:prefill] for array in arrays), write_index
    check_inputs = [patches[:0], *(array[prefill:] for array in arrays), check_at]
    passes = tuple(
        _block(
            ids[index],
            inputs[index * each : (index + 1) * each],
            bias[index : index + 1],
            first[index],
            has_images,
        )
        for index in range(actions)
    )
    outputs_at = tokens.ctypes.data - memory.ctypes.data
    sight, rest = _split(passes[0], spec, rest_at)
    return Frame(
        memory=memory,
        outputs_at=outputs_at,
        passes=passes,
        sight=sight,
        rest=rest,
        guess=full_ids[0, prefill - spec.image_tokens :],
        full=full,
        full_rest=_split(full, spec, rest_at)[1],
        check=_block(check_ids, check_inputs, bias[1:], prefill, has_images),
        seen=False,
        bias=bias,
        tokens=tokens[:, 0],
        logits=logits,
        chosen=chosen,
        runs=actions,
        most_runs=actions,
    )


class Context:
    """Owner of the frame of a tick, and counter of frames.

    The passes are always set up for frame k. The tokenizer fills in the observation, the engine
    runs, and `end_frame` sets up frame k + 1. A tick that is given up before `end_frame` leaves no
    trace: the next one takes the same slot and positions. Its mask hides the rows until they are
    written again. Only NaN passes a mask (0 · NaN). A model that computed a NaN fails the next tick
    too, which ends in SAFE.
    """

    def __init__(self, spec: PolicySpec, dims: ModelDims) -> None:
        """Allocate the frame.

        Raises:
            SpecError: the model's dimensions cannot carry the policy's frame.
        """
        require_dims_fit(spec, dims)
        self.spec = spec
        self.frame = allocate_frame(spec, dims)
        prefill = self.frame.prefill
        prefill.ids[:] = SEPARATOR_ID
        self._blocks = [*self.frame.passes, *([self.frame.check] if spec.action_tokens > 1 else [])]
        self.observation_ids = prefill.ids[0, 1:-1]
        """(O − P,) view into which the tokenizer writes an observation's ids."""
        self.patches = prefill.patches
        """(P, 3, 16, 16) view for the image patches; `None` for a policy without images."""
        frequencies = rotary_frequencies(dims.head_size)
        self._frequencies = frequencies
        within = np.arange(spec.frame_tokens, dtype=np.float64)
        self._turns = np.exp(1j * within[:, None] * frequencies)  # (T, H), angle of j alone
        self._turned = np.empty_like(self._turns)  # (T, H), angle of k·T + j
        self._causal = np.tri(spec.frame_tokens, dtype=np.bool_)  # (T, T)
        self.reset()

    def reset(self) -> None:
        """Forget every frame. Cache rows need no clearing, because the mask hides them."""
        self.frames = 0
        """k: number of frames completed since the reset."""
        self.last_token = SEPARATOR_ID
        self.frame.guess[:] = SEPARATOR_ID
        for block in self._blocks:
            block.mask[:] = False
        self._set_up_frame()

    def end_frame(self, last_token: int) -> None:
        """Complete frame k, and set up frame k + 1, which `last_token` opens.

        Args:
            last_token: last action token of frame k.
        """
        self.last_token = last_token
        self.frames += 1
        self._set_up_frame()

    def _set_up_frame(self) -> None:
        """Write angles, mask, cache rows and the first id of every pass of frame k."""
        tokens = self.spec.frame_tokens
        first = (self.frames % self.spec.window_frames) * tokens
        before = ((self.frames - 1) % self.spec.window_frames) * tokens
        np.multiply(
            self._turns,
            np.exp(1j * float(self.frames * tokens) * self._frequencies),
            out=self._turned,
        )
        self.frame.prefill.ids[0, 0] = self.last_token
        for block in self._blocks:
            start = int(block.local[0])
            within = slice(start, start + len(block.local))
            if self.frames:
                block.mask[:, before : before + tokens] = True
            block.mask[:, first : first + tokens] = self._causal[within]
            block.cos[:] = self._turned[within].real
            block.sin[:] = self._turned[within].imag
            block.write_index[0] = first + start
        self.frame.rest.write_index[0] = first + int(self.frame.rest.local[0])
        self.frame.seen = False


def require_dims_fit(spec: PolicySpec, dims: ModelDims) -> None:
    """Check that the model has a row for every position and token of the frame.

    Raises:
        SpecError: a dimension is too small; names it.
    """
    if dims.head_size % 2:
        raise SpecError(f"head_size: expected an even number, found {dims.head_size}")
    if dims.local_positions < spec.frame_tokens:
        raise SpecError(
            f"local_positions: expected at least the frame's {spec.frame_tokens} tokens, "
            f"found {dims.local_positions}"
        )
    low_ids = [key.name for key in spec.observations if key.encoding in ("text", "discrete")]
    if low_ids and dims.first_token_id != 0:
        raise SpecError(
            f"first_token_id: expected 0 for the text and discrete keys {low_ids}, "
            f"found {dims.first_token_id}"
        )
