"""One trial in lockstep, with any chooser of actions, labelled by the expert at every tick."""

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

from .robot import SimulatedRobot

Array = NDArray[np.float64]
Act = Callable[[Observation, Array], Array]
"""Chooses the action (A,) of a tick from its observation and the expert's action (A,)."""

NOISE_MEMORY: Final = 0.8
"""Correlation of the expert's noise from one tick to the next."""
LINGER_TICKS: Final = 5
"""Ticks that an episode goes on after success, so that a policy learns what to do there."""


def rollout(
    robot: SimulatedRobot,
    clock: VirtualClock,
    seed: int,
    act: Act,
    seconds: float | None = None,
) -> Episode:
    """Run the trial of `seed` until it succeeds or its time is up.

    Args:
        robot: a robot on the same `clock`.
        clock: the clock, which moves on by one period a tick.
        seed: layout of the trial.
        act: chooses the actions. Every action is rounded to the actuators' bins, as a policy's
            tokens would be.
        seconds: longest episode; the task's duration by default. A learner that is stuck shows
            nothing new.
    """
    spec = robot.spec
    tokenizer = Tokenizer(spec)
    robot.reset(seed)
    guard = Guard(spec, clock)
    guard.arm()
    robot.arm()

    observed, done, labels, places = [], [], [], []
    lingered = 0
    for _ in range(int((seconds or robot.task.seconds) * spec.control_hz)):
        observation = robot.observe()
        if robot.succeeded:
            lingered += 1
        if lingered > LINGER_TICKS:
            break

        expert_action = robot.expert_action()
        place = robot.places()
        action = tokenizer.decode_action(tokenizer.encode_action(act(observation, expert_action)))
        if (command := guard.admit(action, observation)) is None:
            break

        robot.command(command)
        observed.append(observation.values)
        done.append(command.values)
        labels.append(expert_action)
        places.append(place)
        clock.advance_ns(spec.period_ns)

    return Episode(
        seed=seed,
        succeeded=lingered > 0,
        observations=tuple(np.stack(values) for values in zip(*observed, strict=True)),
        actions=np.array(done, np.float32),
        expert_actions=np.array(labels, np.float32),
        places=np.array(places, np.float32),
    )


def follow_expert(noise_nm: float, rng: np.random.Generator) -> Act:
    """Return a chooser that follows the expert, with noise on the torques (standard deviation in
    N·m).

    The noise lasts for a few ticks (first-order, correlation NOISE_MEMORY from one to the next).
    It pushes the arm off its path, and the expert shows the way back.
    """
    noise = np.zeros(7)

    def act(_: Observation, expert_action: Array) -> Array:
        fresh = rng.normal(0.0, noise_nm, 7)
        noise[:] = NOISE_MEMORY * noise + np.sqrt(1 - NOISE_MEMORY**2) * fresh
        pushed: Array = expert_action + np.append(noise, 0.0)
        return pushed

    return act
