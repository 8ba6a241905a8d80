"""`gatort trials`: seeded trials in lockstep, and how often they succeed.

Each tick waits for the policy, so a slow machine changes how long trials take and nothing else; the action delay and
the link are simulated, and the policy's own computing counts as none. Finished trials are appended to a file beside the
report and are not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache, partial
from os import sched_getaffinity
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from pydantic import NonNegativeInt, PositiveInt
from rich.table import Table

from gatort.launch.journal import (
    Journal,
    Trial,
)
from gatort.launch.options import resolve
from gatort.launch.report import (
    make_directory,
    percentile_record,
    progress_bar,
    require_writable,
    screen,
    wilson_95,
    write_json,
)
from gatort.launch.sweep import (
    Axis,
    Sweep,
    along,
    described,
)
from gatort.launch.workers import spread
from gatort.policies.loading import CPU_ENGINES, PolicyOptions, load_policy
from gatort.runtime.bundle import (
    Manifest,
    SuccessRecord,
    record_success,
    verify,
)
from gatort.runtime.clock import VirtualClock
from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import (
    ConfigError,
    MissingDependency,
    ObservationError,
    RobotError,
)
from gatort.runtime.machine import this_machine
from gatort.runtime.remote.link import (
    LinkConditions,
    LinkedRobot,
)
from gatort.runtime.telemetry import (
    Percentiles,
    Telemetry,
)
from gatort.sim.make import SimulatorName, simulated_robot

EPISODES = 200
SWEEP_EPISODES = 20
"""For each value of a sweep: enough to see where a task fails, not to compare policies."""
DEFAULT_PLOT = Path("runs", "sweep.png")
SHOWN_REFUSALS = 3
POLICY_STAGES = slice(1, -2)
"""Tokenize to detokenize: what the policy adds to a tick, without robot and guard."""


class TrialOptions(PolicyOptions):
    """A policy that is tried many times at once, where trials already share the cores out."""

    robot: SimulatorName = "mujoco"
    """Which simulator's arm to drive."""
    threads: PositiveInt = 1
    """CPU threads of one pass."""
    link: Annotated[LinkConditions, Parameter(name="*")] = LinkConditions()
    """What lies between policy and robot."""


