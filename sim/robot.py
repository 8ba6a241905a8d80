"""The simulated robot: a task and a simulator behind the contract of an arm.

Physics follows the clock, on the wall or virtual. `observe` steps it up to the present, 1 ms at a
time, through the inner loop that a real arm runs; between observations nothing moves. So one class
serves a run in real time and a trial in lockstep.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import Envelope
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.robots.driver import AT_REST, INNER_PERIOD_NS, Driver
from gatort.runtime.robots.panda import PANDA_LIMITS
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import PolicySpec

from .lens import Shutter
from .randomisation import Randomisation
from .simulators.simulator import Array, Simulator
from .tasks.task import Layout, Moment, Task
from .view_randomisation import ViewRandomisation

BRAKING_NMS_RAD: Final = np.array([30.0, 30.0, 30.0, 30.0, 0.0, 0.0, 0.0])
"""Damping that is added once the arm is latched. Franka's own control brakes an arm that is no
longer driven; without it a simulated one would coast for a quarter of a metre."""
BRAKING_NS: Final = 100_000_000
"""Time in which that damping comes up after the arm was latched."""

LONGEST_CATCH_UP_NS: Final = 1_000_000_000
"""Longest time that an arm at rest catches up. The process was suspended for longer, and stepping
through all of it would keep the arm from hearing its operator."""

HAND_WATCH_NS: Final = 20_000_000
"""Time after a stop at which the hand is looked at."""
HAND_STILL_M: Final = 0.0005
"""A hand that moved less than this since the stop is at rest or holds a block."""

WATCH_STEPS: Final = 10
"""Success is checked once in this many inner steps."""
CAMERA: Final = "camera/"
"""Beginning of a camera's key."""


