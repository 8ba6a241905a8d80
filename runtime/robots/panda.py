"""Franka's Panda as gatort drives it, in a simulator and on a desk: what is sensed, what is commanded, within what."""

from __future__ import annotations

from typing import Final

from gatort.runtime.spec import (
    Actuator,
    Interface,
    ObservationKey,
)

# The part of Panda's joint range that stacking uses, so that a bin is 2 to 4 mrad; beyond it a token is clipped.
# Franka's limits ("Robot and interface specifications") are in sim/simulators/panda.xml.
JOINT_LOW_RAD: Final = (-1.4, -1.2, -1.4, -3.0718, -1.4, 1.2, -1.2)
JOINT_HIGH_RAD: Final = (1.4, 1.2, 1.4, -1.2, 1.4, 3.7525, 2.8973)
JOINT_SPEED_RAD_S: Final = (2.0,) * 7
JOINT_FASTEST_RAD_S: Final = (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)
"""Panda's joint velocity limits (Franka Robotics, "Robot and interface specifications")."""
JOINT_DAMPING_NMS_RAD: Final = 3.0
"""Added under the inner loop on every arm joint."""
TORQUE_NM: Final = (30.0, 30.0, 30.0, 30.0, 12.0, 12.0, 12.0)
"""What the policy may ask for beside gravity; the robot allows 87 and 12."""
TORQUE_RATE_NM_S: Final = 1000.0
"""The robot's own limit, on each joint."""
GRIPPER_OPEN_M: Final = 0.08
CONTROL_HZ: Final = 20
ACTION_DELAY_MS: Final = 25


def ranged_key(
    name: str,
    unit: str,
    low: tuple[float, ...],
    high: tuple[float, ...],
    fastest_per_s: tuple[float, ...] = (),
) -> ObservationKey:
    """A row of values that become tokens over a range of their own."""
    return ObservationKey(
        name=name,
        shape=(len(low),),
        dtype="float32",
        unit=unit,
        encoding="unit",
        low=low,
        high=high,
        fastest_per_s=fastest_per_s,
    )


PROPRIOCEPTION: Final = (
    ranged_key("arm/joint_position", "rad", JOINT_LOW_RAD, JOINT_HIGH_RAD, JOINT_FASTEST_RAD_S),
    ranged_key(
        "arm/joint_velocity", "rad/s", tuple(-v for v in JOINT_SPEED_RAD_S), JOINT_SPEED_RAD_S
    ),
    ranged_key("gripper/width", "m", (0.0,), (GRIPPER_OPEN_M,)),
)

ACTUATORS: Final = (
    *(
        Actuator(
            name=f"arm/joint{i + 1}_torque",
            unit="N·m",
            low=-limit,
            high=limit,
            safe=0.0,
            rate_per_s=TORQUE_RATE_NM_S,
        )
        for i, limit in enumerate(TORQUE_NM)
    ),
    # Closed is the safe command: a block in the hand stays there.
    Actuator(name="gripper/width", unit="m", low=0.0, high=GRIPPER_OPEN_M, safe=0.0),
)

PANDA: Final = Interface(
    observations=PROPRIOCEPTION,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
)
"""What the arm has by itself, without cameras or anything that knows where blocks are."""
