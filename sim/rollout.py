"""One trial in lockstep under any driver, labelled by the expert at every tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.episode import Episode
from gatort.runtime.guard import Guard
from gatort.runtime.robot import Observation
from gatort.runtime.tokenizer import Tokenizer
from gatort.sim.tasks.stacking.task import TRIAL_SECONDS

from .robot import StackingRobot

Array = NDArray[np.float64]
Driver = Callable[[Observation, Array], Array]
"""From an observation and what the expert would do, both of this tick, to the action to take, (A,)."""

NOISE_MEMORY: Final = 0.8
LINGER_TICKS: Final = 5
"""How long an episode goes on after success, so that a policy learns what to do there."""


def rollout(
    robot: StackingRobot,
    clock: VirtualClock,
    seed: int,
    drive: Driver,
    seconds: float = TRIAL_SECONDS,
) -> Episode:
    """Run the trial of `seed` until it succeeds or its time is up.

    Args:
        robot: on the same `clock`.
        clock: moved on by one period a tick.
        seed: of the layout.
        drive: decides what is done; every action is cut to the actuators' bins, as a policy's tokens would be.
        seconds: longest episode; a learner that is stuck shows nothing new after a while.
    """
    spec = robot.spec
    tokenizer = Tokenizer(spec)
    robot.reset(seed)
    guard = Guard(spec, clock)
    guard.arm()
    robot.arm()
    observed, done, labels = [], [], []
    lingered = 0
    for _ in range(int(seconds * spec.control_hz)):
        observation = robot.observe()
        lingered += robot.succeeded
        if lingered > LINGER_TICKS:
            break
        expert_action = robot.expert_action()
        action = tokenizer.decode_action(tokenizer.encode_action(drive(observation, expert_action)))
        if (command := guard.admit(action, observation)) is None:
            break
        robot.command(command)
        observed.append(observation.values)
        done.append(command.values)
        labels.append(expert_action)
        clock.advance_ns(spec.period_ns)
    return Episode(
        seed=seed,
        succeeded=lingered > 0,
        observations=tuple(np.stack(values) for values in zip(*observed, strict=True)),
        actions=np.array(done, np.float32),
        expert_actions=np.array(labels, np.float32),
    )


def follow_expert(noise_nm: float, rng: np.random.Generator) -> Driver:
    """A driver that does as the expert would, with noise on the torques (standard deviation in N·m).

    The noise lasts for a few ticks (first-order, correlation NOISE_MEMORY from one to the next), so that it pushes
    the arm off its path and the expert shows the way back.
    """
    noise = np.zeros(7)

    def drive(_: Observation, expert_action: Array) -> Array:
        noise[:] = NOISE_MEMORY * noise + np.sqrt(1 - NOISE_MEMORY**2) * rng.normal(
            0.0, noise_nm, 7
        )
        pushed: Array = expert_action + np.append(noise, 0.0)
        return pushed

    return drive
