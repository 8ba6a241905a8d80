"""A person in a script rescues policies that get nowhere, with the device of a person."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gatort.policies.demo import NO_WEIGHTS
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.takeover.takeover import Takeover
from gatort.runtime.tokenizer import Tokenizer
from gatort.sim.make import make_robot
from gatort.sim.tasks.stacking.person import PATIENCE_S, StackingPerson
from gatort.sim.tasks.stacking.specifications import STACK_SPEC

SEED = 905_900


def drive(policy: Policy, patience_s: float) -> tuple[bool, list[bool]]:
    """Run a trial; return its success, and for each tick if it was the person's."""
    clock = VirtualClock(1_000_000_000)
    robot = make_robot("mujoco", "stacking", clock, STACK_SPEC, SEED)
    loop = policy.control(robot, clock)
    person = StackingPerson(robot, clock, patience_s)
    loop.takeover = Takeover(person, robot.interface, clock)
    theirs: list[bool] = []

    def look(tick: TickRecord) -> bool:
        theirs.append(tick.by_person)
        return robot.succeeded

    loop.run(400, look)
    robot.close()
    return robot.succeeded, theirs


@pytest.mark.slow
def test_it_stacks_for_a_policy_that_does_nothing() -> None:
    # It keeps the hand closed, and with it what the person has grasped.
    tokens = Tokenizer(STACK_SPEC).encode_action(np.zeros(8))
    idle = Policy.of(STACK_SPEC, NO_WEIGHTS, ScriptedEngine(tokens.tolist()))
    succeeded, theirs = drive(idle, patience_s=0.5)
    assert succeeded
    assert not theirs[0]
    # Once for the grasp, once for the way to blue, once to let go.
    assert sum(now and not before for before, now in pairwise(theirs)) == 3


@pytest.mark.slow
def test_it_leaves_a_policy_alone_that_stacks() -> None:
    succeeded, theirs = drive(load_policy(PolicyOptions(threads=1)), PATIENCE_S)
    assert succeeded
    assert not any(theirs)