class SimulatedRobot(Driver):
    """A simulated arm that has a task.

    Args:
        task: keys, layouts, success and expert.
        simulator: physics of the task's scene.
        clock: the only clock. Physics never runs ahead of it.
        spec: observed keys, one of the task's interfaces. Image keys need OpenGL.
        seed: layout of the first trial; see `reset`.
        randomisation: variation of physics from trial to trial. `None` varies nothing.
        view_randomisation: variation of the pictures from trial to trial. `None` varies nothing.

    Raises:
        ConfigError: the simulator has no cameras, no randomised physics or no randomised look.
        RobotError: from `observe`, when the physics has diverged.
    """

    def __init__(
        self,
        task: Task,
        simulator: Simulator,
        clock: Clock,
        spec: PolicySpec,
        seed: int = 0,
        randomisation: Randomisation | None = None,
        view_randomisation: ViewRandomisation | None = None,
    ) -> None:
        super().__init__(spec, clock, limits=PANDA_LIMITS)
        self.task = task
        self.simulator = simulator
        self.spec = spec
        self.layout: Layout
        """Layout of the present trial."""
        self._randomisation = randomisation
        self._view_randomisation = view_randomisation
        self._shutters: dict[str, Shutter] = {}
        """Shutter of each camera by name, where pictures vary."""
        self._hold_ns = round(task.hold_s * 1e9)
        images = [key for key in spec.observations if key.encoding == "image"]
        self._cameras = [key.name.removeprefix(CAMERA) for key in images]
        self._looked: dict[str, NDArray[np.uint8]] = {}
        """Pictures by camera that `look` took and no observation has used."""
        self._looked_ns = 0
        """Instant of that look."""
        for name, key in zip(self._cameras, images, strict=True):
            simulator.add_camera(name, *key.shape[:2])
        self.reset(seed)

    # -- Trial ---------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Lay out the trial of this seed, disarmed, at the clock's present.

        The trial repeats bit for bit on one machine. Randomised physics is drawn from the seed too.
        """
        layout = self.task.layout(seed)
        self._draw_variation(seed)
        self.simulator.place_arm(np.array(layout.joints_rad))

        self.inner_loop = InnerLoop(self.spec, self.inner_loop.safe_after_ns)
        self.envelope = Envelope(PANDA_LIMITS)
        self._time_ns = self._clock.now_ns()
        self._driven_ns = self._time_ns
        self._hand_stop_ns = self._time_ns
        self._hand_m = 0.0
        self._sequence = 0
        self._looked.clear()
        self._lay(layout)
        self._open_shutters(seed)

    def lay_out(self, seed: int) -> None:
        """Lay out the bodies of another seed while the arm stays. Success is watched anew."""
        self.advance()
        self._looked.clear()
        self._lay(self.task.layout(seed))

    def _draw_variation(self, seed: int) -> None:
        if self._randomisation is None:
            return
        self._random = self._randomisation.stream(seed)
        cubes, seen = len(self.task.scene.cubes), len(self.task.seen)
        self._variation = self._randomisation.draw(self._random, cubes, seen)
        self.simulator.use_physics(self._variation.physics)

    def _open_shutters(self, seed: int) -> None:
        """Draw the look and the cameras of this seed, and take the first pictures."""
        if self._view_randomisation is None or not self._cameras:
            return
        random = self._view_randomisation.stream(seed)
        view = self._view_randomisation.draw(random, self.task.scene.cubes, self._cameras)
        self.simulator.use_look(view.look)
        self._shutters = {
            name: Shutter(lens, view.latency_ns, outages, random)
            for name, lens, outages in zip(self._cameras, view.lenses, view.outages, strict=True)
        }
        self._began_ns = self._time_ns
        self._take_pictures()

    def _lay(self, layout: Layout) -> None:
        self.layout = layout
        self._laid_ns = self._time_ns
        cubes = layout.cubes
        if self._randomisation is not None:
            cubes = self._variation.applied_to(cubes)

        self._move_targets()
        self.simulator.place_cubes(cubes)
        self._holds_since_ns: int | None = None
        self.reached_s: dict[str, float] = {}
        """Time at which the trial first came to each stage of its task."""

    @property
    def succeeded(self) -> bool:
        """True if the task's condition has held for long enough."""
        return (
            self._holds_since_ns is not None
            and self._time_ns - self._holds_since_ns >= self._hold_ns
        )

    def expert_action(self) -> Array:
        """Return the action (8,) of the task's expert at this instant."""
        return self.task.expert_action(self.moment(), self.simulator.arm_model())

    def places(self) -> Array:
        """Return the place of each body in the tool's frame, (bodies, 3) m."""
        arm, bodies = self.simulator.arm(), self.simulator.bodies()
        away = [pose.position - arm.tool_position for pose in bodies.values()]
        places: Array = np.array(away).reshape(-1, 3) @ arm.tool_rotation
        return places

    # -- Physics -------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        while self._time_ns + INNER_PERIOD_NS <= now_ns:
            late_ns = now_ns - self._time_ns
            if late_ns > LONGEST_CATCH_UP_NS and self.state in AT_REST:
                skipped_ns = late_ns - LONGEST_CATCH_UP_NS
                self._time_ns += skipped_ns // INNER_PERIOD_NS * INNER_PERIOD_NS
            command = self._in_effect(self._time_ns)
            torque_nm, width_m = command[:7], float(command[7])
            position_rad, velocity_rad_s = self.simulator.joints()
            torque_nm = self._within_envelope(
                torque_nm, position_rad, velocity_rad_s, self._time_ns
            )
            torque_nm = torque_nm - self._own_brake()

            self.simulator.step(torque_nm, self._hand_target(width_m))
            self._time_ns += INNER_PERIOD_NS

            self._move_targets()
            if self._time_ns // INNER_PERIOD_NS % WATCH_STEPS == 0:
                self._watch_success()
            if self._shutters and self._is_shutter_due():
                self._take_pictures()
        self.simulator.settle()

    def _own_brake(self) -> Array:
        """Return the torque (7,) with which a latched arm brakes itself."""
        if self.inner_loop.state is not State.LATCHED:
            self._driven_ns = self._time_ns
            return np.zeros(7)
        share = min((self._time_ns - self._driven_ns) / BRAKING_NS, 1.0)
        return share * BRAKING_NMS_RAD * self.simulator.arm().joint_velocity

    def _hand_target(self, width_m: float) -> float | None:
        """Return the hand's new target, or `None` if it keeps the last one.

        The hand rests before the operator's consent. A stop leaves the hand alone: an open hand
        stays open, and one that holds a block goes on holding. One that moves stops where it is.
        """
        if self.state not in STOPPED:
            self._hand_stop_ns = self._time_ns
            return width_m
        if self.state is State.DISARMED:
            return None
        stopped_ns = self._time_ns - self._hand_stop_ns
        if stopped_ns == INNER_PERIOD_NS:
            self._hand_m = self.simulator.arm().width_m
        elif stopped_ns == HAND_WATCH_NS:
            width_now_m = self.simulator.arm().width_m
            return width_now_m if abs(width_now_m - self._hand_m) > HAND_STILL_M else None
        return None

    def _is_shutter_due(self) -> bool:
        """Check if a picture of now has the trial's latency when the next tick begins."""
        latency_ns = next(iter(self._shutters.values())).latency_ns
        return (self._time_ns - self._began_ns + latency_ns) % self.spec.period_ns == 0

    def _take_pictures(self) -> None:
        self.simulator.settle()
        for name, shutter in self._shutters.items():
            shutter.take(self._time_ns - self._began_ns, self.simulator.draw(name))

    def _move_targets(self) -> None:
        for target in self.layout.targets:
            self.simulator.move_target(target.name, target.position_at(self._elapsed_s))

    def _watch_success(self) -> None:
        moment, touching = self.moment(), self.simulator.touching
        for stage in self.task.stages:
            if stage not in self.reached_s and self.task.is_at(stage, moment, touching):
                self.reached_s[stage] = moment.time_s
        if not self.task.holds(moment, touching):
            self._holds_since_ns = None
        elif self._holds_since_ns is None:
            self._holds_since_ns = self._time_ns

    def command(self, command: Command) -> None:
        """See `Robot.command`. Randomised lag makes it take effect late or early."""
        if self._randomisation is not None:
            lag_ns = round(self._random.uniform(*self._randomisation.action_lag_ms) * 1e6)
            command = replace(command, apply_at_ns=command.apply_at_ns + lag_ns)
        super().command(command)

    # -- Reading -------------------------------------------------------------------------------

    @property
    def _elapsed_s(self) -> float:
        """Time since the bodies were laid out."""
        return (self._time_ns - self._laid_ns) * 1e-9

    def moment(self) -> Moment:
        """Return the true state of the trial. Its arrays may change with the next step."""
        simulator = self.simulator
        return Moment(self.layout, self._elapsed_s, simulator.arm(), simulator.bodies())

    @property
    def positions(self) -> Array:
        """A row of numbers for films; see `Simulator.positions`."""
        return self.simulator.positions

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        moment = self.moment()
        if self._randomisation is not None:
            moment = self._randomisation.blurred(
                moment, self.task.seen, self._variation, self._random
            )
        return self._time_ns, [self._read_key(key.name, moment) for key in self.spec.observations]

    def _read_key(self, name: str, moment: Moment) -> NDArray[np.float32] | NDArray[np.uint8]:
        if name.startswith(CAMERA):
            return self._picture(name.removeprefix(CAMERA))
        match name:
            case "arm/joint_position":
                value = moment.arm.joint_position
            case "arm/joint_velocity":
                value = moment.arm.joint_velocity
            case "gripper/width":
                value = np.array([moment.arm.width_m])
            case _:
                value = self.task.read(name, moment)
        reading: NDArray[np.float32] = value.astype(np.float32)
        return reading

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`. The pictures show the arm at this instant."""
        if not self._cameras:
            return None
        self.advance()
        self._looked_ns = self._time_ns
        self._looked = {name: self._draw(name) for name in self._cameras}
        return tuple(self._looked.values())

    def _picture(self, camera: str) -> NDArray[np.uint8]:
        looked = self._looked.pop(camera, None)
        is_fresh = self._time_ns - self._looked_ns <= self.spec.period_ns
        return looked if looked is not None and is_fresh else self._draw(camera)

    def _draw(self, camera: str) -> NDArray[np.uint8]:
        if self._shutters:
            return self._shutters[camera].read(self._time_ns - self._began_ns)
        return self.simulator.draw(camera)

    def close(self) -> None:
        """Free the simulator."""
        self.simulator.close()
