"""Parity of three paths through one policy: PyTorch without a cache, and two engines' rings.

The first path reads the whole history at once under the banded mask, as training does. PyTorch's
ring and another engine's ring read it a pass at a time over several wraps of the window, as the
loop does. Letters as in `policies/model.py`; R logits, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gatort.policies.model import Gato, action_positions, banded_mask
from gatort.runtime.context import rotary_tables
from gatort.runtime.decoding import Decoder
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
"""Largest difference in fp32.

Sums of some thousand products in another order differ by about 1e-5 for logits near 10. A wrong
row, angle or mask differs by 0.1 or more."""
AGREEMENT: dict[Precision, float] = {
    "fp32": 0.99,
    "fp16": 0.99,
    "int8": 0.99,
    "int4": 0.95,
    "w8a8": 0.3,
}
"""Smallest share of equal greedy tokens.

In fp32, two bins tie to six digits now and then; the bound on the logits catches every fault.
Rounded weights move logits, and neighbouring bins of a continuous action are nearly equal: fewer
tokens agree. The logits themselves are compared only if nothing was rounded."""
WRAPS = 3


@dataclass(frozen=True, slots=True)
class PairParity:
    """Differences between two paths over every action token."""

    first: str
    """Name of the first path."""
    second: str
    """Name of the second path."""
    largest_difference: float
    """Largest difference between logits, over all tokens and bins."""
    argmax_agreement: float
    """Share of tokens for which both paths pick the same bin."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Result of `compare`."""

    precision: Precision
    """Precision of the graph's weights."""
    frames: int
    """Number of frames."""
    wraps: float
    """Number of times that the window was overwritten."""
    tokens: int
    """Number of action tokens compared."""
    largest_logit: float
    """Largest absolute logit of the reference: the scale of the differences."""
    pairs: tuple[PairParity, ...]
    """Differences of each pair of paths."""

    @property
    def largest_difference(self) -> float:
        """Largest difference between logits, over all pairs."""
        return max(pair.largest_difference for pair in self.pairs)

    @property
    def argmax_agreement(self) -> float:
        """Smallest agreement of all pairs."""
        return min(pair.argmax_agreement for pair in self.pairs)

    @property
    def agrees(self) -> bool:
        """True if enough greedy tokens are equal, and in fp32 every logit is near enough.

        False if a logit is NaN or infinite.
        """
        tolerance = LOGIT_TOLERANCE if self.precision == "fp32" else np.finfo(np.float32).max
        enough = self.argmax_agreement >= AGREEMENT[self.precision]
        return enough and self.largest_difference <= float(tolerance)


@dataclass(frozen=True, slots=True)
class _History:
    """Random observations, N of them, as values and as tokens."""

    values: list[NDArray[Any]]
    """One array (N, *shape) per key, in the specification's order."""
    ids: NDArray[np.int64]
    """Token ids (N, O − p)."""
    patches: NDArray[np.float32]
    """Image patches (N, p, 3, 16, 16)."""


def compare(
    model: Gato, engine: Engine, wraps: int = WRAPS, seed: int = 0, precision: Precision = "fp32"
) -> ParityReport:
    """Compare a model, whole and over its ring, with an engine that should compute the same.

    All paths are fed the greedy tokens of PyTorch's ring. If all of them pick these tokens at every
    step, each would have produced them on its own.

    Args:
        model: the policy.
        engine: engine of the same policy.
        wraps: number of times that the window is overwritten.
        seed: seed of the random observations.
        precision: precision of the engine's weights, which decides how much must agree.

    Raises:
        EngineError: a pass failed.
    """
    spec = model.spec
    # The first window wraps nothing.
    history = _random_history(spec, (wraps + 1) * spec.window_frames + 1, seed)
    ring = TorchEngine(model, spec, model.dims)
    ring_logits, tokens, actions = _drive(ring, model, history, None)
    engine_logits, _, _ = _drive(engine, model, history, actions)
    whole_logits = _whole(model, history, tokens)

    # A list, because the engine may be PyTorch's own and have the same name.
    paths = [
        ("torch whole", whole_logits),
        (f"{ring.name} ring", ring_logits),
        (f"{engine.name} ring", engine_logits),
    ]
    return ParityReport(
        precision=precision,
        frames=len(history.ids),
        wraps=len(history.ids) / spec.window_frames - 1,
        tokens=tokens.size,
        largest_logit=float(np.abs(whole_logits).max()),
        pairs=tuple(
            _pair(first, second, one, other)
            for (first, one), (second, other) in combinations(paths, 2)
        ),
    )


def _pair(first: str, second: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> PairParity:
    return PairParity(
        first=first,
        second=second,
        largest_difference=float(np.abs(a - b).max()),
        argmax_agreement=float((a.argmax(-1) == b.argmax(-1)).mean()),
    )


def _random_history(spec: PolicySpec, frames: int, seed: int) -> _History:
    """Return random values for every key, and their tokens."""
    rng = np.random.default_rng(seed)
    values = [_random_values(key, frames, rng) for key in spec.observations]
    ids, patches = Tokenizer(spec).encode_batch(values)
    return _History(values, ids, patches)


def _random_values(key: ObservationKey, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return values (N, *shape) that the key may take."""
    shape = (count, *key.shape)
    match key.encoding:
        case "image":
            return rng.integers(0, 256, shape, np.uint8)
        case "text":
            return rng.integers(0, TEXT_TOKENS, shape, np.int32)
        case "discrete":
            return rng.integers(0, DISCRETE_TOKENS, shape, np.int32)
        case "mu_law":
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
    logits = []
    tokens = []
    actions = []
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
    """Return logits (N, A, R) from one pass over all frames under the banded mask."""
    spec = model.spec
    frames = len(history.ids)
    size = spec.frame_tokens
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
    """Return the ids of whole frames (N, T − p).

    A frame is: last action token | observation | separator | all action tokens but the last.
    """
    last = np.concatenate(([SEPARATOR_ID], tokens[:-1, -1]))  # (N,)
    separator = np.full(len(tokens), SEPARATOR_ID)
    return np.concatenate((last[:, None], history.ids, separator[:, None], tokens[:, :-1]), axis=1)
