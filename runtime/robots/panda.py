"""Franka's Panda, simulated or real: its sensors, its actuators, and their ranges."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from gatort.runtime.envelope import ArmLimits
from gatort.runtime.spec import Actuator, Interface, ObservationKey

JOINTS: Final = 7
JOINT_POSITION: Final = "arm/joint_position"
JOINT_VELOCITY: Final = "arm/joint_velocity"
GRIPPER_WIDTH: Final = "gripper/width"
"""Key of the hand, and its actuator."""

# The part of Panda's joint range that stacking uses. A bin is then 2 to 4 mrad wide, and a value
# beyond the range is clipped. Franka's own limits ("Robot and interface specifications") are in
# sim/simulators/panda.xml.
JOINT_LOW_RAD: Final = (-1.4, -1.2, -1.4, -3.0718, -1.4, 1.2, -1.2)
JOINT_HIGH_RAD: Final = (1.4, 1.2, 1.4, -1.2, 1.4, 3.7525, 2.8973)
JOINT_SPEED_RAD_S: Final = (2.0,) * 7
"""Range of observed joint velocities."""
JOINT_FASTEST_RAD_S: Final = (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)
"""Joint velocity limits of the arm (Franka Robotics, "Robot and interface specifications")."""
JOINT_DAMPING_NMS_RAD: Final = 3.0
"""Damping of every arm joint, added below the inner loop."""
HOME_RAD: Final = np.array([0.0, -0.4, 0.0, -2.3, 0.0, 1.9, 0.785])
"""(7,) posture around which trials start: the tool points down, in front of the base."""
TORQUE_NM: Final = (30.0, 30.0, 30.0, 30.0, 12.0, 12.0, 12.0)
"""Largest torque that a policy may command, without gravity. The robot allows 87 and 12 N·m."""
TORQUE_RATE_NM_S: Final = 1000.0
"""Fastest change of torque that the robot allows, on each joint."""
PANDA_LIMITS: Final = ArmLimits(
    low_rad=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high_rad=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    speed_rad_s=JOINT_FASTEST_RAD_S,
    acceleration_rad_s2=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    torque_nm=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    torque_rate_nm_s=(TORQUE_RATE_NM_S,) * 7,
    brake_nm=TORQUE_NM,
    # Stable at 1 kHz for a wrist of 0.01 kg·m².
    brake_nms_rad=(50.0, 50.0, 50.0, 50.0, 5.0, 5.0, 5.0),
    # Chosen here: far above the joints' friction, far below the largest commanded torque.
    pressed_nm=(8.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0),
    # The last frame is the flange's, moved out to the tool between the finger pads.
    frames=(
        (0.0, 0.0, 0.333),
        (0.0, -math.pi / 2, 0.0),
        (0.0, math.pi / 2, 0.316),
        (0.0825, math.pi / 2, 0.0),
        (-0.0825, -math.pi / 2, 0.384),
        (0.0, math.pi / 2, 0.0),
        (0.088, math.pi / 2, 0.0),
        (0.0, 0.0, 0.107 + 0.1034),
    ),
    # The table is at the height of the base. The arm reaches 0.855 m from its shoulder.
    box_low_m=(-0.855, -0.855, -0.005),
    box_high_m=(0.855, 0.855, 1.4),
)
"""Limits of the arm (Franka Robotics, "Robot and interface specifications"), and its workspace."""
GRIPPER_OPEN_M: Final = 0.08
"""Width of the open hand."""
CONTROL_HZ: Final = 20
"""Rate of a policy's commands."""
ACTION_DELAY_MS: Final = 25
"""Time from an observation's stamp until its action takes effect."""


def ranged_key(
    name: str,
    unit: str,
    low: tuple[float, ...],
    high: tuple[float, ...],
    fastest_per_s: tuple[float, ...] = (),
) -> ObservationKey:
    """Return the key of a float32 row whose values become tokens over a range each.

    Args:
        name: path of the key, such as `arm/joint_position`.
        unit: SI unit of each value.
        low: lower end of each value's range.
        high: upper end of each value's range.
        fastest_per_s: fastest change of each value per second; empty without a limit.
    """
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
    ranged_key(JOINT_POSITION, "rad", JOINT_LOW_RAD, JOINT_HIGH_RAD, JOINT_FASTEST_RAD_S),
    ranged_key(JOINT_VELOCITY, "rad/s", tuple(-v for v in JOINT_SPEED_RAD_S), JOINT_SPEED_RAD_S),
    ranged_key(GRIPPER_WIDTH, "m", (0.0,), (GRIPPER_OPEN_M,)),
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
    # Drivers leave the hand alone once the arm is stopped, whatever the safe command says.
    Actuator(name=GRIPPER_WIDTH, unit="m", low=0.0, high=GRIPPER_OPEN_M, safe=0.0),
)

PANDA: Final = Interface(
    observations=PROPRIOCEPTION,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
)
"""Interface of the arm and its hand, without cameras and without poses of objects."""
ARM_ALONE: Final = Interface(
    observations=PROPRIOCEPTION[:2],
    actuators=ACTUATORS[:7],
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
)
"""Interface of an arm without a hand."""
