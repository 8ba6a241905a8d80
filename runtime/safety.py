"""The words that the controller's guard and the robot's watchdog share: states and the command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

COMMAND_MARGIN_NS = 10_000_000
"""How much longer than one period a command stays valid, so that ordinary jitter does not trip the watchdog."""

SAFE_LEAD_NS = 5_000_000
"""How much sooner than two periods after the last command took effect SAFE begins, so that it is there within them."""

LONGEST_VALIDITY_NS = 200_000_000
"""No command may ask to be held for longer than this, whatever it says."""


class State(StrEnum):
    """RUN → HOLD → SAFE → LATCHED; nothing goes back from SAFE or LATCHED but an operator who arms again."""

    DISARMED = "disarmed"
    """Never armed: the safe command is in effect and commands are refused."""
    RUN = "run"
    HOLD = "hold"
    """A command is missing; the last accepted one is held, and SAFE follows unless the next one is there."""
    SAFE = "safe"
    """The robot's declared safe command is being faded in; commands are refused."""
    LATCHED = "latched"
    """The safe command is in effect until an operator arms again."""


STOPPED = frozenset({State.DISARMED, State.SAFE, State.LATCHED})
"""States in which no command is accepted."""


@dataclass(frozen=True, slots=True)
class Command:
    """One whole action on its way to the robot."""

    sequence: int
    """Counts the commands of a session; an equal or lower one is a duplicate or out of order."""
    observation_sequence: int
    """The observation that the action answers."""
    apply_at_ns: int
    """When it takes effect: the observation's stamp plus the policy's constant action delay."""
    valid_for_ns: int
    """How long after `apply_at_ns` it may be in effect before the robot holds, then fades to safe."""
    values: NDArray[np.float64]
    """(A,) in each actuator's unit; a copy that belongs to the command."""
