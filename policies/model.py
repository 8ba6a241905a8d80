"""Gato's decoder-only transformer over frames of tokens (arXiv 2205.06175), in computing order.

Letters of sequences: B batch, F frames in a training sequence, T tokens in a frame, S = F·T, p
image patches in a frame, t tokens in one cached pass, W = n·T window tokens. Letters of layers: D
width, H heads, h head size, R logits at an action position.

Two forward passes share every layer. Training uses `Gato.forward`, which reads whole sequences
under `banded_mask`. The loop uses `Gato.forward_cached`, which reads a few tokens and a ring of
cached keys and values. The two agree over any number of wraps, because they have the same mask and
positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from gatort.runtime.patches import PATCH_INTERVALS, patch_intervals
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    PATCH_PIXELS,
    VOCABULARY,
    ModelDims,
    PolicySpec,
)

PATCH_CHANNELS = 96
PATCH_GROUPS = 32
PATCH_STRIDE = 4
PATCH_CELLS = PATCH_PIXELS // PATCH_STRIDE
INIT_STD = 0.02
BIN_PERIODS = (4.0, 1 / 8)
"""Longest and shortest period of the bin embeddings' initial features, on the range [−1, 1]."""

Cache = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (1, H, W, h)."""


def banded_mask(frames: int, frame_tokens: int, window_frames: int) -> Tensor:
    """Return the attention mask of a sequence: (S, S) bool, True where the row sees the column.

    A token sees its own frame up to itself and the `window_frames` − 1 frames before it, whole.
    """
    position = torch.arange(frames * frame_tokens)  # (S,)
    frame = position // frame_tokens  # (S,)
    causal = position[:, None] >= position[None, :]  # (S, S)
    return causal & (frame[:, None] - frame[None, :] < window_frames)


def action_positions(frames: int, spec: PolicySpec) -> Tensor:
    """Return the positions whose next token is an action token: (F·A,) int64.

    Position O + 1 + i of each frame (the separator for i = 0) predicts action token i.
    """
    first = spec.observation_tokens + 1
    within = torch.arange(first, spec.frame_tokens)  # (A,)
    return (torch.arange(frames)[:, None] * spec.frame_tokens + within).flatten()  # (F·A,)


def smooth_bins(width: int, generator: torch.Generator | None = None) -> Tensor:
    """Return initial embeddings (1024, D) of the continuous bins, nearly alike for neighbours.

    They are random Fourier features of the bin's centre, with periods spread evenly over octaves.
    So neighbouring bins learn from each other from the first step on.
    """
    centre = (torch.arange(CONTINUOUS_BINS) + 0.5) * (2 / CONTINUOUS_BINS) - 1  # (1024,)
    low, high = (math.log(period) for period in BIN_PERIODS)
    period = torch.exp(low + (high - low) * torch.rand(width, generator=generator))  # (D,)
    phase = 2 * math.pi * torch.rand(width, generator=generator)  # (D,)
    angle = 2 * math.pi * centre[:, None] / period + phase  # (1024, D)
    return INIT_STD * math.sqrt(2) * torch.cos(angle)


def smooth_features(features: int, device: torch.device) -> Tensor:
    """Return K orthonormal features (1024, K) of the bins: the cosines of the longest periods.

    They are the first columns of the discrete cosine transform (Ahmed et al. 1974).
    """
    centre = (torch.arange(CONTINUOUS_BINS, device=device) + 0.5) / CONTINUOUS_BINS  # (1024,)
    half_periods = torch.arange(features, device=device)  # (K,)
    cosines = torch.cos(math.pi * centre[:, None] * half_periods)  # (1024, K)
    return nn.functional.normalize(cosines, dim=0)


class PatchNorm(nn.Module):
    """GroupNorm (Wu and He, arXiv 1803.08494) over the 4×4 cells of a patch, for 0 patches too.

    PyTorch's own GroupNorm becomes an ONNX `Reshape` to (N, groups, −1), which ONNX Runtime refuses
    at N = 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(PATCH_CHANNELS))
        self.bias = nn.Parameter(torch.zeros(PATCH_CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, 4, 4) within each of the 32 groups of channels."""
        size = PATCH_CHANNELS // PATCH_GROUPS * PATCH_CELLS**2
        grouped = layer_norm(x.reshape(-1, PATCH_GROUPS, size), (size,))  # (N, 32, C/32·16)
        return grouped.reshape(x.shape) * self.weight[:, None, None] + self.bias[:, None, None]


class PatchEmbedding(nn.Module):
    """One pre-activation ResNet block per 16×16 patch, plus the patch's position in its image.

    He et al. 2016 (arXiv 1603.05027) with GroupNorm and GELU, as in Gato's figure 15. The root
    convolution brings a patch to 4×4 cells. Row and column positions are sampled within the patch
    in training. Otherwise they are the patch's mean position.
    """

    def __init__(self, spec: PolicySpec, width: int) -> None:
        super().__init__()
        self.root = nn.Conv2d(3, PATCH_CHANNELS, kernel_size=PATCH_STRIDE, stride=PATCH_STRIDE)
        self.norm_1 = PatchNorm()
        self.conv_1 = nn.Conv2d(PATCH_CHANNELS, PATCH_CHANNELS, kernel_size=3, padding=1)
        self.norm_2 = PatchNorm()
        self.conv_2 = nn.Conv2d(PATCH_CHANNELS, PATCH_CHANNELS, kernel_size=3, padding=1)
        self.project = nn.Linear(PATCH_CHANNELS * PATCH_CELLS**2, width)
        self.row = nn.Embedding(PATCH_INTERVALS, width)
        self.column = nn.Embedding(PATCH_INTERVALS, width)
        # On the CPU even under the meta device, because `blank` fills only parameters.
        low, high = (torch.tensor(ends, device="cpu") for ends in patch_intervals(spec))
        self.register_buffer("low", low, persistent=False)  # (2, p)
        self.register_buffer("high", high, persistent=False)  # (2, p)
        self.low: Tensor
        self.high: Tensor

    def forward(self, patches: Tensor) -> Tensor:
        """Embed `patches` (…, p, 3, 16, 16), pixels in [−1, 1] / 4, as (…, p, D). p may be 0."""
        *lead, count = patches.shape[:-3]
        x = self.root(patches.flatten(0, -4))  # (N, C, 4, 4)
        y = self.conv_1(gelu(self.norm_1(x)))
        x = x + self.conv_2(gelu(self.norm_2(y)))  # (N, C, 4, 4)
        projected = self.project(x.flatten(1))  # (N, D)
        embedded: Tensor = projected.reshape(*lead, count, self.project.out_features)

        row, column = self._positions()
        position: Tensor = self.row(row) + self.column(column)  # (p, D)
        return embedded + position[:count]

    def _positions(self) -> tuple[Tensor, Tensor]:
        """Return row and column of each patch of a frame: two (p,) int64 in [0, 128)."""
        if self.training:
            spread = torch.rand(self.low.shape, device=self.low.device) * (self.high - self.low)
            row, column = (self.low + spread).long().unbind()
        else:
            row, column = ((self.low + self.high) // 2).unbind()
        return row, column


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of each head by the position's angles (Su et al., arXiv 2104.09864).

    `x` is (…, h); `cos` and `sin` (…, h/2) broadcast against it. One complex product costs a third
    of the usual halves, products and concatenation. It is computed in float32 whatever the
    precision of `x`.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))  # (…, h/2)
    return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2).type_as(x)


class CachedAttention(Protocol):
    """Operators of a cached pass. The exporter uses ONNX's own operators instead."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn `x` (1, heads, t, h) by the angles of `cos` and `sin` (t, h/2)."""

    def write(self, cache: Tensor, rows: Tensor, write_index: Tensor) -> Tensor:
        """Write `rows` (1, H, t, h) into `cache` (1, H, W, h) and return the cache.

        `write_index` (1,) is the cache row of the first.
        """

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend from (1, H, t, h) over (1, H, W, h) under `mask` (t, W) bool: (1, H, t, h)."""


class InPlaceAttention:
    """PyTorch's operators, the cache written in place."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """See `CachedAttention.rotate`. Real numbers, because torch.compile has no complex ones."""
        even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)  # (1, heads, t, h/2) each
        pairs = (even * cos - odd * sin, odd * cos + even * sin)
        turned = torch.stack(pairs, dim=-1)  # (1, heads, t, h/2, 2)
        return turned.flatten(-2).type_as(x)

    def write(self, cache: Tensor, rows: Tensor, write_index: Tensor) -> Tensor:
        """See `CachedAttention.write`."""
        where = write_index + torch.arange(rows.shape[2], device=rows.device)  # (t,)
        return cache.index_copy_(2, where, rows)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """See `CachedAttention.attend`."""
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask)


