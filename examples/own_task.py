"""Add your own task: hold the open gripper 10 cm above the red block.

It runs the task's own expert on a few layouts and keeps the episodes:

    pip install 'gatort[sim]'
    python examples/own_task.py runs/hover

docs/extend.md says how a package of yours offers it as `gatort demos --task hover`.

A task says what success is and how an expert would move. This one takes its blocks, its keys and
its layouts from the stacking task. A task of its own bodies adds a scene, `layout` and `read`.
"""

import argparse
from pathlib import Path

import numpy as np

import gatort
from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.sim.rollout import rollout
from gatort.sim.tasks.computed_torque import torque_towards
from gatort.sim.tasks.stacking.task import Stacking

ABOVE_M = np.array([0.0, 0.0, 0.1])


class Hover(Stacking):
    """The tool stays within 1 cm of its goal for half a second."""

    name = "hover"
    seconds = 5.0
    hold_s = 0.5

    def holds(self, moment, touching):
        return bool(np.linalg.norm(self.gap_m(moment)) < 0.01)

    def expert_action(self, moment, model):
        torque_nm = torque_towards(moment.arm, model, self.gap_m(moment))
        return np.append(torque_nm, GRIPPER_OPEN_M)

    def gap_m(self, moment):
        """Return the vector from the tool to its goal in the world frame, (3,) m."""
        return moment.bodies["red"].position + ABOVE_M - moment.arm.tool_position


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the episodes")
    parser.add_argument("--episodes", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clock = gatort.VirtualClock()
    robot = gatort.MujocoRobot(clock, task=Hover())
    for seed in range(options.episodes):
        episode = rollout(robot, clock, seed, act=lambda _, expert: expert)
        episode.save(options.out / f"{seed}.npz", robot.spec)
        outcome = "held" if episode.succeeded else "missed"
        print(f"layout {seed}: {outcome} after {episode.ticks} ticks")
    robot.close()
