"""Trials of the shipped policy that last one second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.policy import Policy
from gatort.runtime.remote.link import LinkConditions
from gatort.sim.trials.runner import TrialRunner, TrialSetup

RunnerOver = Callable[..., TrialRunner]
"""Makes a runner over a link with these conditions."""


@pytest.fixture(scope="session")
def stack_policy() -> Policy:
    return load_policy(PolicyOptions(threads=1))


@pytest.fixture
def runner_over(stack_policy: Policy) -> RunnerOver:
    def make(**link: float) -> TrialRunner:
        conditions = LinkConditions(**link)
        return TrialRunner(
            TrialSetup(load_policy=lambda: stack_policy, link=conditions, seconds=1.0)
        )

    return make
