"""Two engines on the same recorded observations: the share of equal tokens and the difference of
their actions.

Letters as in `policies/model.py`; A action tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.decoding import Decoder
from gatort.runtime.engines.cache import GraphAgreement
from gatort.runtime.engines.engine import Engine
from gatort.runtime.episode import Episode
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec
from gatort.runtime.tokenizer import Tokenizer


def compare_actions(
    name: str,
    reference: Engine,
    candidate: Engine,
    spec: PolicySpec,
    dims: ModelDims,
    episodes: Sequence[Episode],
) -> GraphAgreement:
    """Run both engines over recorded observations; each token of the candidate follows the
    reference's tokens.

    Args:
        name: name of the candidate in the result.
        reference: engine whose greedy tokens both are fed.
        candidate: engine to compare.
        spec: specification of the policy.
        dims: dimensions of the model.
        episodes: recorded observations; the context starts anew with each episode.

    Raises:
        EngineError: a pass failed.
    """
    wanted = list(_choices(reference, spec, dims, episodes))  # ticks × (A,)
    found = list(_choices(candidate, spec, dims, episodes, iter(wanted)))  # ticks × (A,)

    tokenizer = Tokenizer(spec)
    actions = [np.array([tokenizer.decode_action(row) for row in rows]) for rows in (wanted, found)]
    apart = np.abs(actions[0] - actions[1])  # (ticks, A)
    ranges = np.array([actuator.high - actuator.low for actuator in spec.actuators])
    equal = np.array(wanted) == np.array(found)  # (ticks, A)

    return GraphAgreement(
        graph=name,
        tokens=equal.size,
        same_argmax=float(equal.mean()),
        error=tuple(float(each) for each in apart.mean(axis=0)),
        share_of_range=float((apart / ranges).mean()),
    )


def _choices(
    engine: Engine,
    spec: PolicySpec,
    dims: ModelDims,
    episodes: Sequence[Episode],
    forced: Iterator[NDArray[np.int64]] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Yield the engine's greedy tokens (A,) of each tick; it is fed `forced` tokens (A,) instead if
    given.
    """
    decoder = Decoder(spec, dims, engine)
    for episode in episodes:
        decoder.reset()
        for values in zip(*episode.observations, strict=True):
            if forced is None:
                decision = decoder.decide(values)
            else:
                action = decoder.tokenizer.decode_action(next(forced))
                decision = decoder.force(values, action)
            decoder.commit()
            yield decision.logits.argmax(axis=1) + FIRST_CONTINUOUS_ID
