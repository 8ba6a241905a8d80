"""Hold a policy back, let a person in a script rescue it, and learn from the rescues.

    nice -n 10 python benchmarks/takeover.py runs/takeover --json runs/takeover.json

The shipped `stack` policy drives an arm that it never met: its joints have dry friction, and its
gravity compensation is a tenth short.

1. Try the policy on validation layouts.
2. Run it on training layouts with the script at the takeover device, in lockstep, and record.
3. Make corrections of the runs that were rescued: only the person's ticks are labelled.
4. Go on training twice from the policy's weights, for as many steps: on the expert's demonstrations
   with the corrections, and on the demonstrations alone as a control.
5. Try both on the layouts of step 1, and the corrected policy on an arm without friction.

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
from gatort.runtime.demonstrations import MANIFEST
from gatort.runtime.live_run import LiveRun
from gatort.runtime.machine import this_machine
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.summary import summarise
from gatort.sim.make import make_robot
from gatort.sim.simulators.simulator import NOMINAL, Physics
from gatort.sim.tasks.stacking.person import StackingPerson
from gatort.sim.trials.runner import TrialRunner, TrialSetup
from gatort.sim.trials.statistics import wilson_95

DEMONSTRATIONS_SEED: Final = 1_100_000
TAKEOVER_SEED: Final = 1_110_000
VALIDATION_SEED: Final = 905_000
WORN: Final = Physics(joint_friction_nm=np.array([1.5] * 4 + [0.5] * 3), gravity_gain=0.9)
SECONDS: Final = 12.0
"""Longest trial. The shipped policy needs 4 s on the arm that it knows."""
TOGETHER_SECONDS: Final = 20.0
"""Longest run with the person, who first waits until the policy gets nowhere."""
SUCCESS: Final = "success"


def command(*words: object) -> None:
    """Run a gatort command; end the benchmark if it fails."""
    status = gatort([str(word) for word in words])
    if status:
        raise SystemExit(f"gatort {words[0]} ended with {status}")


def options_of(bundle: Path) -> PolicyOptions:
    """Return the quickest engine on one thread."""
    return PolicyOptions(bundle=bundle, engine=quickest_cpu_engine(), threads=1)


def tried(bundle: Path, physics: Physics, seeds: range, kept: Path) -> list[bool]:
    """Return if the policy succeeds on each layout, in lockstep and without a person."""
    if not kept.exists():
        load = partial(load_policy, options_of(bundle))
        runner = TrialRunner(TrialSetup(load_policy=load, seconds=SECONDS))
        runner.robot.simulator.use_physics(physics)
        kept.write_text(json.dumps([runner.run(seed).succeeded for seed in seeds]))
        runner.robot.close()
    outcomes = [bool(each) for each in json.loads(kept.read_text())]
    print(f"{kept.stem}: {sum(outcomes)} of {len(outcomes)}", flush=True)
    return outcomes


def rescue(seeds: range, folder: Path) -> list[Path]:
    """Run the policy on the worn arm with the script at the device, and return the recordings."""
    folder.mkdir(exist_ok=True)
    options = options_of(SHIPPED_BUNDLE)
    policy, clock = load_policy(options), VirtualClock(1_000_000_000)
    robot = make_robot("mujoco", "stacking", clock, policy.spec, seeds[0])
    robot.simulator.use_physics(WORN)
    files = [folder / f"{seed}.mcap" for seed in seeds]
    for seed, file in zip(seeds, files, strict=True):
        if file.exists():
            continue
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
            recorder.close(SUCCESS if robot.succeeded else live.ending or "no success")
    robot.close()
    return files


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
        if recording.outcome is not None and recording.outcome.result == SUCCESS:
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
    parser.add_argument("--takeovers", type=int, default=120, help="runs with the person")
    parser.add_argument("--steps", type=int, default=600, help="steps of each training")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    validation = range(VALIDATION_SEED, VALIDATION_SEED + args.trials)

    outcomes = {"before": tried(SHIPPED_BUNDLE, WORN, validation, out / "before.json")}
    files = rescue(range(TAKEOVER_SEED, TAKEOVER_SEED + args.takeovers), out / "recordings")
    with_person, rescued = together(files)
    print(json.dumps(with_person), flush=True)

    demos, corrections = out / "demos", out / "corrections"
    if not (corrections / MANIFEST).exists():
        command("demos", corrections, "--corrections", *rescued)
    if not (demos / MANIFEST).exists():
        seeds = ("--episodes", args.demonstrations, "--seed", DEMONSTRATIONS_SEED)
        command("demos", demos, *seeds, "--workers", 1)
    for name, folders in (("corrected", [demos, corrections]), ("control", [demos])):
        command(
            "train", *folders, "--out", out / name, "--start", SHIPPED_BUNDLE, "--rounds", 0,
            "--steps", args.steps, "--learning-rate", 3e-4,
        )  # fmt: skip
        bundle = out / name / "bundle"
        outcomes[name] = tried(bundle, WORN, validation, out / f"{name}.json")
    nominal = tried(out / "corrected" / "bundle", NOMINAL, validation, out / "nominal.json")

    result = {
        "settings": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "with_person": with_person,
        **{name: share(outcome) for name, outcome in outcomes.items()},
        "corrected_on_the_arm_it_knew": share(nominal),
        "corrected_against_before": paired(outcomes["before"], outcomes["corrected"]),
        "corrected_against_control": paired(outcomes["control"], outcomes["corrected"]),
        "seconds": (clock.now_ns() - start_ns) * 1e-9,
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
