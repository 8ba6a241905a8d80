"""Stack invented blocks with a Franka arm on franka-sim: Franka's protocol, with its limits.

    python benchmarks/franka_trials.py --episodes 20 --json runs/franka_trials.json

franka-sim has no blocks. Their poses are invented from the arm's joints. A block follows the tool
while the hand is closed around it. It falls straight down once the hand has opened. Arm, protocol,
limits, hand, inner loop and policy are the real ones. The inner loop's process reports each cycle.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from gatort.faults.franka.cycles import CYCLES_FILE, Cycles
from gatort.faults.franka.simulator import ADDRESS, DEFAULT_PYTHON, FrankaSimulator, require_python
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.robots.franka.robot import FrankaConfig, FrankaRobot
from gatort.runtime.robots.panda import PANDA
from gatort.runtime.spec import Interface
from gatort.runtime.witness_process import WitnessProcess
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.simulators.simulator import Pose
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking
from gatort.sim.tasks.task import Moment
from gatort.sim.trials.statistics import wilson_95

REACHED_M: Final = 0.03
"""Distance of the tool from a block's centre at which a closing hand takes it."""
CLOSED_M: Final = 0.003
"""The hand has closed around a block once it is this much wider than the block, or less."""
HELD_S: Final = 0.5
"""Time for which the blocks must stay stacked."""
REALTIME: Final = RealtimeConfig(fifo_priority=40, lock_memory=True)


class InventedBlocks(FrankaRobot):
    """A Franka arm with blocks that only its observations have."""

    def __init__(self, clock: Clock, trace: int, seed: int) -> None:
        config = FrankaConfig(address=ADDRESS, require_realtime_kernel=False)
        super().__init__(config, clock, trace=trace)
        self.interface = Interface.model_validate(
            {name: getattr(STACK_SPEC, name) for name in Interface.model_fields}
        )
        self._task = Stacking()
        self._kinematics = MujocoSimulator(self._task.scene)
        self._layout = self._task.layout(seed)
        self._cubes = {cube.name: cube for cube in self._layout.cubes}
        self._poses = {
            cube.name: Pose(np.array(cube.position), _upright(cube.yaw_rad))
            for cube in self._layout.cubes
        }
        self._held: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        """Place and turn of the red block in the tool's frame while the hand holds it."""
        self._began_ns = clock.now_ns()
        self._stacked_ns: int | None = None

    @property
    def succeeded(self) -> bool:
        """True once red has rested on blue for half a second."""
        since = self._stacked_ns
        return since is not None and self._clock.now_ns() - since >= HELD_S * 1e9

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        stamp_ns, readings = super()._read()
        moment = self._moment(readings)
        self._watch(moment, stamp_ns)
        sensed = dict(zip((key.name for key in PANDA.observations), readings, strict=True))
        names = [key.name for key in self.interface.observations]
        return stamp_ns, [
            sensed[name] if name in sensed else self._task.read(name, moment).astype(np.float32)
            for name in names
        ]

    def _moment(self, readings: list[NDArray[Any]]) -> Moment:
        position, velocity, width = (each.astype(np.float64) for each in readings)
        self._kinematics.place_arm(position)
        self._kinematics.settle()
        arm = replace(self._kinematics.arm(), joint_velocity=velocity, width_m=float(width[0]))
        self._carry(arm.tool_position, arm.tool_rotation, arm.width_m)
        time_s = (self._clock.now_ns() - self._began_ns) * 1e-9
        return Moment(self._layout, time_s, arm, self._poses)

    def _carry(self, tool: NDArray[np.float64], turn: NDArray[np.float64], width_m: float) -> None:
        """Take, carry or let go of the red block."""
        red, edge_m = self._poses["red"], self._cubes["red"].edge_m
        closed = width_m < edge_m + CLOSED_M
        if self._held is None and closed and np.linalg.norm(tool - red.position) < REACHED_M:
            self._held = turn.T @ (red.position - tool), turn.T @ red.rotation
        elif self._held is not None and closed:
            place, turned = self._held
            self._poses["red"] = Pose(tool + turn @ place, turn @ turned)
        elif self._held is not None:
            self._held = None
            self._poses["red"] = replace(red, position=self._fallen(red.position, edge_m))

    def _fallen(self, position: NDArray[np.float64], edge_m: float) -> NDArray[np.float64]:
        """Return the place of a block after its fall: on blue if above it, or on the table."""
        blue, blue_m = self._poses["blue"].position, self._cubes["blue"].edge_m
        is_above = np.hypot(*(position[:2] - blue[:2])) < min(edge_m, blue_m) / 2
        support_m = blue[2] + blue_m / 2 if is_above and position[2] > blue[2] else 0.0
        return np.array([*position[:2], support_m + edge_m / 2])

    def _watch(self, moment: Moment, stamp_ns: int) -> None:
        if not self._task.holds(moment, lambda _, __: self._held is None):
            self._stacked_ns = None
        elif self._stacked_ns is None:
            self._stacked_ns = stamp_ns


