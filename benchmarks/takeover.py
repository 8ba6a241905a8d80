"""Hold a policy back, let a person in a script rescue it, and learn from the rescues.

    nice -n 10 python benchmarks/takeover.py runs/takeover --json runs/takeover.json

1. Hold the shipped `stack` policy back: teach it with an expert that never lets red go once it has
   set it down.
2. Try it on validation layouts.
3. Run it on training layouts with the script at the takeover device, in lockstep, and record.
4. Make corrections of the runs that were rescued: only the person's ticks are labelled.
5. Go on training twice, from the same weights and for as many steps: on the corrections, and on the
   faulty demonstrations as a control.
6. Try both on the layouts of step 2.

A step whose result lies in the folder is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from gatort.launch.cli import main as gatort
from gatort.policies.loading import SHIPPED_BUNDLE, PolicyOptions, load_policy, quickest_cpu_engine
from gatort.policies.recorded import policy_record
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.demonstrations import MANIFEST, DemonstrationManifest, write_manifest
from gatort.runtime.live_run import LiveRun
from gatort.runtime.machine import this_machine
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.summary import summarise
from gatort.sim.make import make_robot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.simulators.simulator import ArmModel, Array
from gatort.sim.tasks.computed_torque import torque_towards
from gatort.sim.tasks.stacking.expert import Stage, stage_of
from gatort.sim.tasks.stacking.person import StackingPerson
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking
from gatort.sim.tasks.stacking.view import BlockView
from gatort.sim.tasks.task import Moment
from gatort.sim.trials.runner import TrialSetup, run_trials
from gatort.sim.trials.statistics import wilson_95

DEMONSTRATIONS_SEED: Final = 1_100_000
TAKEOVER_SEED: Final = 1_110_000
VALIDATION_SEED: Final = 905_000
SECONDS: Final = 12.0
"""Longest trial. The expert needs 4 s."""
TOGETHER_SECONDS: Final = 20.0
"""Longest run with the person, who first waits until the policy gets nowhere."""
NOISE_NM: Final = (0.0, 1.0, 2.0)
FAULTY_SECONDS: Final = 5.5
"""Length of a faulty demonstration: 4 s to set red down, then the faulty ticks."""


def command(*words: object) -> None:
    """Run a gatort command; end the benchmark if it fails."""
    status = gatort([str(word) for word in words])
    if status:
        raise SystemExit(f"gatort {words[0]} ended with {status}")


def options_of(bundle: Path) -> PolicyOptions:
    """Return the quickest engine on one thread."""
    return PolicyOptions(bundle=bundle, engine=quickest_cpu_engine(), threads=1)


def tried(bundle: Path, seeds: range, kept: Path) -> list[bool]:
    """Return if the policy succeeds on each layout, in lockstep and without a person."""
    if kept.exists():
        return [bool(each) for each in json.loads(kept.read_text())]
    setup = TrialSetup(load_policy=partial(load_policy, options_of(bundle)), seconds=SECONDS)
    succeeded = {trial.seed: trial.succeeded for trial in run_trials(setup, seeds)}
    outcome = [succeeded[seed] for seed in seeds]
    kept.write_text(json.dumps(outcome))
    print(f"{bundle}: {sum(outcome)} of {len(outcome)}", flush=True)
    return outcome


def rescue(bundle: Path, seeds: range, folder: Path) -> list[Path]:
    """Run the policy with the script at the takeover device, and return the recordings."""
    folder.mkdir(exist_ok=True)
    options = options_of(bundle)
    policy, clock = load_policy(options), VirtualClock(1_000_000_000)
    robot = make_robot("mujoco", "stacking", clock, policy.spec, seeds[0])
    files = []
    for seed in seeds:
        file = folder / f"{seed}.mcap"
        files.append(file)
        if file.exists():
            if Recording(file).incomplete is None:
                continue
            file.unlink()
        policy.reset()
        robot.reset(seed)
        live = LiveRun(
            policy,
            robot,
            clock,
            ticks=round(TOGETHER_SECONDS * policy.spec.control_hz),
            takeover=StackingPerson(robot, clock),
        )
        run = RunRecord.of("mujoco", robot.interface, str(this_machine()), clock)
        with Recorder(file, run, policy_record(policy, options, seed)) as recorder:
            live.run(recorder)
            recorder.close(live.ending or "ended", succeeded=robot.succeeded)
    robot.close()
    return files


class HoldOn(Stacking):
    """Stacking with an expert that stays where it is, with a closed hand, once red is in place."""

    def expert_action(self, moment: Moment, model: ArmModel) -> Array:
        """See `Task.expert_action`."""
        if stage_of(BlockView.of(moment)) is not Stage.LEAVE:
            return super().expert_action(moment, model)
        return np.append(torque_towards(moment.arm, model, np.zeros(3)), 0.0)


def demonstrate(seeds: range, folder: Path) -> None:
    """Let the faulty expert drive, and write its episodes as demonstrations."""
    folder.mkdir(exist_ok=True)
    clock = VirtualClock()
    robot = make_robot("mujoco", HoldOn(), clock, STACK_SPEC, seeds[0])
    ticks = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        act = follow_expert(float(random.choice(NOISE_NM)), random)
        episode = rollout(robot, clock, seed, act, FAULTY_SECONDS)
        episode.save(folder / f"{seed}.npz", STACK_SPEC)
        ticks += episode.ticks
    robot.close()
    manifest = DemonstrationManifest(
        task="stacking",
        spec=STACK_SPEC,
        driver="an expert that never lets go",
        seconds=FAULTY_SECONDS,
        first_seed=seeds[0],
        last_seed=seeds[-1],
        episodes=len(seeds),
        successes=0,
        ticks=ticks,
    )
    write_manifest(folder, manifest)


def train(start: Path, demos: Path, out: Path, steps: int, rate: float) -> Path:
    """Go on training from a bundle, and return the new one."""
    command(
        "train", demos, "--out", out, "--start", start, "--rounds", 0, "--steps", steps,
        "--learning-rate", rate, "--warmup-steps", 20,
    )  # fmt: skip
    return out / "bundle"


def share(outcomes: Sequence[bool]) -> dict[str, Any]:
    """Return successes with their Wilson interval."""
    successes, trials = sum(outcomes), len(outcomes)
    return {"successes": successes, "trials": trials, "wilson_95": wilson_95(successes, trials)}


def paired(before: Sequence[bool], after: Sequence[bool]) -> dict[str, int]:
    """Return how often one of two policies succeeded on a layout and the other did not."""
    pairs = list(zip(before, after, strict=True))
    return {"won": pairs.count((False, True)), "lost": pairs.count((True, False))}


def together(files: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
    """Return the counts of the runs with the person, and the recordings of those that succeeded."""
    rescued, person_ticks, ticks, takeovers = [], 0, 0, 0
    for file in files:
        recording = Recording(file)
        summary = summarise(recording)
        if recording.succeeded:
            rescued.append(file)
        person_ticks += summary.person_ticks
        ticks += summary.ticks
        takeovers += len(summary.takeovers)
    counts = {"takeovers": takeovers, "ticks": ticks, "person_ticks": person_ticks}
    return share([file in rescued for file in files]) | counts, rescued


def main() -> None:
    """Run every step that is not done yet, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--demonstrations", type=int, default=60)
    parser.add_argument("--steps", type=int, default=250, help="steps of each training")
    parser.add_argument("--takeovers", type=int, default=60, help="runs with the person")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    validation = range(VALIDATION_SEED, VALIDATION_SEED + args.trials)

    demos, corrections = out / "demos", out / "corrections"
    if not (demos / MANIFEST).exists():
        first = DEMONSTRATIONS_SEED
        demonstrate(range(first, first + args.demonstrations), demos)
    weak = train(SHIPPED_BUNDLE, demos, out / "weak", args.steps, 1e-3)
    outcomes = {"before": tried(weak, validation, out / "before.json")}

    files = rescue(weak, range(TAKEOVER_SEED, TAKEOVER_SEED + args.takeovers), out / "recordings")
    with_person, rescued = together(files)
    print(json.dumps(with_person), flush=True)
    if not (corrections / MANIFEST).exists():
        command("demos", corrections, "--corrections", *rescued)
    for name, folder in (("corrected", corrections), ("control", demos)):
        bundle = train(weak, folder, out / name, args.steps, 5e-4)
        outcomes[name] = tried(bundle, validation, out / f"{name}.json")

    result = {
        "settings": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "with_person": with_person,
        **{name: share(outcome) for name, outcome in outcomes.items()},
        "corrected_against_before": paired(outcomes["before"], outcomes["corrected"]),
        "corrected_against_control": paired(outcomes["control"], outcomes["corrected"]),
        "seconds": (clock.now_ns() - start_ns) * 1e-9,
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
