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
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.robots.driver import INNER_PERIOD_NS, Driver
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

from .randomisation import Randomisation
from .simulators.simulator import Array, Simulator
from .tasks.task import Layout, Moment, Task

BRAKING_NMS_RAD: Final = np.array([30.0, 30.0, 30.0, 30.0, 0.0, 0.0, 0.0])
"""Damping that is added once the arm is latched. Franka's own control brakes an arm that is no
longer driven; without it a simulated one would coast for a quarter of a metre."""

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
        randomisation: variation from trial to trial beside the layout. `None` varies nothing.

    Raises:
        ConfigError: the simulator has no cameras or no randomised physics.
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
    ) -> None:
        super().__init__(spec, clock)
        self.task = task
        self.simulator = simulator
        self.spec = spec
        self.layout: Layout
        """Layout of the present trial."""
        self._randomisation = randomisation
        self._hold_ns = round(task.hold_s * 1e9)
        for key in spec.observations:
            if key.encoding == "image":
                simulator.add_camera(key.name.removeprefix(CAMERA), *key.shape[:2])
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
        self._time_ns = self._clock.now_ns()
        self._sequence = 0
        self._lay(layout)

    def lay_out(self, seed: int) -> None:
        """Lay out the bodies of another seed while the arm stays. Success is watched anew."""
        self.advance()
        self._lay(self.task.layout(seed))

    def _draw_variation(self, seed: int) -> None:
        if self._randomisation is None:
            return
        self._random = self._randomisation.stream(seed)
        cubes, seen = len(self.task.scene.cubes), len(self.task.seen)
        self._variation = self._randomisation.draw(self._random, cubes, seen)
        self.simulator.use_physics(self._variation.physics)

    def _lay(self, layout: Layout) -> None:
        self.layout = layout
        self._laid_ns = self._time_ns
        cubes = layout.cubes
        if self._randomisation is not None:
            cubes = self._variation.applied_to(cubes)

        self._move_targets()
        self.simulator.place_cubes(cubes)
        self._holds_since_ns: int | None = None

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

    # -- Physics -------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        while self._time_ns + INNER_PERIOD_NS <= now_ns:
            command = self._in_effect(self._time_ns)
            torque_nm, width_m = command[:7], float(command[7])
            if self.inner_loop.state is State.LATCHED:
                torque_nm = torque_nm - BRAKING_NMS_RAD * self.simulator.arm().joint_velocity

            # Nothing moves before the operator's consent.
            disarmed = self.inner_loop.state is State.DISARMED
            self.simulator.step(torque_nm, None if disarmed else width_m)
            self._time_ns += INNER_PERIOD_NS

            self._move_targets()
            if self._time_ns // INNER_PERIOD_NS % WATCH_STEPS == 0:
                self._watch_success()
        self.simulator.settle()

    def _move_targets(self) -> None:
        for target in self.layout.targets:
            self.simulator.move_target(target.name, target.position_at(self._elapsed_s))

    def _watch_success(self) -> None:
        if not self.task.holds(self.moment(), self.simulator.touching):
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
            return self.simulator.draw(name.removeprefix(CAMERA))
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

    def close(self) -> None:
        """Free the simulator."""
        self.simulator.close()
