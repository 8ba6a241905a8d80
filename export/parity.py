"""Three ways through one policy that must agree: PyTorch without a cache, PyTorch's ring, another engine's ring.

The first reads the whole history at once under the banded mask, as training does; the others read it a pass at a
time, as the loop does, over several wraps of the window. Letters as in `policies/model.py`; R logits, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gatort.policies.model import (
    Gato,
    action_positions,
    banded_mask,
)
from gatort.runtime.context import (
    rotary_tables,
)
from gatort.runtime.decoding import (
    Decoder,
)
from gatort.runtime.engines.engine import Engine
from gatort.runtime.engines.torch import TorchEngine
from gatort.runtime.spec import (
    DISCRETE_TOKENS,
    SEPARATOR_ID,
    TEXT_TOKENS,
    ObservationKey,
    PolicySpec,
    Precision,
)
from gatort.runtime.tokenizer import Tokenizer

LOGIT_TOLERANCE = 1e-3
"""Largest difference in fp32: sums of some thousand products in another order differ by about 1e-5 of logits
near 10; a wrong row, angle or mask differs by 0.1 or more."""
AGREEMENT: dict[Precision, float] = {
    "fp32": 1.0,
    "fp16": 0.99,
    "int8": 0.99,
    "int4": 0.95,
    "w8a8": 0.8,
}
"""Least share of equal greedy tokens. Rounded weights move logits, and neighbouring bins of a continuous action nearly
tie, so fewer agree; the logits themselves are compared only where nothing was rounded."""
WRAPS = 3


@dataclass(frozen=True, slots=True)
class PairParity:
    """How far two paths are apart over every action token."""

    first: str
    second: str
    largest_difference: float
    """Between logits, over all tokens and bins."""
    argmax_agreement: float
    """Share of tokens where both would pick the same bin."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What `compare` found."""

    precision: Precision
    """Of the graph's weights."""
    frames: int
    wraps: float
    """How often the window was overwritten."""
    tokens: int
    """Action tokens compared."""
    largest_logit: float
    """Of the reference, as the scale of the differences."""
    pairs: tuple[PairParity, ...]

    @property
    def largest_difference(self) -> float:
        """Over all pairs."""
        return max(pair.largest_difference for pair in self.pairs)

    @property
    def argmax_agreement(self) -> float:
        """Over all pairs, the worst."""
        return min(pair.argmax_agreement for pair in self.pairs)

    @property
    def agrees(self) -> bool:
        """Enough greedy tokens equal, and in fp32 every logit within `LOGIT_TOLERANCE`; false when one is NaN."""
        tolerance = LOGIT_TOLERANCE if self.precision == "fp32" else np.finfo(np.float32).max
        return self.argmax_agreement >= AGREEMENT[
            self.precision
        ] and self.largest_difference <= float(tolerance)


@dataclass(frozen=True, slots=True)
class _History:
    """Random observations, N of them, as values and as tokens."""

    values: list[NDArray[Any]]
    """One array (N, *shape) per key, in the specification's order."""
    ids: NDArray[np.int64]
    """(N, O − p)"""
    patches: NDArray[np.float32]
    """(N, p, 3, 16, 16)"""


def compare(
    model: Gato, engine: Engine, wraps: int = WRAPS, seed: int = 0, precision: Precision = "fp32"
) -> ParityReport:
    """Compare a model, as it is and over its ring, with an engine that should compute the same.

    Every path is fed the greedy tokens of PyTorch's ring. If then all of them pick those tokens at every step, each
    would have produced them on its own.

    Raises:
        EngineError: a pass failed.
    """
    spec, dims = model.spec, model.dims
    history = _random_history(
        spec, (wraps + 1) * spec.window_frames + 1, seed
    )  # the first window wraps nothing
    ring = TorchEngine(model, spec, dims)
    ring_logits, tokens, actions = _drive(ring, model, history, None)
    engine_logits, _, _ = _drive(engine, model, history, actions)
    whole_logits = _whole(model, history, tokens)
    paths = {
        "torch whole": whole_logits,
        f"{ring.name} ring": ring_logits,
        f"{engine.name} ring": engine_logits,
    }
    names = list(paths)
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    return ParityReport(
        precision=precision,
        frames=len(history.ids),
        wraps=len(history.ids) / spec.window_frames - 1,
        tokens=tokens.size,
        largest_logit=float(np.abs(whole_logits).max()),
        pairs=tuple(_pair(first, second, paths[first], paths[second]) for first, second in pairs),
    )


