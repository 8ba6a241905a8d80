"""Interfaces of the stacking task: block poses, or cameras."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatort.runtime.robots.panda import (
    ACTION_DELAY_MS,
    ACTUATORS,
    CONTROL_HZ,
    PROPRIOCEPTION,
    ranged_key,
)
from gatort.runtime.spec import MAX_WINDOW_TOKENS, ObservationKey, PolicySpec


def _offset(name: str) -> ObservationKey:
    # mu-law resolves 0.2 mm near zero, where a grasp is decided, and 2 mm at 10 cm.
    return ObservationKey(name=name, shape=(3,), dtype="float32", unit="m", encoding="mu_law")


STACK_OBSERVATIONS: Final = (
    *PROPRIOCEPTION,
    _offset("blocks/blue_from_red"),
    ranged_key("blocks/edge", "m", (0.04, 0.04), (0.06, 0.06)),
    _offset("blocks/red_from_tool"),
    ranged_key("blocks/red_yaw_from_tool", "rad", (-np.pi / 4,), (np.pi / 4,)),
)
"""Keys of the shipped `stack` policy."""


def _cameras(pixels: int) -> tuple[ObservationKey, ...]:
    return tuple(
        ObservationKey(
            name=f"camera/{name}",
            shape=(pixels, pixels, 3),
            dtype="uint8",
            unit="1",
            encoding="image",
        )
        for name in ("front", "wrist")
    )


STACK_SPEC: Final = PolicySpec(
    observations=STACK_OBSERVATIONS,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
    window_frames=2,
)
"""Specification of the shipped `stack` policy: block poses instead of pictures, 33 tokens a
frame."""

CAMERA_SPEC: Final = PolicySpec(
    observations=(*_cameras(64), *PROPRIOCEPTION),
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
    window_frames=2,
)
"""Two 64×64 cameras and proprioception, no block poses, as in Lee et al. (arXiv 2110.06192)."""

_GATO_OBSERVATIONS: Final = (*_cameras(128), *PROPRIOCEPTION)
_GATO_FRAME_TOKENS: Final = sum(key.tokens for key in _GATO_OBSERVATIONS) + len(ACTUATORS) + 1
GATO_SPEC: Final = PolicySpec(
    observations=_GATO_OBSERVATIONS,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    # A whole period, because the largest size takes most of one on the card that it is for.
    action_delay_ms=1000 // CONTROL_HZ,
    window_frames=MAX_WINDOW_TOKENS // _GATO_FRAME_TOKENS,
)
"""Gato's stacking frame at full size: 128 patches, 15 joint values, 8 actions. Six frames of 152
fit in 1024 tokens."""
