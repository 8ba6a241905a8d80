"""An arm whose sensors fail on demand, in the process of `gatort robot`.

`python -m gatort.faults.arm FOLDER OPTIONS` runs everything that `gatort robot mujoco` runs.
Only the sensors differ, and each inner step is written to a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.envelope import STILL_RAD_S
from gatort.runtime.errors import GatortError, ObservationError
from gatort.runtime.printable import printable
from gatort.runtime.process_name import name_process
from gatort.runtime.remote.serve import ServeConfig, serve
from gatort.runtime.robots.panda import PANDA_LIMITS
from gatort.runtime.safety import STOPPED, Command, State
from gatort.sim.robot import SimulatedRobot
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking

from .sensor_memory import SENSORS_FILE, SensorMemory
from .trace import TRACE_FILE, Trace

LAYOUT_SEED = 5000
"""Seed of the blocks' layout."""
DRIFT_RAD_S = 0.5
"""Drift of a joint's position in the arm's own readings."""
FAST_SHARE = 1.2
"""Speed that the arm reads of a joint that is too fast, as a share of its limit."""
AT_LIMIT_RAD = 1e-3
"""Distance to its limit that the arm reads of a joint."""
JUMP_RAD = 1.0
"""Jump of a joint's reading; in one tick no joint of a Panda turns farther than 0.13 rad."""

Reading = tuple[int, list[NDArray[Any]]]


class FaultyArm(SimulatedRobot):
    """The simulated arm. Joint measurements and camera can fail separately.

    The shipped policy reads where the blocks are, which on a real arm comes from a camera.
    """

    def __init__(self, clock: Clock, trace: Trace, sensors: SensorMemory, seed: int) -> None:
        task = Stacking()
        super().__init__(task, MujocoSimulator(task.scene), clock, STACK_SPEC, seed)
        self._trace = trace
        self._sensors = sensors
        self._good: Reading = (0, [])
        self._readings = 0
        self._true_joints = self.simulator.joints
        self._good_joints = self._true_joints()
        self.simulator.joints = self._own_joints  # type: ignore[method-assign]  # of this one arm
        self.on_step = self._write_step

    def _write_step(self, at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        self._trace.add(at_ns, self._clock.now_ns(), state, values)

    def _own_joints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the joints' readings that the arm itself has, spoiled by a fault of an encoder."""
        position, velocity = self._true_joints()
        component, _, kind = self._sensors.fault.partition(" ")
        if component == "joint":
            self._watch_pressing(float(velocity[1]))
        if component != "encoder" or not self._sensors.began_ns:
            self._good_joints = position.copy(), velocity.copy()
            return position, velocity

        since_s = (self._time_ns - self._sensors.began_ns) * 1e-9
        position, velocity = position.copy(), velocity.copy()  # Only the readings are wrong.
        match kind:
            case "frozen":
                return self._good_joints
            case "drift":
                position[0] += DRIFT_RAD_S * since_s
            case "fast":
                velocity[0] = FAST_SHARE * PANDA_LIMITS.speed_rad_s[0]
                position[0] = self._good_joints[0][0] + velocity[0] * since_s
            case "at_limit":
                position[0] = PANDA_LIMITS.high_rad[0] - AT_LIMIT_RAD
            case _:
                velocity[:] = np.nan
        return position, velocity

    def _watch_pressing(self, velocity_rad_s: float) -> None:
        """Let the fault begin when joint 2 stands still under torque."""
        is_driven = self.state not in STOPPED
        pressing = float(self.inner_loop.in_effect[1]) > PANDA_LIMITS.pressed_nm[1]
        if pressing and abs(velocity_rad_s) < STILL_RAD_S:
            self._sensors.begin(self._time_ns, self._time_ns)
        elif is_driven:
            self._sensors.forget()

    def arm(self) -> None:
        """See `Robot.arm`; readings count from here."""
        super().arm()
        self._readings = 0

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        before = self.inner_loop.dropped.total()
        super().command(command)
        if self.inner_loop.dropped.total() == before:
            self._sensors.last_effect_ns = command.apply_at_ns

    def _read(self) -> Reading:
        stamp_ns, values = super()._read()
        if self._sensors.fault == "joint_state degrees":
            self._value(values, "arm/joint_position")[:] *= 180 / np.pi
            return stamp_ns, values
        if self.state in STOPPED:  # A fault begins in the middle of a run and ends with it.
            return stamp_ns, values

        self._readings += 1
        if self._sensors.fault == "none" or self._readings <= self._sensors.after:
            self._good = stamp_ns, [value.copy() for value in values]
            return stamp_ns, values

        component, kind = self._sensors.fault.split()
        if component == "joint":  # It begins when the joint stands still.
            return stamp_ns, values
        self._sensors.begin(self._good[0], self._clock.now_ns())
        return self._spoiled(component, kind, stamp_ns, values)

    def _spoiled(
        self, component: str, kind: str, stamp_ns: int, values: list[NDArray[Any]]
    ) -> Reading:
        """Return the reading of a controller's sensor that fails."""
        match component, kind:
            case "encoder", _:
                pass  # Only the arm's own readings are spoiled.
            case _, "frozen":
                return self._frozen(component, values)
            case _, "repeated":
                return stamp_ns, self._frozen(component, values)[1]
            case _, "absent":
                raise ObservationError(f"{component}: expected a reading, found none")
            case _, "nan":
                self._spoil(values, "arm/joint_velocity", np.nan)
            case _, "inf":
                self._spoil(values, "arm/joint_position", np.inf)
            case _, "jump":
                self._spoil(values, "arm/joint_position", JUMP_RAD)
        return stamp_ns, values

    def _frozen(self, component: str, values: Sequence[NDArray[Any]]) -> Reading:
        """Keep the component's last reading; an observation is as old as its oldest sensor."""
        keys = [key.name for key in self.spec.observations]
        is_frozen = [key.startswith("blocks/") == (component == "camera") for key in keys]
        good_ns, good = self._good
        return good_ns, [
            old if frozen else new for frozen, old, new in zip(is_frozen, good, values, strict=True)
        ]

    def _spoil(self, values: Sequence[NDArray[Any]], name: str, by: float) -> None:
        value = self._value(values, name)
        value[self._readings % value.size] += by

    def _value(self, values: Sequence[NDArray[Any]], name: str) -> NDArray[Any]:
        return values[[key.name for key in self.spec.observations].index(name)]


def main() -> int:
    """Serve the arm until a signal ends it."""
    name_process("robot")
    folder, clock = Path(sys.argv[1]), MonotonicClock()
    config = ServeConfig.model_validate_json(sys.argv[2])
    trace = Trace(folder / TRACE_FILE, STACK_SPEC)
    sensors = SensorMemory(folder / SENSORS_FILE)
    try:
        arm = FaultyArm(clock, trace, sensors, LAYOUT_SEED)
        serve("mujoco", arm, clock, config, simulated=True)
    except GatortError as error:
        print(f"gatort: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
