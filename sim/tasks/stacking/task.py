"""RGB stacking: put the red block on the blue one; green is in the way (Lee et al., arXiv 2110.06192).

The specification that the shipped policy reads, how a trial's layout follows from its seed, and success.
Frames: W is the world, its origin in the arm's base on the table top, z up; the tool is between the finger pads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gatort.runtime.robots.panda import (
    ACTION_DELAY_MS,
    ACTUATORS,
    CONTROL_HZ,
    PROPRIOCEPTION,
    ranged_key,
)
from gatort.runtime.spec import (
    MAX_WINDOW_TOKENS,
    ObservationKey,
    PolicySpec,
)

BLOCKS: Final = ("red", "blue", "green")
TRIAL_SECONDS: Final = 20.0
"""400 steps at 20 Hz, as in the paper."""

# Seeds are cut into ranges that never meet: trials are what is reported, the others are for learning.
TRIAL_SEEDS: Final = range(900_000)
VALIDATION_SEEDS: Final = range(900_000, 1_000_000)
TRAINING_SEEDS: Final = range(1_000_000, 2_000_000)

HOME_RAD: Final = np.array([0.0, -0.4, 0.0, -2.3, 0.0, 1.9, 0.785])


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
"""What the shipped `stack` policy reads and commands: block poses instead of pictures, 33 tokens a frame."""

CAMERA_SPEC: Final = PolicySpec(
    observations=(*_cameras(64), *PROPRIOCEPTION),
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
    window_frames=4,
)
"""Two 64×64 cameras and proprioception, no block poses: the way of the paper."""

_GATO_OBSERVATIONS: Final = (*_cameras(128), *PROPRIOCEPTION)
_GATO_FRAME_TOKENS: Final = sum(key.tokens for key in _GATO_OBSERVATIONS) + len(ACTUATORS) + 1
GATO_SPEC: Final = PolicySpec(
    observations=_GATO_OBSERVATIONS,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    # A whole period: the largest size takes most of one on the card that it is for.
    action_delay_ms=1000 // CONTROL_HZ,
    window_frames=MAX_WINDOW_TOKENS // _GATO_FRAME_TOKENS,
)
"""Gato's stacking frame at full size: 128 patches, 15 joint values, 8 actions; six frames of 152 fit in 1024 tokens."""

SPECS: Final = (STACK_SPEC, CAMERA_SPEC, GATO_SPEC)
"""What the simulated arm can be observed with."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One block at the start of a trial, standing on the table."""

    x_m: float
    y_m: float
    yaw_rad: float
    edge_m: float
    mass_kg: float
    friction: float
    """Sliding friction with everything it touches."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything random in one trial; a function of its seed alone."""

    blocks: tuple[BlockLayout, ...]
    """In the order of BLOCKS."""
    joints_rad: tuple[float, ...]
    """Arm joints at the start, (7,)."""


def draw_layout(seed: int) -> Layout:
    """Draw the layout of one trial: block poses at least 12 cm apart, sizes, masses, frictions, arm posture."""
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < len(BLOCKS):
        place = rng.uniform((0.38, -0.24), (0.64, 0.24))
        if all(np.linalg.norm(place - other) > 0.12 for other in places):
            places.append(place)
    blocks = tuple(
        BlockLayout(
            x_m=float(place[0]),
            y_m=float(place[1]),
            yaw_rad=float(rng.uniform(-np.pi, np.pi)),
            edge_m=float(rng.uniform(0.042, 0.056)),
            mass_kg=float(rng.uniform(0.05, 0.15)),
            friction=float(rng.uniform(0.6, 1.0)),
        )
        for place in places
    )
    return Layout(
        blocks=blocks, joints_rad=tuple(float(q) for q in HOME_RAD + rng.uniform(-0.15, 0.15, 7))
    )