def _pair(first: str, second: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> PairParity:
    return PairParity(
        first, second, float(np.abs(a - b).max()), float((a.argmax(-1) == b.argmax(-1)).mean())
    )


def _random_history(spec: PolicySpec, frames: int, seed: int) -> _History:
    """Random values for every key, through the tokenizer."""
    rng = np.random.default_rng(seed)
    values = [_random_values(key, frames, rng) for key in spec.observations]
    return _History(values, *Tokenizer(spec).encode_batch(values))


def _random_values(key: ObservationKey, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Values (N, *shape) that the key may take."""
    shape = (count, *key.shape)
    if key.encoding == "image":
        return rng.integers(0, 256, shape, np.uint8)
    if key.encoding in ("text", "discrete"):
        return rng.integers(
            0, TEXT_TOKENS if key.encoding == "text" else DISCRETE_TOKENS, shape, np.int32
        )
    if key.encoding == "mu_law":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.uniform(key.low, key.high, (count, key.size)).reshape(shape).astype(np.float32)


def _drive(
    engine: Engine, model: Gato, history: _History, forced: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Run every frame as the loop does.

    Args:
        engine: the engine to run.
        model: gives specification and dimensions.
        history: random observations.
        forced: actions (N, A) that stand in the frames; the engine's own greedy ones by default.

    Returns:
        Logits (N, A, R), tokens (N, A) and actions (N, A) that stand in the frames.
    """
    decoder = Decoder(model.spec, model.dims, engine)
    decoder.reset()
    logits, tokens, actions = [], [], []
    for index, values in enumerate(zip(*history.values, strict=True)):
        if forced is None:
            decision = decoder.decide(values)
        else:
            decision = decoder.force(values, forced[index])
        decoder.commit()
        logits.append(decision.logits.copy())
        tokens.append(decision.tokens)
        actions.append(decision.action)
    return np.stack(logits), np.stack(tokens), np.stack(actions)


def _whole(model: Gato, history: _History, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (N, A, R) from one pass over all frames under the banded mask."""
    spec = model.spec
    frames, size = len(history.ids), spec.frame_tokens
    ids = _frame_ids(history, tokens)[None]  # (1, N, T − p)
    positions = np.arange(frames * size)  # (S,)
    cos, sin = rotary_tables(positions.astype(np.float64), model.dims.head_size)
    device = model.tokens.weight.device
    with torch.inference_mode():
        hidden = model.eval()(
            torch.from_numpy(ids).to(device),
            torch.from_numpy(history.patches[None]).to(device) if spec.image_tokens else None,
            torch.from_numpy(positions % size).to(device),
            torch.from_numpy(cos).to(device),
            torch.from_numpy(sin).to(device),
            banded_mask(frames, size, spec.window_frames).to(device),
            action_positions(frames, spec).to(device),
        )
        logits: NDArray[np.float32] = model.head(hidden).float().cpu().numpy()
    return logits.reshape(frames, spec.action_tokens, -1)


def _frame_ids(history: _History, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of whole frames (N, T − p): last action token | observation | separator | all action tokens but the last."""
    last = np.concatenate(([SEPARATOR_ID], tokens[:-1, -1]))  # (N,)
    separator = np.full(len(tokens), SEPARATOR_ID)
    return np.concatenate((last[:, None], history.ids, separator[:, None], tokens[:, :-1]), axis=1)
