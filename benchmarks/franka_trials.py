"""Stack invented blocks with a Franka arm on franka-sim: Franka's protocol, with its limits.

    python benchmarks/franka_trials.py --episodes 20 --json runs/franka_trials.json
    python benchmarks/franka_trials.py --cameras --episodes 10 --seconds 20

franka-sim has no blocks. Their poses are invented from the arm's joints. A block follows the tool
while the hand is closed around it. It falls straight down once the hand has opened. Arm, protocol,
limits, hand, inner loop and policy are the real ones. The inner loop's process reports each cycle.

With `--cameras` the policy sees two cameras instead. A process draws arm and blocks, and serves the
pictures as MJPEG over HTTP. The cameras' processes read them with the limits of any other camera.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from gatort.faults.franka.cameras import CAMERAS, SceneCameras, SeenBlock, SeenHand
from gatort.faults.franka.cycles import CYCLES_FILE, Cycles
from gatort.faults.franka.simulator import ADDRESS, DEFAULT_PYTHON, FrankaSimulator, require_python
from gatort.policies.loading import (
    SHIPPED_BUNDLE,
    SHIPPED_CAMERA_BUNDLE,
    PolicyOptions,
    load_policy,
)
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import PictureSource
from gatort.runtime.robots.cameras.process import CameraProcess
from gatort.runtime.robots.cameras.rig import CameraDriver, CameraRig, open_cameras
from gatort.runtime.robots.driver import Driver
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
LATENCY_MS: Final = CameraConfig(source="file:-").latency_ms
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
        self.on_hand: Callable[[SeenHand], None] | None = None
        """Callback with hand and blocks after each reading. It must return at once."""
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
        if self.on_hand is not None:
            self.on_hand(self._seen_hand(moment.arm.width_m))
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

    def _seen_hand(self, width_m: float) -> SeenHand:
        blocks = {name: SeenBlock.of(name, pose, False) for name, pose in self._poses.items()}
        if self._held is not None:
            blocks["red"] = SeenBlock.of("red", Pose(*self._held), True)
        return SeenHand(width_m, tuple(blocks.values()))

    def _watch(self, moment: Moment, stamp_ns: int) -> None:
        if not self._task.holds(moment, lambda _, __: self._held is None):
            self._stacked_ns = None
        elif self._stacked_ns is None:
            self._stacked_ns = stamp_ns


def _upright(yaw_rad: float) -> NDArray[np.float64]:
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


class TimedRig(CameraRig):
    """Cameras, with the age of each picture when the loop looks at it."""

    def __init__(self, base: Interface, cameras: Sequence[PictureSource], clock: Clock) -> None:
        super().__init__(base, cameras)
        self.ages_ms: list[float] = []
        self._clock = clock

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `CameraRig.look`."""
        pictures = super().look()
        now_ns = self._clock.now_ns()
        self.ages_ms += [(now_ns - picture.stamp_ns) * 1e-6 for picture in self._looked]
        return pictures


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
    refusals: tuple[str, ...]
    """Sentence of each refused tick. Skipped ticks count as refused and have none."""
    pause_ms: float
    """Longest pause of a computing witness beside the trial."""
    cameras: tuple[str, ...] = ()
    """Status of each camera at the end."""
    picture_ages_ms: tuple[float, ...] = field(default=(), repr=False)
    """Age of each picture when the loop looked at it."""


def put_cameras(
    blocks: InventedBlocks, folder: Path, seed: int, latency_ms: float, stack: ExitStack
) -> tuple[CameraDriver, TimedRig]:
    """Return the arm with two cameras that see the invented blocks. `stack` closes all."""
    clock = MonotonicClock()
    latency_ns = round(latency_ms * 1e6)
    scene = stack.enter_context(closing(SceneCameras(folder / CYCLES_FILE, seed, latency_ns)))
    blocks.on_hand = scene.show
    blocks.observe()  # The first picture needs the blocks.
    configs = {
        name: CameraConfig(source=scene.url(name), latency_ms=latency_ms) for name in CAMERAS
    }
    cameras = open_cameras(configs, lambda name, config: CameraProcess(name, config, clock))
    rig = TimedRig(blocks.interface, cameras, clock)
    stack.callback(rig.close)
    return CameraDriver(blocks, rig), rig


def try_once(
    policy: Policy,
    python: Path,
    seed: int,
    seconds: float,
    witness: WitnessProcess,
    latency_ms: float | None,
) -> FrankaTrial:
    """Run one trial on a new franka-sim, whose arm is at its start.

    Args:
        policy: policy that stacks.
        python: Python of franka-sim's environment.
        seed: layout of the blocks.
        seconds: longest time.
        witness: computing witness beside the trial.
        latency_ms: latency of the cameras; `None` for a policy that is told where the blocks are.
    """
    clock = MonotonicClock()
    edge_m = Stacking().layout(seed).cubes[0].edge_m
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        holds = ("--gripper-object-width", f"{edge_m:.4f}")
        with (
            closing(FrankaSimulator(python, folder, holds)),
            (folder / CYCLES_FILE).open("wb") as trace,
            closing(InventedBlocks(clock, trace.fileno(), seed)) as blocks,
            ExitStack() as stack,
        ):
            robot: Driver = blocks
            rig: TimedRig | None = None
            if latency_ms is not None:
                robot, rig = put_cameras(blocks, folder, seed, latency_ms, stack)
            refusals: list[str] = []
            policy.reset()
            loop = policy.control(robot, clock)
            began_ns = clock.now_ns()

            def look(record: TickRecord) -> bool:
                if record.refusal is not None:
                    refusals.append(record.refusal)
                return robot.succeeded

            with apply(REALTIME):
                ticks = loop.run(round(seconds * policy.spec.control_hz), look)
            report = witness.between(began_ns, clock.now_ns())
            succeeded, reason = robot.succeeded, robot.stop_reason
            cameras = rig.cameras if rig is not None else ()
            statuses = tuple(str(camera.status) for camera in cameras)
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
        refusals=tuple(refusals),
        pause_ms=report.pause_ms if report is not None else 0.0,
        cameras=statuses,
        picture_ages_ms=tuple(rig.ages_ms) if rig is not None else (),
    )


def main() -> None:
    """Run the trials and write their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engine", default="native")
    parser.add_argument("--cameras", action="store_true", help="try the policy with cameras")
    parser.add_argument("--latency-ms", type=float, default=LATENCY_MS, help="cameras' latency")
    parser.add_argument("--franka-sim", type=Path, default=DEFAULT_PYTHON)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    require_python(args.franka_sim)

    bundle = SHIPPED_CAMERA_BUNDLE if args.cameras else SHIPPED_BUNDLE
    policy = load_policy(PolicyOptions(bundle=bundle, engine=args.engine, threads=1))
    latency_ms = args.latency_ms if args.cameras else None
    seeds = range(args.seed, args.seed + args.episodes)
    with WitnessProcess() as witness:
        trials = [
            try_once(policy, args.franka_sim, seed, args.seconds, witness, latency_ms)
            for seed in track(seeds)
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
    if args.cameras:
        ages_ms = np.concatenate([trial.picture_ages_ms for trial in trials])
        p50, p99, oldest = np.percentile(ages_ms, (50, 99, 100))
        print(f"age of a picture at its tick: p50 {p50:.0f}, p99 {p99:.0f}, max {oldest:.0f} ms")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")


if __name__ == "__main__":
    main()
