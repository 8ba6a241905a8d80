"""Reach: follow a moving target with the tool, to within 2 cm for two seconds without a break."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from gatort.runtime.robots.panda import (
    ACTION_DELAY_MS,
    ACTUATORS,
    CONTROL_HZ,
    GRIPPER_OPEN_M,
    PROPRIOCEPTION,
    ranged_key,
)
from gatort.runtime.spec import ObservationKey, PolicySpec
from gatort.sim.simulators.simulator import ArmModel, Array, Scene
from gatort.sim.tasks.computed_torque import torque_towards
from gatort.sim.tasks.task import Layout, Moment, Task, Touching

from .wave import draw_layout

NEAR_M: Final = 0.02
"""The tool is at the target within this distance: the radius of the sphere that films show."""
FASTEST_M_S: Final = 0.16
"""Largest velocity of the target along an axis that tokens can express."""

TARGET_SPEC: Final = PolicySpec(
    observations=(
        *PROPRIOCEPTION,
        # mu-law resolves 0.2 mm near zero and 2 mm at 10 cm.
        ObservationKey(
            name="target/from_tool", shape=(3,), dtype="float32", unit="m", encoding="mu_law"
        ),
        ranged_key("target/velocity", "m/s", (-FASTEST_M_S,) * 3, (FASTEST_M_S,) * 3),
    ),
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
    window_frames=2,
)
"""Proprioception and the target's place and velocity, 30 tokens a frame."""


class Reach(Task):
    """The tool stays within 2 cm of a moving target for two seconds without a break."""

    name = "reach"
    interfaces: ClassVar[Mapping[str, PolicySpec]] = {"target": TARGET_SPEC}
    seconds = 10.0
    hold_s = 2.0
    scene = Scene(Path(__file__).with_name("scene.xml"), targets=("target",))
    seen = ("target",)

    def layout(self, seed: int) -> Layout:
        """See `draw_layout`."""
        return draw_layout(seed)

    def read(self, key: str, moment: Moment) -> Array:
        """See `Task.read`."""
        match key:
            case "target/from_tool":
                return _from_tool(moment)
            case "target/velocity":
                return _velocity(moment)
            case _:
                raise KeyError(key)

    def holds(self, moment: Moment, touching: Touching) -> bool:  # noqa: ARG002  # nothing touches
        """Check if the tool is at the target."""
        return bool(np.linalg.norm(_from_tool(moment)) < NEAR_M)

    def expert_action(self, moment: Moment, model: ArmModel) -> Array:
        """Follow the target: computed-torque control, with the target's velocity fed forward."""
        torque_nm = torque_towards(
            moment.arm, model, _from_tool(moment), velocity_m_s=_velocity(moment)
        )
        return np.append(torque_nm, GRIPPER_OPEN_M)


def _from_tool(moment: Moment) -> Array:
    """Return the offset from the tool to the target in W, (3,) m."""
    return moment.bodies["target"].position - moment.arm.tool_position


def _velocity(moment: Moment) -> Array:
    """Return the velocity of the target in W, (3,) m/s."""
    (target,) = moment.layout.targets
    return target.velocity_at(moment.time_s)
