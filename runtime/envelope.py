"""The envelope: limits of the arm itself, below the inner loop and above the motors.

    policy's values ─▶ inner loop ─▶ envelope ─▶ motors
                                        └─ a reason ─▶ SAFE, LATCHED

It knows the arm and no controller. In each cycle it sees the joints and the torque to write: the
command and all additions of the driver, without gravity. It

- keeps the torque within its range, and its change per cycle within the arm's rate;
- lets no torque push a joint towards its limit once the way to stop runs out, and brakes it there;
- brakes a joint that comes near its speed limit.

It asks for SAFE where that was not enough: a joint beyond a limit, or the tool outside its box. The
same holds for a pressed joint that does not move, and for readings that cannot be true. A cycle is
one call, however late: a late cycle gets the change of one cycle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import ConfigError

CYCLE_S: Final = 1e-3
"""Duration of a cycle."""
TORQUE_MARGIN: Final = 0.99
"""Largest torque and largest change of torque, as a share of the arm's own limits."""
SLOWING_SHARE: Final = 0.85
"""Share of its speed limit from which torque no longer speeds a joint up as asked. At the limit no
driving torque is left, and the joint is damped besides."""
TREND_CYCLES: Final = 5
"""Cycles from which a joint's acceleration is taken."""
TOO_FAST_CYCLES: Final = 5
"""Cycles above its speed limit after which a joint is stopped. A gripper that touches a block makes
a light wrist jump by 1 to 2 rad/s for 3 ms."""
LIMIT_ZONE_RAD: Final = 0.1
"""Way before the last stopping point over which the torque towards a joint limit fades out."""
BRAKING_ZONE_RAD: Final = 0.03
"""Overrun of the last stopping point at which a joint is braked with all of `brake_nm`."""
KEEP_OFF_RAD: Final = 0.03
"""Distance from its limit at which a joint comes to rest."""
LIMIT_MARGIN_RAD: Final = 0.005
"""A joint this close to its limit is stopped."""
PRESSED_S: Final = 0.5
"""Time for which a joint may be pressed without moving."""
STILL_RAD_S: Final = 0.03
"""A joint slower than this does not move. While the shipped policies stack, no joint is slower for
longer than 73 ms under a torque that counts as pressing."""
CONSISTENCY_CYCLES: Final = 100
"""Cycles after which positions are compared with the sum of the velocities."""
CONSISTENCY_RAD: Final = 0.03
"""Largest difference between the two."""
REPEATED_CYCLES: Final = 50
"""Cycles in which positions and velocities may be the same to the last bit under torque."""
TOOL_CYCLES: Final = 10
"""The tool's place is worked out once in this many cycles."""


@dataclass(frozen=True, slots=True)
class ArmLimits:
    """Limits of an arm with J joints, from its datasheet. One value per joint."""

    low_rad: tuple[float, ...]
    """Lower joint limits."""
    high_rad: tuple[float, ...]
    """Upper joint limits."""
    speed_rad_s: tuple[float, ...]
    """Largest speeds."""
    acceleration_rad_s2: tuple[float, ...]
    """Decelerations with which a joint can be stopped."""
    torque_nm: tuple[float, ...]
    """Largest torques, without gravity."""
    torque_rate_nm_s: tuple[float, ...]
    """Largest changes of torque per second."""
    brake_nm: tuple[float, ...]
    """Torques that brake a joint at its limits: no less than a policy may command."""
    brake_nms_rad: tuple[float, ...]
    """Damping of a joint that is nearly too fast."""
    pressed_nm: tuple[float, ...]
    """Torques that press a joint which does not move."""
    frames: tuple[tuple[float, float, float], ...]
    """Frames of the joints and of the tool, (J + 1): a, α and d after Craig (modified DH)."""
    box_low_m: tuple[float, float, float] = (-math.inf,) * 3
    """Lowest place of the tool in the frame of the base: the table, for z."""
    box_high_m: tuple[float, float, float] = (math.inf,) * 3
    """Highest place of the tool in the frame of the base."""
    power_w: float = math.inf
    """Largest mechanical power that the torques may give to the joints."""