IN_PLACE = InPlaceAttention()


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions and an explicit mask."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        self.heads, self.head_size = dims.heads, dims.head_size
        self.qkv = nn.Linear(dims.width, 3 * dims.heads * dims.head_size, bias=False)
        self.out = nn.Linear(dims.heads * dims.head_size, dims.width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, rows: Tensor | None
    ) -> Tensor:
        """Attend within `x` (B, S, D) under `mask` (S, S), from positions `rows` (P,) or from all.

        Returns (B, P or S, D).
        """
        heads = self.qkv(x).unflatten(-1, (3, self.heads, self.head_size))  # (B, S, 3, H, h)
        query, keys, values = heads.unbind(2)  # (B, S, H, h) each
        cos, sin = cos[:, None], sin[:, None]  # (S, 1, h/2)
        query, keys = rotate(query, cos, sin), rotate(keys, cos, sin)
        if rows is not None:
            query = query[:, rows]  # (B, P, H, h)
            mask = mask[rows]  # (P, S)

        y = scaled_dot_product_attention(
            query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )  # (B, H, S or P, h)
        projected: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return projected

    def cached(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor,
        cache: Cache,
        how: CachedAttention,
        left: int | None,
    ) -> tuple[Tensor, Cache]:
        """Attend from the last `left` of `x` (1, t, D) over the ring, or from all.

        Returns (1, left or t, D) and the cache.
        """
        projected = self.qkv(x).unflatten(-1, (3 * self.heads, self.head_size))  # (1, t, 3H, h)
        heads = projected.transpose(1, 2)  # (1, 3H, t, h)
        turned, new_values = heads.split((2 * self.heads, self.heads), dim=1)  # (1, 2H | H, t, h)
        query, new_keys = how.rotate(turned, cos, sin).chunk(2, dim=1)  # (1, H, t, h) each

        keys = how.write(cache[0], new_keys, write_index)  # (1, H, W, h)
        values = how.write(cache[1], new_values, write_index)  # (1, H, W, h)
        if left is not None:
            first = x.shape[1] - left
            query, mask = query[:, :, first:], mask[first:]  # (1, H, left, h), (left, W)
        y = how.attend(query, keys, values, mask)  # (1, H, left or t, h)
        return self.out(y.transpose(1, 2).flatten(2)), (keys, values)


