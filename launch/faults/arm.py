"""An arm whose sensors fail on demand, in the process of `gatort robot`: `python -m gatort.launch.faults.arm FOLDER`.

Everything but its sensors is what `gatort robot mujoco` runs, and each inner step is written to a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gatort.launch.commands.robot import (
    RobotOptions,
    serve,
)
from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
)
from gatort.runtime.errors import (
    GatortError,
    ObservationError,
)
from gatort.runtime.safety import (
    STOPPED,
    Command,
    State,
)
from gatort.sim.robot import SimulatedRobot
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking

from .trace import Trace

TRACE_FILE, SENSORS_FILE = "trace", "sensors"
JUMP_RAD = 1.0
"""In one tick no joint of a Panda turns farther than 0.13 rad."""

SensorFault = Literal[
    "none", "camera frozen", "camera absent", "joint_state frozen", "joint_state absent",
    "joint_state nan", "joint_state inf", "joint_state jump",
]  # fmt: skip
SENSOR_FAULTS: tuple[SensorFault, ...] = get_args(SensorFault)

Reading = tuple[int, list[NDArray[Any]]]


class Sensors:
    """What both sides know: which fault of a sensor is asked for and when it began, and the last command accepted."""

    def __init__(self, path: Path) -> None:
        """Map the file; made when it is absent."""
        self._numbers = np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=(5,))

    def ask(self, fault: SensorFault, after: int = 0) -> None:
        """Let the sensors fail once so many readings of a session were good."""
        self._numbers[1:4] = after, 0, 0
        self._numbers[0] = SENSOR_FAULTS.index(fault)

    @property
    def fault(self) -> SensorFault:
        """What was asked for."""
        return SENSOR_FAULTS[int(self._numbers[0])]

    @property
    def after(self) -> int:
        """How many readings are good."""
        return int(self._numbers[1])

    @property
    def last_good_ns(self) -> int:
        """When the last good reading was taken; 0 before the fault."""
        return int(self._numbers[2])

    @property
    def began_ns(self) -> int:
        """When the first bad reading was due; 0 before the fault."""
        return int(self._numbers[3])

    def begin(self, last_good_ns: int, now_ns: int) -> None:
        """Say that the fault has begun."""
        if not self.began_ns:
            self._numbers[2:4] = last_good_ns, now_ns

    @property
    def last_effect_ns(self) -> int:
        """When the last command that the arm accepted took effect, or will."""
        return int(self._numbers[4])

    @last_effect_ns.setter
    def last_effect_ns(self, at_ns: int) -> None:
        self._numbers[4] = at_ns


class FaultyArm(SimulatedRobot):
    """The simulated arm; what its joints measure and what a camera sees can fail apart.

    The shipped policy reads where the blocks are, which on a real arm comes from a camera.
    """

    def __init__(self, clock: Clock, folder: Path, seed: int) -> None:
        task = Stacking()
        super().__init__(task, MujocoSimulator(task.scene), clock, STACK_SPEC, seed)
        self._sensors, self._trace = (
            Sensors(folder / SENSORS_FILE),
            Trace(folder / TRACE_FILE, STACK_SPEC),
        )
        self._good: Reading = (0, [])
        self._readings = 0
        self.on_step = self._write_step

    def _write_step(self, at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        self._trace.add(at_ns, self._clock.now_ns(), state, values)

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
        if self.state in STOPPED:  # It begins in the middle of a run, and is over with it.
            return stamp_ns, values
        self._readings += 1
        if self._sensors.fault == "none" or self._readings <= self._sensors.after:
            self._good = stamp_ns, [value.copy() for value in values]
            return stamp_ns, values
        self._sensors.begin(self._good[0], self._clock.now_ns())
        component, kind = self._sensors.fault.split()
        match kind:
            case "frozen":
                return self._frozen(component, values)
            case "absent":
                raise ObservationError(f"{component} gives nothing")
            case "nan":
                self._spoil(values, "arm/joint_velocity", np.nan)
            case "inf":
                self._spoil(values, "arm/joint_position", np.inf)
            case "jump":
                self._spoil(values, "arm/joint_position", JUMP_RAD)
        return stamp_ns, values

    def _frozen(self, component: str, values: Sequence[NDArray[Any]]) -> Reading:
        """The component's last reading stands, and an observation is as old as the oldest of its sensors."""
        keys = [key.name for key in self.spec.observations]
        seen = [key.startswith("blocks/") == (component == "camera") for key in keys]
        good_ns, good = self._good
        return good_ns, [
            old if is_old else new for is_old, old, new in zip(seen, good, values, strict=True)
        ]

    def _spoil(self, values: Sequence[NDArray[Any]], name: str, by: float) -> None:
        value = values[[key.name for key in self.spec.observations].index(name)]
        value[self._readings % value.size] += by


def main() -> int:
    """Serve the arm until a signal ends it."""
    folder, clock = Path(sys.argv[1]), MonotonicClock()
    options = RobotOptions.model_validate_json(sys.argv[2])
    try:
        serve("mujoco", FaultyArm(clock, folder, options.seed), clock, options)
    except GatortError as error:
        print(f"gatort: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
