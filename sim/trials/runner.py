"""Seeded trials of a policy in lockstep with a simulated arm.

Each tick waits for the policy, so a slow machine makes trials take longer and changes nothing else.
The action delay and the link are simulated. The policy's own computing time counts as zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import PositiveFloat

from gatort.runtime.bundle import Manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import ConfigError, ObservationError, RobotError
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.remote.link import LinkConditions, LinkedRobot
from gatort.runtime.robots.driver import BY_CONTROLLER
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.portable import PolicyLoader, PortableWork, SeedWork, Workers
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks import task_of
from gatort.sim.tasks.seeds import TRAINING_SEEDS
from gatort.sim.view_randomisation import ViewRandomisation
from gatort.sim.workers import share

from .journal import Journal, Trial
from .smoothness import Motion

OTHER_STAGES = ("see", "observe", "guard", "command")
"""Stages that are not the policy's part of a tick. `see` is empty here: pictures come over the link
with the joints."""


class TrialSetup(PortableWork[Trial]):
    """Policy, arm and link of a series of trials."""

    load_policy: PolicyLoader
    """Loader of the policy, called once in each process."""
    simulator: SimulatorName = "mujoco"
    """Simulator of the arm."""
    task: str | None = None
    """Name of the task, for a policy whose bundle names none."""
    link: LinkConditions = LinkConditions()
    """Conditions of the link between policy and robot."""
    view: ViewRandomisation | None = None
    """Variation of the pictures from trial to trial, or `None` for the nominal look."""
    physics: Randomisation | None = None
    """Variation of physics from trial to trial, or `None` for the nominal arm."""
    seconds: PositiveFloat | None = None
    """Longest trial, or `None` for the task's own duration. s"""

    def prepare(self) -> SeedWork[Trial]:
        """Load policy and arm."""
        return TrialRunner(self).run

    def prepare_far(self) -> SeedWork[bytes]:
        """Load policy and arm of another machine: each trial in JSON."""
        run = TrialRunner(self).run
        return lambda seed: run(seed).model_dump_json().encode()

    def receive(self, seed: int, content: bytes) -> Trial:  # noqa: ARG002  # the trial has it
        """Return a trial that another machine ran."""
        return Trial.model_validate_json(content)


class TrialRunner:
    """A policy and a simulated arm, with which one process runs trial after trial."""

    def __init__(self, setup: TrialSetup) -> None:
        self.setup = setup
        self.policy = setup.load_policy()
        self.clock = VirtualClock()
        self.robot_clock = VirtualClock()
        task = task_of(self.policy.manifest, setup.task)
        interface = task.interface_for(self.policy.spec)
        self.robot = make_robot(
            setup.simulator,
            task,
            self.robot_clock,
            interface,
            randomisation=setup.physics,
            view_randomisation=setup.view,
        )

    def run(self, seed: int) -> Trial:
        """Run the trial of one seed from an empty context. A robot that fails fails the trial."""
        spec = self.policy.spec
        seconds = self.setup.seconds or self.robot.task.seconds
        ticks = round(seconds * spec.control_hz)
        self._reset(seed)
        linked = self._link(seed)
        loop = self.policy.control(linked, self.clock)
        motion = Motion(self.robot.interface)

        def look(record: TickRecord) -> bool:
            motion.add(record.observation)
            return self.robot.succeeded

        failure = None
        try:
            loop.run(ticks, look)
        except (ObservationError, RobotError) as error:
            # The loop does not handle errors before it has armed the robot.
            failure = str(error)

        return Trial(
            seed=seed,
            succeeded=self.robot.succeeded and failure is None,
            seconds=loop.telemetry.ticks / spec.control_hz,
            ticks=loop.telemetry.ticks,
            refusal=failure or self._stop_reason or loop.refusal,
            refused=loop.guard.refused.total(),
            dropped=self.robot.inner_loop.dropped.total(),
            lost=linked.lost_commands,
            reached_s=self.robot.reached_s,
            sparc=motion.sparc,
            policy_us=_policy_us(loop),
        )

    @property
    def _stop_reason(self) -> str | None:
        """Reason for which the arm stopped by itself."""
        reason = self.robot.stop_reason
        return None if reason == BY_CONTROLLER else reason

    def _reset(self, seed: int) -> None:
        self.policy.reset(Sampler(self.policy.sampler.temperature, seed))
        self.robot_clock.sleep_until_ns(self.clock.now_ns())
        self.robot.reset(seed)

    def _link(self, seed: int) -> LinkedRobot:
        """Put a fresh link in front of the robot. Each seed meets its own losses and delays."""
        link = self.setup.link
        link = link.model_copy(update={"link_seed": link.link_seed + seed})
        return LinkedRobot(self.robot, self.robot_clock, self.clock, link)


def _policy_us(loop: ControlLoop) -> tuple[int, ...]:
    within = [name not in OTHER_STAGES for name in loop.telemetry.stages]
    policy_ns = loop.telemetry.stage_durations_ns()[:, within].sum(axis=1)  # (ticks,)
    return tuple((policy_ns[policy_ns > 0] // 1000).tolist())


def run_trials(
    setup: TrialSetup, seeds: Sequence[int], workers: Workers = 1, journal: Journal | None = None
) -> Iterator[Trial]:
    """Yield the trials of all seeds as they finish, in any order.

    Args:
        setup: policy, arm and link.
        seeds: layouts.
        workers: largest number of processes, or a cluster. One worker is the calling process.
        journal: holds finished trials, which come first, and receives the others.
    """
    kept = {trial.seed: trial for trial in journal.read()} if journal is not None else {}
    yield from (kept[seed] for seed in seeds if seed in kept)

    left = [seed for seed in seeds if seed not in kept]
    for trial in share(setup, left, workers):
        if journal is not None:
            journal.append(trial)
        yield trial


def require_unseen(seeds: range, manifest: Manifest) -> None:
    """Check that the policy has not seen a trial's layout, and that no training may use it.

    Raises:
        ConfigError: a range of training or validation seeds overlaps.
    """
    name, training = manifest.name, manifest.training
    ranges = [
        *((f"{name} used", "training", used) for used in training.training_seeds),
        *((f"{name} used", "validation", used) for used in training.validation_seeds),
        # A manifest may be silent about the seeds that its policy has seen.
        ("demonstrations use", "training", (TRAINING_SEEDS[0], TRAINING_SEEDS[-1])),
    ]
    for user, purpose, (first, last) in ranges:
        if first <= seeds[-1] and seeds[0] <= last:
            raise ConfigError(
                f"expected seeds that no training or validation used, found {seeds[0]} to "
                f"{seeds[-1]}; {user} {first} to {last} for {purpose}: choose seeds outside them"
            )
