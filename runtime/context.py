"""The ring of frames: which positions, cache rows, angles and mask each pass gets.

    frame k = [ last action token of tick k−1 | O observation tokens | separator | first A−1 action tokens of tick k ]

Frame k lives in slot k mod n of the cache, position j at row slot·T + j, so no write ever wraps. It sees itself
causally and the n−1 frames before it whole. Letters: O, A, T = O + A + 1, n, W = n·T as in `spec`; P image patches
in a frame; H half the head size; t positions of a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import SpecError
from .spec import PATCH_PIXELS, SEPARATOR_ID, ModelDims, PolicySpec

ROTARY_BASE = 10_000.0


def rotary_frequencies(head_size: int) -> NDArray[np.float64]:
    """Angular frequencies (H,) of rotary positions, base^(−2i/head_size) (Su et al., arXiv 2104.09864)."""
    return ROTARY_BASE ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)


def rotary_tables(positions: NDArray[np.float64], head_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines (…, H) of positions (…): angles in float64, because an hour is millions of positions."""
    angles = np.asarray(positions, np.float64)[..., None] * rotary_frequencies(head_size)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@dataclass(slots=True)
class Block:
    """What one pass of an engine reads: t positions of one frame, rewritten in place and never reallocated.

    The context owns the arrays; an engine may bind their memory once and read it during `forward`.
    """

    ids: NDArray[np.int64]
    """(1, t − p) token ids in frame order, image patches left out."""
    patches: NDArray[np.float32] | None
    """(p, 3, 16, 16) image patches, pixels in [−1, 1] / 4; none when the policy has no images."""
    local: NDArray[np.int64]
    """(t,) position j of each token within its frame."""
    cos: NDArray[np.float32]
    """(t, H) cosines of the rotary angles of positions k·T + j."""
    sin: NDArray[np.float32]
    """(t, H)"""
    mask: NDArray[np.bool_]
    """(t, W), true where a position may attend to a cache row."""
    write_index: NDArray[np.int64]
    """(1,) first cache row that this pass writes."""
    image_at: int
    """The index in `ids` before which the patches stand: 1 + text tokens."""


def _block(tokens: int, patches: int, spec: PolicySpec, dims: ModelDims) -> Block:
    text = sum(key.tokens for key in spec.observations if key.encoding == "text")
    half = dims.head_size // 2
    return Block(
        ids=np.full((1, tokens - patches), SEPARATOR_ID, np.int64),
        patches=np.zeros((patches, 3, PATCH_PIXELS, PATCH_PIXELS), np.float32) if spec.image_tokens else None,
        local=np.arange(tokens, dtype=np.int64),
        cos=np.ones((tokens, half), np.float32),
        sin=np.zeros((tokens, half), np.float32),
        mask=np.zeros((tokens, spec.window_tokens), np.bool_),
        write_index=np.zeros(1, np.int64),
        image_at=1 + text,
    )


class Context:
    """Owns the blocks of a tick and the frame counter; `begin_frame`, then `feed` per action token, then `end_frame`.

    A tick that is given up before `end_frame` leaves nothing behind: the next `begin_frame` takes the same slot
    and positions, and rows that the abandoned tick wrote are masked until they are written again. Only NaN gets
    through a mask (0 · NaN): a model that computed one fails the next tick too, which ends in SAFE.
    """

    def __init__(self, spec: PolicySpec, dims: ModelDims) -> None:
        """Allocate both blocks.

        Raises:
            SpecError: the model's dimensions cannot carry the policy's frame.
        """
        require_dims_fit(spec, dims)
        self.spec = spec
        self.prefill = _block(spec.observation_tokens + 2, spec.image_tokens, spec, dims)
        """O + 2 positions: last action token, observation, separator."""
        self.decode = _block(1, 0, spec, dims)
        """One position: an action token of this tick."""
        self.observation_ids = self.prefill.ids[0, 1:-1]
        """(O − P,) view where the tokenizer writes an observation's ids."""
        frequencies = rotary_frequencies(dims.head_size)
        self._frequencies = frequencies
        frame = np.arange(spec.frame_tokens, dtype=np.float64)
        self._turns = np.exp(1j * frame[:, None] * frequencies)  # (T, H), angle of j alone
        self._turned = np.empty_like(self._turns)  # (T, H), angle of k·T + j
        self._cos = np.empty((spec.frame_tokens, dims.head_size // 2), np.float32)  # (T, H)
        self._sin = np.empty_like(self._cos)  # (T, H)
        self._causal = np.tri(spec.observation_tokens + 2, spec.frame_tokens, dtype=np.bool_)  # (O + 2, T)
        self.reset()

    def reset(self) -> None:
        """Forget every frame; cache rows need no clearing, since the mask hides them."""
        self.frame = 0
        """k, the number of frames completed since the reset."""
        self.last_token = SEPARATOR_ID
        self.prefill.mask[:] = False

    def begin_frame(self) -> None:
        """Set up both blocks for frame k; the tokenizer fills `observation_ids` and the patches before or after."""
        spec, prefill, decode = self.spec, self.prefill, self.decode
        tokens = spec.frame_tokens
        first = self._slot_row = (self.frame % spec.window_frames) * tokens
        if self.frame:
            before = ((self.frame - 1) % spec.window_frames) * tokens
            prefill.mask[:, before : before + tokens] = True
        prefill.mask[:, first : first + tokens] = self._causal
        prefill.ids[0, 0] = self.last_token
        prefill.write_index[0] = first
        decode.mask[0] = prefill.mask[-1]
        self._rotate()

    def _rotate(self) -> None:
        """Angles of the frame's T positions: that of k·T in float64, times the table of the T angles j."""
        angles = float(self.frame * self.spec.frame_tokens) * self._frequencies  # (H,)
        np.multiply(self._turns, np.exp(1j * angles), out=self._turned)
        self._cos[:] = self._turned.real
        self._sin[:] = self._turned.imag
        count = len(self.prefill.cos)
        self.prefill.cos[:] = self._cos[:count]
        self.prefill.sin[:] = self._sin[:count]

    def feed(self, position: int, token: int) -> None:
        """Set the decode block to `token` at frame position j = `position`, from O + 2 to T − 1 in order."""
        block, row = self.decode, self._slot_row + position
        block.ids[0, 0] = token
        block.local[0] = position
        block.cos[0] = self._cos[position]
        block.sin[0] = self._sin[position]
        block.mask[0, row] = True
        block.write_index[0] = row

    def end_frame(self, last_token: int) -> None:
        """Complete frame k; `last_token`, its last action token, opens frame k + 1."""
        self.last_token = last_token
        self.frame += 1


def require_dims_fit(spec: PolicySpec, dims: ModelDims) -> None:
    """Check that the model has a row for every position and token of the frame.

    Raises:
        SpecError: naming what is too small.
    """
    if dims.head_size % 2:
        raise SpecError(f"rotary positions need an even head_size, found {dims.head_size}")
    if dims.local_positions < spec.frame_tokens:
        raise SpecError(f"local_positions {dims.local_positions} is less than the frame's {spec.frame_tokens} tokens")
    low_ids = [key.name for key in spec.observations if key.encoding in ("text", "discrete")]
    if low_ids and dims.first_token_id != 0:
        raise SpecError(
            f"{low_ids} need first_token_id 0 (text and discrete ids embedded), found {dims.first_token_id}"
        )
