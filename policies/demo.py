"""Motions without a policy, to see an arm move on day one: an engine without weights.

Tokenizer, context, guard, loop, wire, recording and report are those of a real run. The engine
reads the observation's tokens, and puts out the tokens of torques that pull each joint to a target.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Mark, no_mark
from gatort.runtime.errors import ConfigError
from gatort.runtime.policy import Policy
from gatort.runtime.robots.panda import GRIPPER_WIDTH, HOME_RAD, JOINT_POSITION, JOINT_VELOCITY
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    Interface,
    ModelDims,
    PolicySpec,
)
from gatort.runtime.tokenizer import Tokenizer

DemoName = Literal["hold", "open", "wave", "home"]

TORQUE: Final = "_torque"
STIFFNESS_1_RAD: Final = 1.0
"""Torque at one radian from the target, as a share of an actuator's largest torque. For a Panda
that is 30 N·m/rad at the shoulder and 12 at the wrist."""
DAMPING_RAD_S: Final = 0.1
"""Torque at one radian per second against the motion, as the same share."""
LEAD_RAD: Final = 0.2
"""Largest distance to a target that is pulled at. It bounds the torque on an arm that is held back,
or that stays where it is in a dry run."""
SWING_RAD: Final = math.radians(5)
"""Amplitude of a wave."""
SWING_S: Final = 4.0
"""Time of a wave there and back."""
RISE_S: Final = 2.0
"""Time in which the amplitude grows from zero."""
HOMING_RAD_S: Final = 0.3
"""Largest speed of a joint on its way to the posture around which trials start."""
DEMO_ENGINE: Final = "demo "
"""Beginning of the names of these engines."""
NO_WEIGHTS: Final = ModelDims(
    layers=1,
    heads=1,
    head_size=2,
    width=1,
    ff_half_width=1,
    first_token_id=FIRST_CONTINUOUS_ID,
    local_positions=64,
)


class DemoEngine:
    """Engine that holds the joints, opens the hand, swings the last joint, or brings all home."""

    stepwise = False

    def __init__(self, demo: DemoName, spec: PolicySpec) -> None:
        self.name = f"{DEMO_ENGINE}{demo}"
        """Name for reports."""
        self._demo = demo
        self._spec = spec
        self._tokenizer = Tokenizer(spec)
        torques = [each for each in spec.actuators if each.name.endswith(TORQUE)]
        self._joints = len(torques)
        self._largest = np.array([each.high for each in torques])
        self._open = [each.high for each in spec.actuators if each not in torques]
        self._start: NDArray[np.float64] | None = None
        """(J,) place to hold; `None` before the first tick."""
        self._width: NDArray[np.float64] | None = None
        self._ticks = 0

    def see(self, frame: Frame) -> None:
        """Do nothing: no picture is read."""

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        # The frame begins with the last action token and ends with the separator.
        read = self._read(frame.prefill.ids[0, 1:-1])
        position = read[JOINT_POSITION]
        if self._start is None:
            self._start = position
            self._width = read.get(GRIPPER_WIDTH)
        target = self._target(self._start, self._ticks / self._spec.control_hz)
        action = np.array([each.safe for each in self._spec.actuators])
        lead = np.clip(target - position, -LEAD_RAD, LEAD_RAD)
        pull = STIFFNESS_1_RAD * lead - DAMPING_RAD_S * read[JOINT_VELOCITY]
        action[: self._joints] = self._largest * pull
        if self._demo == "open":
            action[self._joints :] = self._open
        elif self._width is not None:
            action[self._joints :] = self._width
        self._ticks += 1

        wanted = self._tokenizer.encode_action(action) - FIRST_CONTINUOUS_ID
        frame.logits.fill(0.0)
        frame.logits[np.arange(len(wanted)), wanted] = 1.0
        for index in range(len(frame.passes)):
            best = int((frame.logits[index] + frame.bias[index]).argmax())
            frame.tokens[index] = FIRST_CONTINUOUS_ID + best
        mark()

    def _target(self, start: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """Return the joints' targets (J,) a time after the first tick."""
        target = start.copy()
        if self._demo == "wave":
            swing_rad = SWING_RAD * min(time_s / RISE_S, 1.0)
            target[-1] += swing_rad * math.sin(2 * math.pi * time_s / SWING_S)
        elif self._demo == "home":
            # Half a cosine: its largest speed is π/2 times its mean one.
            way = HOME_RAD - start
            duration_s = max(np.abs(way).max() * math.pi / 2 / HOMING_RAD_S, 1e-9)
            target += way * (1 - math.cos(math.pi * min(time_s / duration_s, 1.0))) / 2
        return target

    def _read(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return the centres of the bins of each key."""
        read, first = {}, 0
        for key in self._spec.observations:
            bins = ids[first : first + key.tokens] - FIRST_CONTINUOUS_ID + 0.5
            low, high = np.array(key.low), np.array(key.high)
            read[key.name] = low + (high - low) * bins / CONTINUOUS_BINS
            first += key.tokens
        return read

    def reset(self) -> None:
        """Forget the place to hold."""
        self._start = self._width = None
        self._ticks = 0


def demo_policy(demo: DemoName, interface: Interface) -> Policy:
    """Return a policy that holds an arm, opens its hand, waves it, or brings it home.

    Args:
        demo: its motion.
        interface: interface of the arm: positions and velocities of its joints, a torque of each,
            and perhaps a gripper's width, which all but `open` keep.

    Raises:
        ConfigError: the arm has another interface.
    """
    torques = [each.name for each in interface.actuators if each.name.endswith(TORQUE)]
    others = [each.name for each in interface.actuators if not each.name.endswith(TORQUE)]
    keys = [
        key
        for key in interface.observations
        if key.name in (JOINT_POSITION, JOINT_VELOCITY, GRIPPER_WIDTH)
    ]
    joints = [key.size for key in keys if key.name != GRIPPER_WIDTH and key.encoding == "unit"]
    if joints != [len(torques)] * 2 or not set(others) <= {GRIPPER_WIDTH}:
        offered = [key.name for key in interface.observations]
        driven = [each.name for each in interface.actuators]
        raise ConfigError(
            f"--demo {demo}: expected an arm with {JOINT_POSITION}, {JOINT_VELOCITY}, a torque of "
            f"each joint and perhaps {GRIPPER_WIDTH}, found the keys {offered} and the actuators "
            f"{driven}"
        )
    if demo == "open" and not others:
        raise ConfigError(
            f"--demo open: expected an arm with {GRIPPER_WIDTH}, found one without a hand"
        )
    if demo == "home" and len(torques) != len(HOME_RAD):
        raise ConfigError(
            f"--demo home: expected an arm of {len(HOME_RAD)} joints, found {len(torques)}"
        )
    spec = PolicySpec(
        observations=tuple(keys),
        actuators=interface.actuators,
        control_hz=interface.control_hz,
        action_delay_ms=interface.action_delay_ms,
        window_frames=1,
    )
    return Policy.of(spec, NO_WEIGHTS, DemoEngine(demo, spec))
