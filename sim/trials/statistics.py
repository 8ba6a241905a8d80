"""Figures of a series of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from gatort.runtime.durations import Percentiles

from .journal import Trial

Z_95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


def wilson_95(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % score interval of a rate (Wilson 1927, JASA 22:209).

    Unlike the normal interval it holds at rates of 0 and 1 too.

    Args:
        successes: in [0, episodes].
        episodes: at least 1.
    """
    rate = successes / episodes
    z2 = Z_95**2
    centre = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = Z_95 / (1 + z2 / episodes) * sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """Figures of a series of trials."""

    episodes: int
    """Number of trials."""
    seconds_per_episode: float
    """Mean duration of a trial. s"""
    latency: Percentiles | None
    """Time of the policy in a tick, or `None` if no tick ran."""
    ticks: int
    """Number of ticks, refused ones included."""
    refused: int
    """Number of ticks that sent no command."""
    dropped: int
    """Number of commands that the robot did not apply, nearly always because they came late."""
    lost: int
    """Number of commands that never reached the robot."""
    reached: Mapping[str, int]
    """Number of trials that came to each stage of the task, in the task's order."""
    sparc: float | None
    """Median smoothness of the joints' motion, or `None` where no trial has one."""
    failures: Mapping[int, str | None]
    """Seed of each failed trial, with the sentence of its last refusal if it had one."""

    @property
    def successes(self) -> int:
        """Number of trials that succeeded."""
        return self.episodes - len(self.failures)

    @property
    def success_rate(self) -> float:
        """Share of trials that succeeded."""
        return self.successes / self.episodes

    @property
    def wilson_95(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson_95(self.successes, self.episodes)

    @property
    def missing(self) -> float:
        """Share of ticks whose action never reached the actuators: refused, lost or late."""
        # If no trial reached a first tick, no action reached the actuators either.
        if self.ticks == 0:
            return 1.0
        return (self.refused + self.lost + self.dropped) / self.ticks


def summarise(finished: Sequence[Trial]) -> TrialSummary:
    """Return the figures of at least one finished trial."""
    policy_us = np.concatenate([np.array(trial.policy_us, np.int64) for trial in finished])
    latency = Percentiles.of_ns(policy_us * 1000) if len(policy_us) else None
    smooth = [trial.sparc for trial in finished if trial.sparc is not None]
    return TrialSummary(
        episodes=len(finished),
        seconds_per_episode=float(np.mean([trial.seconds for trial in finished])),
        latency=latency,
        ticks=sum(trial.ticks for trial in finished),
        refused=sum(trial.refused for trial in finished),
        dropped=sum(trial.dropped for trial in finished),
        lost=sum(trial.lost for trial in finished),
        reached=count_stages([trial.reached_s for trial in finished]),
        sparc=float(np.median(smooth)) if smooth else None,
        failures={trial.seed: trial.refusal for trial in finished if not trial.succeeded},
    )


def count_stages(reached: Sequence[Mapping[str, float | None]]) -> dict[str, int]:
    """Return the number of trials that came to each stage, in the task's order.

    Args:
        reached: stages of each trial. A trial names them in the order in which it came to them.
    """
    # A trial that went furthest names the stages in the task's order.
    order = max(reached, key=len, default={})
    named = dict.fromkeys((*order, *(stage for trial in reached for stage in trial)))
    return {stage: sum(stage in trial for trial in reached) for stage in named}