def trials(
    *,
    options: Annotated[TrialOptions | None, Parameter(name="*")] = None,
    episodes: PositiveInt | None = None,
    seed: NonNegativeInt = 5000,
    workers: PositiveInt | None = None,
    sweep: Axis | None = None,
    values: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=1)] = None,
    plot: Path | None = None,
    json: Path | None = None,
    record: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Try a policy on seeded layouts in lockstep and report its success rate with a 95 % Wilson interval.

    With --json, finished trials are kept in a file beside it, and the same command goes on where it was stopped.
    With --sweep, the trials are run under one link condition after another: at which latency the task fails is known
    before an arm is powered. The policy's computing counts as none here; one that takes C ms has as much time left on
    a link of D ms one way as a policy that takes none on a link of D + C/2.

    Parameters
    ----------
    episodes
        How many trials: 200 when it is not given, and 20 for each value of a sweep.
    seed
        Layout of the first trial; the others follow one by one. Seeds that the policy has learned from are refused.
    workers
        Processes that share the trials; one per core when it is not given, and one in all for an engine on a GPU.
    sweep
        What to vary: delay and jitter in ms one way, loss and reorder as probabilities.
    values
        Of the sweep, instead of its own.
    plot
        Where the picture of a sweep goes; runs/sweep.png when it is not given.
    json
        Write the result to this file as well.
    record
        Write the success rate into the bundle's manifest.
    """
    options = resolve(TrialOptions, options, None)
    if plot is None and sweep is not None:
        make_directory(DEFAULT_PLOT.parent)
    require_writable(plot or (DEFAULT_PLOT if sweep else None), json)
    _require_sensible(options, sweep, values, record)
    manifest = verify(options.bundle)
    episodes = episodes or (SWEEP_EPISODES if sweep else EPISODES)
    seeds = range(seed, seed + episodes)
    require_unseen(seeds, manifest)
    # A GPU is shared out by itself; every process would bring its own copy of the weights.
    workers = workers or (len(sched_getaffinity(0)) if options.engine in CPU_ENGINES else 1)
    links = along(options.link, sweep, values) if sweep else [options.link]
    results = []
    for link in links:
        each = options.model_copy(update={"link": link})
        journal = Journal(json, manifest, each) if json is not None else None
        finished = _run_what_is_left(
            each, seeds, workers, journal, described(sweep, link) if sweep else "trials"
        )
        results.append(summarise([finished[seed] for seed in seeds]))
    origin = {
        "bundle": manifest.name,
        "seed": seed,
        "workers": workers,
        "machine": asdict(this_machine()),
    }
    if sweep:
        _report_sweep(
            Sweep(manifest.name, sweep, links, results), plot or DEFAULT_PLOT, json, origin
        )
        return 0
    screen().print(_table(manifest.name, results[0]))
    write_json(json, {**results[0], "link": options.link.model_dump(), **origin})
    if record:
        _record(options.bundle, seed, results[0])
    return 0


def _require_sensible(
    options: TrialOptions, sweep: Axis | None, values: tuple[float, ...] | None, record: bool
) -> None:
    if values is not None and sweep is None:
        raise ConfigError("--values are a sweep's: add --sweep delay, jitter, loss or reorder")
    if record and (sweep or not options.link.perfect):
        raise ConfigError(
            "--record writes the success rate of the policy itself: leave out the link's conditions"
        )


def _report_sweep(swept: Sweep, plot: Path, json: Path | None, origin: dict[str, Any]) -> None:
    screen().print(swept.table())
    write_json(json, {**swept.record(), **origin})
    try:
        swept.draw(plot)
    except MissingDependency as error:
        screen().print(f"no picture: {error}")
    else:
        screen().print(f"picture: {plot}")


def _run_what_is_left(
    options: TrialOptions, seeds: range, workers: int, journal: Journal | None, noun: str
) -> dict[int, Trial]:
    """Take finished trials from the journal and run the others; every trial by its seed."""
    kept = {trial.seed: trial for trial in (journal.read() if journal else ())}
    finished = {each: kept[each] for each in seeds if each in kept}
    left = [each for each in seeds if each not in kept]
    running = run_trials(options, left, min(workers, max(1, len(left))))
    try:
        for trial in _with_progress(running, noun, done=len(finished), episodes=len(seeds)):
            finished[trial.seed] = trial
            if journal:
                journal.append(trial)
    except KeyboardInterrupt:
        fate = (
            f"{journal.path} keeps them, and the same command goes on"
            if journal
            else "none is kept without --json"
        )
        screen(stderr=True).print(
            f"stopped with {len(finished)} of {len(seeds)} trials finished; {fate}"
        )
        raise
    return finished


def _record(bundle: Path, first_seed: int, result: dict[str, Any]) -> None:
    success = SuccessRecord(
        trials=result["episodes"],
        first_seed=first_seed,
        successes=result["successes"],
        rate=result["success_rate"],
        wilson_95=result["wilson_95"],
    )
    record_success(bundle, success)


def require_unseen(seeds: range, manifest: Manifest) -> None:
    """Check that no trial's layout is one that the policy was trained or chosen on, or that is for training at all.

    Raises:
        ConfigError: naming the range that overlaps.
    """
    from gatort.sim.tasks.stacking.task import TRAINING_SEEDS

    name, training = manifest.name, manifest.training
    ranges = [
        *((f"{name} used", "for training", used) for used in training.training_seeds),
        *((f"{name} used", "for validation", used) for used in training.validation_seeds),
        # Whatever the manifest says: it may be silent about what a policy has seen.
        ("demonstrations use", "for training", (TRAINING_SEEDS[0], TRAINING_SEEDS[-1])),
    ]
    for who, purpose, (first, last) in ranges:
        if first <= seeds[-1] and seeds[0] <= last:
            raise ConfigError(
                f"--seed {seeds[0]} --episodes {len(seeds)} asks for seeds {seeds[0]} to {seeds[-1]}, and "
                f"{who} {first} to {last} {purpose}: choose seeds outside them"
            )


class Trialist:
    """A policy and a simulated arm that one process runs trial after trial with."""

    def __init__(self, options: TrialOptions) -> None:
        self.options, self.clock = options, VirtualClock()
        self.policy = load_policy(options)
        self.robot_clock = VirtualClock()
        self.robot = simulated_robot(options.robot, self.policy.spec, self.robot_clock, 0)

    def run(self, seed: int) -> Trial:
        """Run the trial of one seed from a fresh context; where the robot fails, so does the trial."""
        from gatort.sim.tasks.stacking.task import TRIAL_SECONDS

        spec, robot = self.policy.spec, self.robot
        ticks = round(TRIAL_SECONDS * spec.control_hz)
        self.policy.reset(Sampler(self.options.temperature, seed))
        self.robot_clock.sleep_until_ns(self.clock.now_ns())
        robot.reset(seed)
        link = self.options.link
        link = link.model_copy(update={"link_seed": link.link_seed + seed})
        linked = LinkedRobot(robot, self.robot_clock, self.clock, link)
        telemetry = Telemetry(spec, ticks, stepwise=self.policy.engine.stepwise)
        loop = self.policy.control(linked, self.clock, telemetry=telemetry)
        failure = None
        try:
            loop.run(ticks, lambda _: robot.succeeded)
        except (
            ObservationError,
            RobotError,
        ) as error:  # Without a first observation nothing is armed.
            failure = str(error)
        policy_ns = telemetry.stage_durations_ns()[:, POLICY_STAGES].sum(axis=1)
        return Trial(
            seed=seed,
            succeeded=robot.succeeded and failure is None,
            seconds=telemetry.ticks / spec.control_hz,
            ticks=telemetry.ticks,
            refusal=failure or loop.refusal,
            refused=loop.guard.refused.total(),
            dropped=robot.inner_loop.dropped.total(),
            lost=linked.lost_commands,
            policy_us=tuple((policy_ns[policy_ns > 0] // 1000).tolist()),
        )


@cache
def _trialist(options: TrialOptions) -> Trialist:
    """The one of this process."""
    return Trialist(options)


def _run_in_worker(options: TrialOptions, seed: int) -> Trial:
    return _trialist(options).run(seed)


def run_trials(options: TrialOptions, seeds: Iterable[int], workers: int) -> Iterator[Trial]:
    """Yield trials as they finish, in whatever order."""
    return spread(partial(_run_in_worker, options), seeds, workers)


def summarise(finished: list[Trial]) -> dict[str, Any]:
    """The report's figures: no latencies where no tick ran, and each failure with its last refusal, if it had any."""
    failed = [trial for trial in finished if not trial.succeeded]
    successes = len(finished) - len(failed)
    policy_us = np.concatenate([np.array(trial.policy_us, np.int64) for trial in finished])
    return {
        "episodes": len(finished),
        "successes": successes,
        "success_rate": successes / len(finished),
        "wilson_95": wilson_95(successes, len(finished)),
        "seconds_per_episode": float(np.mean([trial.seconds for trial in finished])),
        "latency_ms": percentile_record(Percentiles.of_ns(policy_us * 1000))
        if len(policy_us)
        else {},
        "ticks": sum(trial.ticks for trial in finished),
        "refused": sum(trial.refused for trial in finished),
        "dropped": sum(trial.dropped for trial in finished),
        "lost": sum(trial.lost for trial in finished),
        "failed_seeds": [trial.seed for trial in failed],
        "failures": {trial.seed: trial.refusal for trial in failed},
    }


