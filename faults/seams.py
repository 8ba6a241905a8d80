"""Where faults reach into the control loop and the policy; no other file knows their insides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import Clock
from gatort.runtime.engines.engine import Engine
from gatort.runtime.loop import ControlLoop
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.safety import Command
from gatort.runtime.telemetry import Telemetry

ChangeEngine = Callable[[Engine], Engine]
"""Wraps the policy's own engine in one that fails."""
ChangeAction = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Changes an action (A,) between the policy and the guard."""


def shipped_policy() -> Policy:
    """Load the shipped policy on one thread."""
    return load_policy(PolicyOptions(threads=1))


@contextmanager
def changed_engine(policy: Policy, change: ChangeEngine | None) -> Iterator[None]:
    """Let a policy compute with a changed engine, and give its own back at the end."""
    own = policy.engine
    policy.engine = change(own) if change is not None else own
    try:
        yield
    finally:
        policy.engine = own


def control(policy: Policy, robot: Robot, clock: Clock, ticks: int) -> ControlLoop:
    """Return a loop over a new context whose telemetry has room for so many ticks."""
    policy.reset()
    telemetry = Telemetry(policy.spec, ticks, clock=clock, stepwise=policy.engine.stepwise)
    return policy.control(robot, clock, telemetry=telemetry, collect_garbage=True)


def change_actions(loop: ControlLoop, change: ChangeAction) -> None:
    """Change every action of a loop before its guard sees it."""
    admit = loop.guard.admit

    def admit_changed(action: NDArray[np.float64], observation: Observation) -> Command | None:
        return admit(change(action), observation)

    loop.guard.admit = admit_changed  # type: ignore[method-assign]  # of this one guard