class Envelope:
    """Limits each cycle's torques, and says why the arm must be stopped."""

    def __init__(self, limits: ArmLimits) -> None:
        """Begin with an arm to which no torque was written."""
        self.limits = limits
        self.reason: str | None = None
        """Reason for SAFE since `reset`; `None` while there is none."""
        self._joints = range(len(limits.low_rad))
        self._most = [TORQUE_MARGIN * torque for torque in limits.torque_nm]
        self._step = [TORQUE_MARGIN * rate * CYCLE_S for rate in limits.torque_rate_nm_s]
        self._slowing = [SLOWING_SHARE * speed for speed in limits.speed_rad_s]
        self._written = [0.0 for _ in self._joints]
        self._cycles = 0
        self.reset()

    def require_fade(self, highest: Sequence[float], fade_s: float) -> None:
        """Check that torques can fade to zero as fast as SAFE asks for.

        Args:
            highest: largest commanded torque of each joint in N·m.
            fade_s: duration of the fade.

        Raises:
            ConfigError: the fade of a joint is faster than the arm's torque may change.
        """
        for joint, torque, step in zip(self._joints, highest, self._step, strict=True):
            fastest = torque / fade_s * CYCLE_S
            if fastest > step:
                raise ConfigError(
                    f"joint {joint + 1}: a fade from {torque:g} N·m in {fade_s * 1e3:g} ms changes "
                    f"{fastest:.2f} N·m a cycle, expected at most {step:.2f}; lower its range"
                )

    def reset(self) -> None:
        """Forget the reason and the readings, for an arm that is armed anew.

        The torque that was written last is kept.
        """
        self.reason = None
        self._pressed = [0 for _ in self._joints]
        self._velocities: deque[Sequence[float]] = deque(maxlen=TREND_CYCLES)
        self._too_fast = [0 for _ in self._joints]
        self._repeated = 0
        self._last: tuple[Sequence[float], Sequence[float]] = ((), ())
        self._cycles = 0
        self._travel: list[float] = [0.0 for _ in self._joints]
        self._start: Sequence[float] = ()

    def limit(
        self,
        torque_nm: Sequence[float],
        position_rad: Sequence[float],
        velocity_rad_s: Sequence[float],
        *,
        is_driven: bool,
    ) -> list[float]:
        """Return the torques (J,) to write in this cycle. Call it once per cycle.

        Args:
            torque_nm: wanted torques (J,), with everything that the driver adds but gravity.
            position_rad: joint positions (J,).
            velocity_rad_s: joint velocities (J,).
            is_driven: true while a controller's values are in effect. Only then the rules that ask
                for SAFE apply: a person may move an arm that is at rest.
        """
        written = [
            self._limit_joint(*each)
            for each in zip(
                self._joints, torque_nm, position_rad, velocity_rad_s, self._written, strict=True
            )
        ]
        self._written = written
        self._velocities.append(velocity_rad_s)
        if is_driven and self.reason is None:
            self.reason = self._find_reason(written, position_rad, velocity_rad_s)
        return written

    # -- Limiting ------------------------------------------------------------------------------

    def _limit_joint(
        self, joint: int, wanted: float, position: float, velocity: float, before: float
    ) -> float:
        if not math.isfinite(wanted + position + velocity):
            wanted = 0.0  # `_find_reason` stops the arm. Until then it is let go of at its rate.
        else:
            wanted = self._keep_off_limit(joint, wanted, position, velocity, before)
            wanted = self._keep_slow(joint, wanted, velocity, before)

        most, step = self._most[joint], self._step[joint]
        wanted = min(max(wanted, -most), most)
        return min(max(wanted, before - step), before + step)

    def _keep_slow(self, joint: int, wanted: float, velocity: float, before: float) -> float:
        """Fade out the torque that drives a joint which is soon too fast, and damp it.

        The torque can only fall at its rate, and until then the joint goes on speeding up.
        """
        gained = velocity - self._velocities[0][joint] if self._velocities else 0.0
        lead_cycles = abs(before) / self._step[joint] / 2
        coming = velocity + gained * lead_cycles / TREND_CYCLES
        over = abs(coming) - self._slowing[joint]
        if over <= 0.0 or coming * velocity < 0.0:
            return wanted
        if wanted * coming > 0.0:
            share = over / (self.limits.speed_rad_s[joint] - self._slowing[joint])
            wanted *= max(1.0 - share, 0.0)
        return wanted - math.copysign(self.limits.brake_nms_rad[joint] * over, coming)

    def _keep_off_limit(
        self, joint: int, wanted: float, position: float, velocity: float, before: float
    ) -> float:
        """Fade out the torque towards a joint limit, and brake once the way to stop is used up.

        The way to stop begins with the time in which the torque changes over to braking.
        """
        limits = self.limits
        brake = limits.brake_nm[joint]
        for sign, room in (
            (1.0, limits.high_rad[joint] - position),
            (-1.0, position - limits.low_rad[joint]),
        ):
            speed = max(sign * velocity, 0.0)
            change_s = max(sign * before + brake, 0.0) / self._step[joint] * CYCLE_S
            stopping = speed * change_s + speed * speed / (2 * limits.acceleration_rad_s2[joint])
            left = room - KEEP_OFF_RAD - stopping
            if left >= LIMIT_ZONE_RAD:
                continue
            if sign * wanted > 0:
                wanted *= max(left / LIMIT_ZONE_RAD, 0.0)
            if left < 0 and speed > 0:
                wanted -= sign * brake * min(-left / BRAKING_ZONE_RAD, 1.0)
        return wanted

    # -- Reasons to stop -----------------------------------------------------------------------

    def _find_reason(
        self, written: Sequence[float], position: Sequence[float], velocity: Sequence[float]
    ) -> str | None:
        if not all(map(math.isfinite, (*position, *velocity))):
            return "a joint's reading is not finite"
        self._cycles += 1
        return (
            self._out_of_limits(position, velocity)
            or self._pressed_still(written, velocity)
            or self._inconsistent(written, position, velocity)
            or self._too_strong(written, velocity)
            or (self._outside_box(position) if self._cycles % TOOL_CYCLES == 0 else None)
        )

    def _out_of_limits(self, position: Sequence[float], velocity: Sequence[float]) -> str | None:
        limits = self.limits
        for joint, at, speed, low, high, fastest in zip(
            self._joints,
            position,
            velocity,
            limits.low_rad,
            limits.high_rad,
            limits.speed_rad_s,
            strict=True,
        ):
            self._too_fast[joint] = self._too_fast[joint] + 1 if abs(speed) > fastest else 0
            if self._too_fast[joint] >= TOO_FAST_CYCLES:
                return (
                    f"joint {joint + 1} turned at {abs(speed):.2f} rad/s, "
                    f"above its limit of {fastest:g}"
                )
            if not low + LIMIT_MARGIN_RAD <= at <= high - LIMIT_MARGIN_RAD:
                return f"joint {joint + 1} came to {at:.3f} rad, at its limit ({low:g} to {high:g})"
        return None

    def _pressed_still(self, written: Sequence[float], velocity: Sequence[float]) -> str | None:
        for joint, torque, speed, pressed in zip(
            self._joints, written, velocity, self.limits.pressed_nm, strict=True
        ):
            if abs(torque) <= pressed or abs(speed) >= STILL_RAD_S:
                self._pressed[joint] = 0
                continue
            self._pressed[joint] += 1
            if self._pressed[joint] * CYCLE_S >= PRESSED_S:
                return (
                    f"joint {joint + 1} was pressed with {abs(torque):.0f} N·m for {PRESSED_S:g} s "
                    "and did not move"
                )
        return None

    def _inconsistent(
        self, written: Sequence[float], position: Sequence[float], velocity: Sequence[float]
    ) -> str | None:
        is_under_torque = max(map(abs, written)) > 1.0
        if is_under_torque and (position, velocity) == self._last:
            self._repeated += 1
        else:
            self._repeated = 0
            self._last = (position, velocity)
        if self._repeated >= REPEATED_CYCLES:
            return f"the joints' readings were the same for {REPEATED_CYCLES} cycles under torque"

        if not self._start:
            self._start = position
            self._travel = [0.0 for _ in self._joints]
            self._compare_at = self._cycles + CONSISTENCY_CYCLES
            return None
        self._travel = [
            travel + speed for travel, speed in zip(self._travel, velocity, strict=True)
        ]
        if self._cycles < self._compare_at:
            return None
        start, self._start = self._start, ()
        for joint, at, then, travel in zip(
            self._joints, position, start, self._travel, strict=True
        ):
            difference = at - then - travel * CYCLE_S
            if abs(difference) > CONSISTENCY_RAD:
                return (
                    f"joint {joint + 1}: its position and its velocity differ by "
                    f"{abs(difference):.3f} rad after {CONSISTENCY_CYCLES} cycles"
                )
        return None

    def _too_strong(self, written: Sequence[float], velocity: Sequence[float]) -> str | None:
        if self.limits.power_w == math.inf:
            return None
        power_w = sum(
            max(torque * speed, 0.0) for torque, speed in zip(written, velocity, strict=True)
        )
        if power_w <= self.limits.power_w:
            return None
        return f"the joints got {power_w:.0f} W, above the limit of {self.limits.power_w:g}"

    def _outside_box(self, position: Sequence[float]) -> str | None:
        limits = self.limits
        place = tool_place(limits.frames, position)
        for axis, at, low, high in zip(
            "xyz", place, limits.box_low_m, limits.box_high_m, strict=True
        ):
            if not low <= at <= high:
                return (
                    f"the tool came to {axis} = {at:.3f} m, outside its box ({low:g} to {high:g})"
                )
        return None


def tool_place(
    frames: Sequence[tuple[float, float, float]], position_rad: Sequence[float]
) -> tuple[float, float, float]:
    """Return the tool's place in the frame of the base, in m.

    Args:
        frames: frames of the joints and of the tool, (J + 1): a, α and d after Craig.
        position_rad: joint positions (J,).
    """
    # Backwards from the tool: each frame turns and shifts a point into the frame before it.
    x = y = z = 0.0
    for (a, alpha, d), theta in zip(reversed(frames), (0.0, *reversed(position_rad)), strict=True):
        cos_theta, sin_theta = math.cos(theta), math.sin(theta)
        cos_alpha, sin_alpha = math.cos(alpha), math.sin(alpha)
        turned_x = cos_theta * x - sin_theta * y
        turned_y = sin_theta * x + cos_theta * y
        z += d
        x = turned_x + a
        y, z = cos_alpha * turned_y - sin_alpha * z, sin_alpha * turned_y + cos_alpha * z
    return x, y, z
