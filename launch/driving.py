"""A policy and a robot as a run's options name them: loaded, connected, and ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from gatort.policies.demo import demo_policy
from gatort.policies.loading import load_policy
from gatort.runtime.clock import Clock
from gatort.runtime.decoding import Sampler
from gatort.runtime.episode import Episode
from gatort.runtime.live_run import LiveRun
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import apply
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.robot import Robot
from gatort.runtime.robots.dry_run import DryRunRobot
from gatort.runtime.takeover.devices import find_device
from gatort.sim.known_cubes import with_cubes
from gatort.sim.make import make_robot
from gatort.sim.sensing import completed
from gatort.sim.tasks import task_named, task_of

from .options import RunOptions
from .real_cameras import with_own_cameras
from .report import screen
from .robot_options import RobotOptions


@contextmanager
def policy_and_robot(
    options: RunOptions, clock: Clock, dry_run: bool = False, *, announced: bool = True
) -> Iterator[tuple[Policy, Robot]]:
    """Load the policy, and connect to the robot until the block ends.

    Args:
        options: options of the run.
        clock: clock of the loop.
        dry_run: do not drive the robot.
        announced: name the bundle on a terminal while it loads.
    """
    driven = DryRunRobot if dry_run else lambda robot: robot
    if options.demo is not None:
        with closing(_robot(options, None, clock)) as robot:
            yield demo_policy(options.demo, robot.interface), driven(robot)
        return
    notes = screen(stderr=True)
    if announced and notes.is_terminal:  # A person waits for the first second.
        notes.print(f"loading {options.bundle}, engine {options.engine}…", style="dim")
    policy = load_policy(options, Sampler(options.temperature, options.seed))
    with closing(_robot(options, policy, clock)) as robot:
        yield policy, driven(robot)


def _robot(options: RunOptions, policy: Policy | None, clock: Clock) -> Robot:
    """Make the robot, or connect to it. Without a policy, a task's first interface is offered."""
    if options.simulator is not None:
        if policy is None:
            task = task_named(options.task or RobotOptions().task)
            spec = task.interface
        else:
            task = task_of(policy.manifest, options.task)
            spec = task.interface_for(policy.spec)
        return make_robot(options.simulator, task, clock, spec, options.seed)
    keys = ControllerKeys.load(options.keys) if options.keys is not None else None
    with apply(options.realtime):  # The threads that carry the messages get the priority too.
        robot = RemoteRobot(options.robot, clock, keys)
    seeing = with_own_cameras(robot, options.cameras, clock)
    if policy is None:
        sensor = options.sensor
        return seeing if sensor is None else with_cubes(seeing, sensor, clock)
    return completed(seeing, options.sensor, policy, options.task, clock)


def live_run(policy: Policy, robot: Robot, clock: Clock, options: RunOptions) -> LiveRun:
    """Return a run that has not begun, with its prompt in the context."""
    spec = policy.spec
    prompt = []
    if options.prompt is not None:
        prompt = list(Episode.load(options.prompt, spec).frames(last=spec.window_frames))
    return LiveRun(
        policy,
        robot,
        clock,
        ticks=max(1, round(options.seconds * spec.control_hz)),
        until_success=options.until == "success",
        prompt=prompt,
        takeover=options.takeover and find_device(options.takeover, clock, options.takeover_device),
    )
