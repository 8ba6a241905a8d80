"""Train on your own demonstrations: write episodes, train a policy on them, ask it for an action.

The task is a joint that follows a target. Put your own recorded arrays in place of `demonstrate`.

    pip install 'gatort[train]'
    python examples/own_demonstrations.py runs/own
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import gatort
from gatort.runtime.demonstrations import DemonstrationManifest, write_manifest

ANGLE = {"shape": (1,), "dtype": "float32", "unit": "rad", "encoding": "mu_law"}
SPEC = gatort.PolicySpec(
    observations=[gatort.ObservationKey(name=name, **ANGLE) for name in ("joint", "target")],
    actuators=[gatort.Actuator(name="velocity", unit="rad/s", low=-1.0, high=1.0, safe=0.0)],
    control_hz=20,
    action_delay_ms=25,
    window_frames=2,
)
TICKS = 100


def demonstrate(seed: int) -> gatort.Episode:
    """Return one episode: the joint closes the gap to its target, twice the gap per second."""
    target, joint = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
    gaps = (target - joint) * (1 - 2 / SPEC.control_hz) ** np.arange(TICKS)
    joints = np.float32(target - gaps)[:, None]  # (K, 1), K ticks
    actions = np.float32(2 * gaps)[:, None]  # (K, A)
    observations = (joints, np.full_like(joints, target))
    return gatort.Episode(seed, True, observations, actions, expert_actions=actions)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out", type=Path, help="folder for demonstrations and policy")
parser.add_argument("--episodes", type=int, default=20)
parser.add_argument("--steps", type=int, default=400)
options = parser.parse_args()
demos = options.out / "demos"
demos.mkdir(parents=True, exist_ok=True)
for seed in range(options.episodes):
    demonstrate(seed).save(demos / f"{seed}.npz", SPEC)
counts = dict.fromkeys(("episodes", "successes"), options.episodes)
counts |= {"first_seed": 0, "last_seed": options.episodes - 1, "ticks": options.episodes * TICKS}
write_manifest(demos, DemonstrationManifest(spec=SPEC, driver="my law", seconds=5.0, **counts))

# `--rounds 0` trains on the demonstrations alone: rollouts need a simulator of the task.
command = [sys.executable, "-m", "gatort", "train", demos, "--out", options.out / "policy"]
command += ["--preset", "tiny", "--rounds", "0", "--steps", str(options.steps)]
subprocess.run(command, check=True)

policy = gatort.load_policy(gatort.PolicyOptions(bundle=options.out / "policy" / "bundle"))
action = policy.act([np.float32([0.1]), np.float32([0.3])])
print(f"a gap of 0.2 rad: the policy commands {action[0]:.3f} rad/s, the law 0.4 rad/s")
