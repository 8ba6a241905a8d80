"""Hold a policy back, let a person in a script rescue it, and learn from the rescues.

    nice -n 10 python benchmarks/takeover.py runs/takeover --json runs/takeover.json

1. Train a weak policy: few steps on few demonstrations, which were never disturbed. They show no
   way back from where a learner's errors lead.
2. Try it on validation layouts.
3. Run it on training layouts with the script at the takeover device, in lockstep, and record.
4. Make corrections of the runs that were rescued: only the person's ticks are labelled.
5. Go on training twice, from the same weights and for as many steps: with the corrections, and
   without them as a control.
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

import torch

from gatort.launch.cli import main as gatort
from gatort.policies.loading import PolicyOptions, load_policy, quickest_cpu_engine
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
from gatort.sim.tasks.stacking.person import StackingPerson
from gatort.sim.trials.runner import TrialSetup, run_trials
from gatort.sim.trials.statistics import wilson_95

DEMONSTRATIONS_SEED: Final = 1_100_000
TAKEOVER_SEED: Final = 1_110_000
VALIDATION_SEED: Final = 905_000
SECONDS: Final = 12.0
"""Longest trial. The expert needs 4 s."""
TOGETHER_SECONDS: Final = 20.0
"""Longest run with the person, who first waits until the policy gets nowhere."""
SUCCESS: Final = "success"
COMMON: Final = ("--rounds", "0", "--checkpoint-steps", "200")


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


def is_rescued(file: Path) -> bool:
    """Return whether the run of a recording ended with success."""
    recording = Recording(file)
    for _ in recording.messages():
        pass
    return recording.outcome is not None and recording.outcome.result == SUCCESS


def together(files: Sequence[Path]) -> dict[str, Any]:
    """Return the counts of the runs with the person, from their recordings."""
    outcomes, person_ticks, ticks, takeovers = [], 0, 0, 0
    for file in files:
        recording = Recording(file)
        summary = summarise(recording)
        outcomes.append(is_rescued(file))
        person_ticks += summary.person_ticks
        ticks += summary.ticks
        takeovers += len(summary.takeovers)
    return {
        **share(outcomes),
        "takeovers": takeovers,
        "ticks": ticks,
        "person_ticks": person_ticks,
    }


def main() -> None:
    """Run every step that is not done yet, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--demonstrations", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1200, help="steps of the weak policy")
    parser.add_argument("--more-steps", type=int, default=600, help="steps of each continuation")
    parser.add_argument("--takeovers", type=int, default=60, help="runs with the person")
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    validation = range(VALIDATION_SEED, VALIDATION_SEED + args.trials)

    demos = out / "demos"
    if not (demos / MANIFEST).exists():
        command(
            "demos", demos, "--episodes", args.demonstrations, "--seed", DEMONSTRATIONS_SEED,
            "--noise-nm", 0, "--workers", 1,
        )  # fmt: skip
    weak = out / "weak" / "bundle"
    command("train", demos, "--out", out / "weak", "--steps", args.steps, *COMMON)
    before = tried(weak, validation, out / "before.json")

    seeds = range(TAKEOVER_SEED, TAKEOVER_SEED + args.takeovers)
    files = rescue(weak, seeds, out / "recordings")
    rescued = together(files)
    print(json.dumps(rescued), flush=True)
    corrections = out / "corrections"
    if not (corrections / MANIFEST).exists():
        command("demos", corrections, "--corrections", *filter(is_rescued, files))

    outcomes = {"before": before}
    for name, folders in (("control", [demos]), ("corrected", [demos, corrections])):
        command(
            "train", *folders, "--out", out / name, "--start", weak, "--steps", args.more_steps,
            "--learning-rate", 3e-4, *COMMON,
        )  # fmt: skip
        outcomes[name] = tried(out / name / "bundle", validation, out / f"{name}.json")

    result = {
        "settings": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "with_person": rescued,
        **{name: share(outcome) for name, outcome in outcomes.items()},
        "corrected_against_before": paired(before, outcomes["corrected"]),
        "corrected_against_control": paired(outcomes["control"], outcomes["corrected"]),
        "seconds": (clock.now_ns() - start_ns) * 1e-9,
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
