"""Limits of an FR3 from its datasheet."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gatort.runtime.robots.panda import PANDA_LIMITS

FR3_LIMITS: Final = replace(
    PANDA_LIMITS,
    low_rad=(-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.5409, -3.0196),
    high_rad=(2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196),
    speed_rad_s=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    acceleration_rad_s2=(10.0, 7.5, 10.0, 10.0, 10.0, 10.0, 10.0),
    stopping_rad_s2=(6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0),
    stopping_offset_rad_s=(0.3, 0.2, 0.2, 0.3, 0.35, 0.35, 0.35),
    # Chosen here: the arm stops itself at once beyond a speed limit, and a simulated one does not.
    slowing_share=0.5,
    slowing_brake_share=0.4,
)
"""Source: Franka Robotics, "Robot limits for the Franka Research 3". Its speed limits fall near the
joint limits. Its frames are the Panda's."""
