"""Drive the shipped policy in MuJoCo: stack the red block on the blue one.

    pip install 'gatort[sim]'
    python examples/drive_in_mujoco.py --seed 3

With `--real-time` the loop keeps to the wall clock, 20 ticks a second. Without it time is virtual:
the same ticks run as fast as this computer can.
"""

from __future__ import annotations

import argparse

import gatort


def main() -> None:
    """Run one trial and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=3, help="layout of the blocks")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest trial, s")
    parser.add_argument("--real-time", action="store_true", help="keep to the wall clock")
    options = parser.parse_args()

    # One clock for the loop and the robot, so that both agree on the age of each observation.
    clock = gatort.MonotonicClock() if options.real_time else gatort.VirtualClock()
    policy = gatort.load_policy()
    robot = gatort.MujocoRobot(clock, seed=options.seed)

    # The loop observes, decides, checks and commands. It stops the robot when it returns.
    loop = policy.control(robot, clock)
    most = round(options.seconds * policy.spec.control_hz)
    ticks = loop.run(most, on_tick=lambda _: robot.succeeded)

    result = "stacked" if robot.succeeded else "not stacked"
    print(f"{result} after {ticks / policy.spec.control_hz:.2f} s, {ticks} ticks")
    if loop.refusal:
        print(f"last refusal: {loop.refusal}")
    robot.close()


if __name__ == "__main__":
    main()