def _upright(yaw_rad: float) -> NDArray[np.float64]:
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class FrankaTrial:
    """Outcome of one trial."""

    seed: int
    succeeded: bool
    reflexes: str
    """Errors for which the arm stopped itself."""
    stop_reason: str | None
    largest_step_nm: float
    fastest_rad_s: float
    ticks: int
    refused: int
    pause_ms: float
    """Longest pause of a computing witness beside the trial."""


def try_once(
    policy: Policy, python: Path, seed: int, seconds: float, witness: WitnessProcess
) -> FrankaTrial:
    """Run one trial on a new franka-sim, whose arm is at its start."""
    clock = MonotonicClock()
    edge_m = Stacking().layout(seed).cubes[0].edge_m
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        holds = ("--gripper-object-width", f"{edge_m:.4f}")
        with (
            closing(FrankaSimulator(python, folder, holds)),
            (folder / CYCLES_FILE).open("wb") as trace,
            closing(InventedBlocks(clock, trace.fileno(), seed)) as robot,
        ):
            policy.reset()
            loop = policy.control(robot, clock)
            began_ns = clock.now_ns()

            def look(_: TickRecord) -> bool:
                return robot.succeeded

            with apply(REALTIME):
                ticks = loop.run(round(seconds * policy.spec.control_hz), look)
            report = witness.between(began_ns, clock.now_ns())
            succeeded, reason = robot.succeeded, robot.stop_reason
        cycles = Cycles.read(folder)
    return FrankaTrial(
        seed=seed,
        succeeded=succeeded,
        reflexes=cycles.reflexes,
        stop_reason=reason,
        largest_step_nm=cycles.largest_step_nm,
        fastest_rad_s=float(np.abs(cycles.velocities_rad_s).max()),
        ticks=ticks,
        refused=loop.guard.refused.total(),
        pause_ms=report.pause_ms if report is not None else 0.0,
    )


def main() -> None:
    """Run the trials and write their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engine", default="native")
    parser.add_argument("--franka-sim", type=Path, default=DEFAULT_PYTHON)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    require_python(args.franka_sim)

    policy = load_policy(PolicyOptions(engine=args.engine, threads=1))
    seeds = range(args.seed, args.seed + args.episodes)
    with WitnessProcess() as witness:
        trials = [
            try_once(policy, args.franka_sim, seed, args.seconds, witness) for seed in track(seeds)
        ]
    for trial in trials:
        print(trial)
    stacked = sum(trial.succeeded for trial in trials)
    low, high = wilson_95(stacked, len(trials))
    reflexes = sum(bool(trial.reflexes) for trial in trials)
    step_nm = max(trial.largest_step_nm for trial in trials)
    print(
        f"{stacked} of {len(trials)} stacked [{low:.3f}, {high:.3f}], {reflexes} with a reflex, "
        f"largest step {step_nm:.2f} N·m"
    )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")


if __name__ == "__main__":
    main()