def _with_progress(
    finishing: Iterator[Trial], noun: str, done: int, episodes: int
) -> Iterator[Trial]:
    succeeded = 0
    with progress_bar(noun) as progress:
        bar = progress.add_task("", total=episodes, completed=done)
        for count, trial in enumerate(finishing, 1):
            succeeded += trial.succeeded
            progress.update(bar, advance=1, description=f"{succeeded} of {count} succeeded")
            yield trial


def _table(name: str, result: dict[str, Any]) -> Table:
    low, high = result["wilson_95"]
    latency = [
        f"{each} {result['latency_ms'][each]:.1f}"
        for each in ("p50", "p99", "max")
        if result["latency_ms"]
    ]
    table = Table(
        title=f"{name}, {result['episodes']} trials in lockstep",
        title_justify="left",
        show_header=False,
    )
    table.add_row(
        "success", f"{result['successes']} of {result['episodes']}, {result['success_rate']:.1%}"
    )
    table.add_row("95 % Wilson interval", f"{low:.1%} to {high:.1%}")
    table.add_row("seconds a trial", f"{result['seconds_per_episode']:.1f}")
    table.add_row("policy, ms", ", ".join(latency) or "–")
    table.add_row("failed seeds", ", ".join(map(str, result["failed_seeds"])) or "none")
    refusals = Counter(refusal for refusal in result["failures"].values() if refusal is not None)
    for refusal, count in refusals.most_common(SHOWN_REFUSALS):
        table.add_row("last refusal", f"{count}× {refusal}")
    return table
