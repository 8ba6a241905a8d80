"""Records of `inner_loop.h` and `envelope.h`, the C forms of the inner loop and the envelope."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Final

from .envelope import ArmLimits
from .inner_loop import Drop
from .safety import Command, State
from .spec import Interface

MOST_ACTUATORS: Final = 8
MOST_JOINTS: Final = 7
REASON_LENGTH: Final = 160
OPTIONS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-ffp-contract=off")
"""Options of GCC. Products and sums are rounded as Python rounds them."""
STATES: Final = tuple(State)
DROPS: Final = tuple(Drop)

_Actuators = ctypes.c_double * MOST_ACTUATORS
_Joints = ctypes.c_double * MOST_JOINTS
_Place = ctypes.c_double * 3


class CommandRecord(ctypes.Structure):
    """A `safety.Command`. Values beyond `MOST_ACTUATORS` are left out, and `count` tells."""

    _fields_ = (
        ("sequence", ctypes.c_int64),
        ("apply_at_ns", ctypes.c_int64),
        ("valid_for_ns", ctypes.c_int64),
        ("count", ctypes.c_int32),
        ("values", _Actuators),
    )

    @classmethod
    def of(cls, command: Command) -> CommandRecord:
        """Return the record of a command."""
        values = command.values.tolist()
        record = cls(command.sequence, command.apply_at_ns, command.valid_for_ns, len(values))
        record.values[: len(values)] = values[:MOST_ACTUATORS]
        return record


class LoopRecord(ctypes.Structure):
    """Settings of the inner loop."""

    _fields_ = (
        ("actuators", ctypes.c_int32),
        ("period_ns", ctypes.c_int64),
        ("safe_after_ns", ctypes.c_int64),
        ("low", _Actuators),
        ("high", _Actuators),
        ("safe", _Actuators),
        ("rate_per_s", _Actuators),
    )

    @classmethod
    def of(cls, interface: Interface, safe_after_ns: int) -> LoopRecord:
        """Return the record of an interface whose SAFE begins at an age of a command."""
        actuators = interface.actuators
        record = cls(len(actuators), interface.period_ns, safe_after_ns)
        for name in ("low", "high", "safe"):
            _fill(getattr(record, name), [getattr(each, name) for each in actuators])
        _fill(record.rate_per_s, [each.rate_per_s or math.inf for each in actuators])
        return record


class LimitsRecord(ctypes.Structure):
    """An `envelope.ArmLimits`."""

    _fields_ = (
        ("joints", ctypes.c_int32),
        ("low_rad", _Joints),
        ("high_rad", _Joints),
        ("speed_rad_s", _Joints),
        ("acceleration_rad_s2", _Joints),
        ("torque_nm", _Joints),
        ("torque_rate_nm_s", _Joints),
        ("brake_nm", _Joints),
        ("brake_nms_rad", _Joints),
        ("pressed_nm", _Joints),
        ("frames", _Place * (MOST_JOINTS + 1)),
        ("box_low_m", _Place),
        ("box_high_m", _Place),
        ("power_w", ctypes.c_double),
        ("stopping_rad_s2", _Joints),
        ("stopping_offset_rad_s", _Joints),
        ("slowing_share", ctypes.c_double),
        ("slowing_brake_share", ctypes.c_double),
    )

    @classmethod
    def of(cls, limits: ArmLimits) -> LimitsRecord:
        """Return the record of an arm's limits."""
        joints = len(limits.low_rad)
        record = cls(
            joints,
            power_w=limits.power_w,
            slowing_share=limits.slowing_share,
            slowing_brake_share=limits.slowing_brake_share,
        )
        for name, *_ in cls._fields_[1:10]:
            _fill(getattr(record, name), getattr(limits, name))
        for row, frame in zip(record.frames, limits.frames, strict=False):
            _fill(row, frame)
        _fill(record.box_low_m, limits.box_low_m)
        _fill(record.box_high_m, limits.box_high_m)
        _fill(record.stopping_rad_s2, limits.stopping_rad_s2 or (math.inf,) * joints)
        _fill(record.stopping_offset_rad_s, limits.stopping_offset_rad_s or (0.0,) * joints)
        return record


def _fill(target: ctypes.Array[ctypes.c_double], values: Sequence[float]) -> None:
    target[: len(values)] = list(values)
