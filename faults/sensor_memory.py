"""Shared memory by which a bench asks an arm's process for a fault of its sensors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

SensorFault = Literal[
    "none", "camera frozen", "camera absent", "joint_state frozen", "joint_state absent",
    "joint_state nan", "joint_state inf", "joint_state jump",
    "joint_state repeated", "joint_state degrees",
    "encoder frozen", "encoder drift", "encoder nan", "encoder fast", "encoder at_limit",
    "joint pressed",
]  # fmt: skip
SENSOR_FAULTS: tuple[SensorFault, ...] = get_args(SensorFault)
SENSORS_FILE = "sensors"


class SensorMemory:
    """Holds the fault that is asked for, when it began, and when the last command takes effect."""

    def __init__(self, path: Path) -> None:
        """Map the file; made when it is absent."""
        self._numbers = np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=(5,))

    def ask(self, fault: SensorFault, after: int = 0) -> None:
        """Let the sensors fail after so many good readings of a session."""
        self._numbers[1:4] = after, 0, 0
        self._numbers[0] = SENSOR_FAULTS.index(fault)

    @property
    def fault(self) -> SensorFault:
        """Fault that was asked for."""
        return SENSOR_FAULTS[int(self._numbers[0])]

    @property
    def after(self) -> int:
        """Number of good readings before the fault."""
        return int(self._numbers[1])

    @property
    def last_good_ns(self) -> int:
        """Instant of the last good reading; 0 before the fault."""
        return int(self._numbers[2])

    @property
    def began_ns(self) -> int:
        """Instant at which the first bad reading was due; 0 before the fault."""
        return int(self._numbers[3])

    def begin(self, last_good_ns: int, now_ns: int) -> None:
        """Record that the fault has begun; a second call changes nothing."""
        if not self.began_ns:
            self._numbers[2:4] = last_good_ns, now_ns

    def forget(self) -> None:
        """Record that the fault has not begun: the joint moves again."""
        self._numbers[2:4] = 0

    @property
    def last_effect_ns(self) -> int:
        """Instant at which the last accepted command takes effect."""
        return int(self._numbers[4])

    @last_effect_ns.setter
    def last_effect_ns(self, at_ns: int) -> None:
        self._numbers[4] = at_ns