class FeedForward(nn.Module):
    """GEGLU: D → 2F, one half gates the other, F → D (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        self.up = nn.Linear(dims.width, 2 * dims.ff_half_width, bias=False)
        self.down = nn.Linear(dims.ff_half_width, dims.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        gate, value = self.up(x).chunk(2, dim=-1)  # (…, F) each
        mapped: Tensor = self.down(gelu(gate) * value)
        return mapped


class Layer(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, dims: ModelDims, drop: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(dims.width)
        self.attention = Attention(dims)
        self.norm_2 = nn.LayerNorm(dims.width)
        self.feed_forward = FeedForward(dims)
        self.drop = drop

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, rows: Tensor | None
    ) -> Tensor:
        """Map (B, S, D) to (B, S, D), or to (B, P, D) at positions `rows` (P,)."""
        attended = self.attention(self.norm_1(x), cos, sin, mask, rows)
        x = (x if rows is None else x[:, rows]) + self._survive(attended)
        return x + self._survive(self.feed_forward(self.norm_2(x)))

    def cached(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor,
        cache: Cache,
        how: CachedAttention,
        left: int | None,
    ) -> tuple[Tensor, Cache]:
        """Map (1, t, D) over the ring to (1, left or t, D), see `Attention.cached`.

        Returns the cache too.
        """
        attended, written = self.attention.cached(
            self.norm_1(x), cos, sin, mask, write_index, cache, how, left
        )
        x = (x if left is None else x[:, x.shape[1] - left :]) + attended
        return x + self.feed_forward(self.norm_2(x)), written

    def _survive(self, branch: Tensor) -> Tensor:
        """Drop the branch for some sequences (stochastic depth, Huang et al., arXiv 1603.09382)."""
        if not self.training or self.drop == 0.0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop  # (B, 1, 1)
        return branch * (keep / (1 - self.drop))


class Gato(nn.Module):
    """The policy's network, from token ids and patches to logits over the 1024 action bins."""

    def __init__(self, spec: PolicySpec, dims: ModelDims, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.dims = dims
        self.image_at = 1 + sum(key.tokens for key in spec.observations if key.encoding == "text")
        self.bins_at = FIRST_CONTINUOUS_ID - dims.first_token_id
        self.tokens = nn.Embedding(VOCABULARY - dims.first_token_id, dims.width)
        self.patches = PatchEmbedding(spec, dims.width) if spec.image_tokens else None
        self.local = nn.Embedding(dims.local_positions, dims.width)
        self.layers = nn.ModuleList(Layer(dims, stochastic_depth) for _ in range(dims.layers))
        self.norm = nn.LayerNorm(dims.width)
        self._initialise()

    def forward(
        self,
        ids: Tensor,
        patches: Tensor | None,
        local: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Read whole sequences of frames.

        Args:
            ids: (B, S) int64 without images, else (B, F, T − p): a frame's tokens that are not
                patches.
            patches: (B, F, p, 3, 16, 16) float32, or `None`.
            local: (S,) int64, position within the frame.
            cos: (S, h/2) float32, computed from float64 angles.
            sin: (S, h/2) float32.
            mask: (S, S) bool, see `banded_mask`.
            rows: (P,) int64, the only positions that the last layer computes, or `None` for all.

        Returns:
            Hidden states (B, S, D), or (B, P, D), normalised and ready for `head`.
        """
        x = self._embed(ids, patches).flatten(1, -2) + self.local(local)  # (B, S, D)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, rows if index == last else None)
        normalised: Tensor = self.norm(x)
        return normalised

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits (…, R) of the action bins from hidden states (…, D).

        The weights are the bins' embeddings.
        """
        return linear(hidden, self.tokens.weight[self.bins_at : self.bins_at + CONTINUOUS_BINS])

    def forward_cached(
        self,
        ids: Tensor,
        patches: Tensor | None,
        local: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor,
        caches: Sequence[Cache],
        how: CachedAttention = IN_PLACE,
        decides: int = 1,
    ) -> tuple[Tensor, list[Cache]]:
        """Read t tokens of one frame on top of the ring.

        Args:
            ids: (1, t − p) int64, the tokens that are not patches.
            patches: (p, 3, 16, 16) float32 after the first `image_at` ids (p = 0 in decode), or
                `None`.
            local: (t,) int64.
            cos: (t, h/2) float32.
            sin: (t, h/2) float32.
            mask: (t, W) bool.
            write_index: (1,) int64, the cache row of the first token.
            caches: keys and values of each layer. The default operators write them in place.
            how: operators of the cache.
            decides: number d of the last of the t positions that choose a token.

        Returns:
            Logits (d, R) of these positions in float32, and the caches.
        """
        batch = None if patches is None else patches[None]  # (1, p, 3, 16, 16)
        x = self._embed(ids, batch) + self.local(local)  # (1, t, D)
        last = len(self.layers) - 1
        written: list[Cache] = []
        for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            left = decides if index == last else None
            x, kept = layer.cached(x, cos, sin, mask, write_index, cache, how, left)  # type: ignore[operator]
            written.append(kept)
        return self.head(self.norm(x[0])).float(), written

    @torch.no_grad()
    def smooth_table(self, features: int) -> None:
        """Replace the bins' embeddings by the nearest ones made of `smooth_features` (1024, K)."""
        table = self.tokens.weight[self.bins_at : self.bins_at + CONTINUOUS_BINS]  # (1024, D)
        smooth = smooth_features(features, table.device)
        table.copy_(smooth @ (smooth.T @ table))

    def empty_caches(self) -> list[Cache]:
        """Return zeroed keys and values of each layer, on the model's device, in its precision."""
        shape = (1, self.dims.heads, self.spec.window_tokens, self.dims.head_size)
        like = self.tokens.weight
        return [(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.layers]

    @property
    def parameters_total(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _embed(self, ids: Tensor, patches: Tensor | None) -> Tensor:
        """Return token embeddings (…, t, D) of ids (…, t − p) and patches (…, p, 3, 16, 16)."""
        x: Tensor = self.tokens(ids - self.dims.first_token_id)  # (…, t − p, D)
        if patches is None or self.patches is None:
            return x
        before, after = x[..., : self.image_at, :], x[..., self.image_at :, :]
        return torch.cat((before, self.patches(patches.type_as(x)), after), dim=-2)  # (…, t, D)

    def _initialise(self) -> None:
        """Draw normal weights of 0.02, branches scaled by depth (Radford et al. 2019)."""
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * self.dims.layers))
            elif parameter.dim() == 2 and not name.startswith("patches.project"):
                nn.init.normal_(parameter, std=INIT_STD)
        with torch.no_grad():
            self.tokens.weight[self.bins_at : self.bins_at + CONTINUOUS_BINS] = smooth_bins(
                self.dims.width
            )


def blank(spec: PolicySpec, dims: ModelDims) -> Gato:
    """Return a model with uninitialised parameters, for weights that are about to be read."""
    with torch.device("meta"):
        model = Gato(spec, dims)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu")))
    return model
