"""Words that the controller's guard and the robot's watchdog share: the states and the command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

COMMAND_MARGIN_NS = 10_000_000
"""A command stays valid this long beyond one period: ordinary jitter must not trip the watchdog."""

SAFE_LEAD_NS = 5_000_000
"""SAFE starts this long before two periods have passed since the last applied command."""

LONGEST_VALIDITY_NS = 200_000_000
"""Longest time for which a command may ask to be held."""

AT_ROBOT = "stopped at the robot by"
"""Beginning of the reason of a stop by the operator at the robot."""


class State(StrEnum):
    """Safety state: RUN → HOLD → SAFE → LATCHED.

    Only an operator who arms again leaves the last two.
    """

    DISARMED = "disarmed"
    """Never armed: the safe command is in effect, and commands are refused."""
    RUN = "run"
    """Commands arrive and are applied."""
    HOLD = "hold"
    """A command is missing: the last accepted one is held, and SAFE follows unless the next
    arrives."""
    SAFE = "safe"
    """The robot's declared safe command is being faded in, and commands are refused."""
    LATCHED = "latched"
    """The safe command is in effect until an operator arms again."""


STOPPED = frozenset({State.DISARMED, State.SAFE, State.LATCHED})
"""States in which no command is accepted."""


@dataclass(frozen=True, slots=True)
class Command:
    """One whole action on its way to the robot."""

    sequence: int
    """Count of the commands of a session. An equal or lower one is a duplicate or out of order."""
    observation_sequence: int
    """Sequence of the observation that the action answers."""
    apply_at_ns: int
    """Instant at which it takes effect: the observation's stamp plus the constant action delay."""
    valid_for_ns: int
    """Time after `apply_at_ns` for which it may be in effect before the robot holds, then fades."""
    values: NDArray[np.float64]
    """(A,) values in each actuator's unit; a copy that belongs to the command."""
