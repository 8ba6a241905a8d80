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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import ConfigError

CYCLE_S: Final = 1e-3
"""Duration of a cycle."""
TORQUE_MARGIN: Final = 0.99
"""Largest torque and largest change of torque, as a share of the arm's own limits."""
TREND_CYCLES: Final = 3
"""Cycles over which a joint's acceleration is smoothed."""
TOO_FAST_CYCLES: Final = 20
"""Cycles above its speed limit after which a joint is stopped. No torque drives it meanwhile. A
gripper that hits a block makes the light wrist of PyBullet's arm jump for up to 6 cycles."""
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
longer than 107 ms under a torque that counts as pressing."""
CONSISTENCY_CYCLES: Final = 100
"""Cycles after which positions are compared with the sum of the velocities."""
CONSISTENCY_RAD: Final = 0.03
"""Largest difference between the two."""
REPEATED_CYCLES: Final = 50
"""Cycles in which positions and velocities may be the same to the last bit under torque."""
REPEATED_NM: Final = 1.0
"""A torque above this one moves an arm, so that its readings change."""
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
    stopping_rad_s2: tuple[float, ...] = ()
    """Decelerations d of a speed limit that falls near a joint limit, as an FR3's does: with r rad
    left and the offset o it is √(2·d·r) − o. Empty where the speed limit does not fall."""
    stopping_offset_rad_s: tuple[float, ...] = ()
    """Offsets o of that speed limit."""
    slowing_share: float = 0.85
    """Share of its speed limit from which torque no longer speeds a joint up as asked. At the limit
    no driving torque is left, and the joint is damped besides."""
    slowing_brake_share: float = 0.0
    """Share of `brake_nm` for whose rise a joint is slowed down ahead of time. Other joints may
    push it on although it is not driven."""


class Joint:
    """One joint: its limits, and the readings that its rules remember."""

    __slots__ = (
        "_acceleration", "_brake_nm", "_brake_nms_rad", "_deceleration_rad_s2", "_far_high",
        "_far_low", "_fastest", "_high", "_lead_cycles_nm", "_low", "_most", "_number", "_offset",
        "_pressed", "_pressed_nm", "_reserve_nm", "_slowing_share", "_start", "_step",
        "_stopping_rad_s2", "_too_fast", "_top_rad_s", "_travel", "_velocity", "written_nm",
    )  # fmt: skip

    def __init__(self, number: int, limits: ArmLimits) -> None:
        index = number - 1
        self._number = number
        self._low, self._high = limits.low_rad[index], limits.high_rad[index]
        self._fastest = limits.speed_rad_s[index]
        falls = bool(limits.stopping_rad_s2)
        self._stopping_rad_s2 = limits.stopping_rad_s2[index] if falls else math.inf
        self._offset = limits.stopping_offset_rad_s[index] if falls else 0.0
        self._slowing_share = limits.slowing_share
        self._reserve_nm = limits.slowing_brake_share * limits.brake_nm[index]
        self._deceleration_rad_s2 = limits.acceleration_rad_s2[index]
        self._brake_nm = limits.brake_nm[index]
        self._brake_nms_rad = limits.brake_nms_rad[index]
        self._pressed_nm = limits.pressed_nm[index]
        self._most = TORQUE_MARGIN * limits.torque_nm[index]
        self._step = TORQUE_MARGIN * limits.torque_rate_nm_s[index] * CYCLE_S
        # The torque falls to zero in torque / step cycles. The acceleration does not fall with it:
        # other joints push too.
        self._lead_cycles_nm = 1.0 / self._step
        farthest = self._way_to_stop(self._fastest, self._most) + KEEP_OFF_RAD + LIMIT_ZONE_RAD
        self._far_low, self._far_high = self._low + farthest, self._high - farthest
        self.written_nm = 0.0
        """Torque that was written last."""
        self._velocity = 0.0
        self.forget()

    def forget(self) -> None:
        """Forget the readings."""
        self._acceleration = 0.0
        self._too_fast = 0
        self._pressed = 0
        self._start = math.nan
        self._travel = 0.0
        self._top_rad_s = 0.0

    def let_go(self) -> float:
        """Return the torque to write in this cycle, on its way to zero, in N·m."""
        self.written_nm -= min(max(self.written_nm, -self._step), self._step)
        return self.written_nm

    def limit(self, wanted_nm: float, position_rad: float, velocity_rad_s: float) -> float:
        """Return the torque to write in this cycle, in N·m."""
        wanted, before = wanted_nm, self.written_nm
        readings = wanted + position_rad + velocity_rad_s
        if readings - readings != 0.0:  # NaN or infinite: the envelope stops the arm.
            wanted = 0.0
        else:
            gained = velocity_rad_s - self._velocity
            self._velocity = velocity_rad_s
            self._acceleration += (gained - self._acceleration) / TREND_CYCLES
            lead_cycles = (abs(before) + self._reserve_nm) * self._lead_cycles_nm
            coming = velocity_rad_s + self._acceleration * lead_cycles
            if not self._far_low < position_rad < self._far_high:
                wanted = self._keep_off_limit(wanted, position_rad, velocity_rad_s)
            there = position_rad + velocity_rad_s * lead_cycles * CYCLE_S
            fastest = self._fastest_towards(coming, there)
            if abs(coming) >= self._slowing_share * fastest and coming * velocity_rad_s > 0.0:
                wanted = self._slow_down(wanted, coming, fastest)

        wanted = min(max(wanted, -self._most), self._most)
        self.written_nm = min(max(wanted, before - self._step), before + self._step)
        return self.written_nm

    def _fastest_towards(self, velocity: float, position: float) -> float:
        """Return the speed limit in the direction of a velocity at a position."""
        if self._stopping_rad_s2 == math.inf:
            return self._fastest
        room = self._high - position if velocity > 0.0 else position - self._low
        falling = math.sqrt(2.0 * self._stopping_rad_s2 * max(room, 0.0)) - self._offset
        return min(max(falling, 0.0), self._fastest)

    def _slow_down(self, wanted: float, coming: float, fastest: float) -> float:
        """Fade out the torque that drives a joint which is soon too fast, and damp it.

        The torque can only fall at its rate, and until then the joint goes on speeding up.
        """
        over = abs(coming) - self._slowing_share * fastest
        left = fastest - self._slowing_share * fastest
        if wanted * coming > 0.0:
            wanted *= max(1.0 - over / left, 0.0) if left > 0.0 else 0.0
        return wanted - math.copysign(self._brake_nms_rad * over, coming)

    def _keep_off_limit(self, wanted: float, position: float, velocity: float) -> float:
        """Fade out the torque towards a joint limit, and brake once the way to stop is used up."""
        for sign, room in ((1.0, self._high - position), (-1.0, position - self._low)):
            speed = max(sign * velocity, 0.0)
            left = room - KEEP_OFF_RAD - self._way_to_stop(speed, sign * self.written_nm)
            if left >= LIMIT_ZONE_RAD:
                continue
            if sign * wanted > 0:
                wanted *= max(left / LIMIT_ZONE_RAD, 0.0)
            if left < 0 and speed > 0:
                wanted -= sign * self._brake_nm * min(-left / BRAKING_ZONE_RAD, 1.0)
        return wanted

    def _way_to_stop(self, speed: float, driving_nm: float) -> float:
        """Return the angle in which a joint stops, from the change over to braking on."""
        change_s = max(driving_nm + self._brake_nm, 0.0) / self._step * CYCLE_S
        return speed * change_s + speed * speed / (2 * self._deceleration_rad_s2)

    def reason(self, position_rad: float, velocity_rad_s: float) -> str | None:
        """Return why an arm must be stopped after `limit`; `None` if it may go on."""
        speed = abs(velocity_rad_s)
        fastest = self._fastest_towards(velocity_rad_s, position_rad)
        self._too_fast = self._too_fast + 1 if speed > fastest else 0
        is_pressed = speed < STILL_RAD_S and abs(self.written_nm) > self._pressed_nm
        self._pressed = self._pressed + 1 if is_pressed else 0

        if not self._low + LIMIT_MARGIN_RAD <= position_rad <= self._high - LIMIT_MARGIN_RAD:
            return (
                f"joint {self._number} came to {position_rad:.3f} rad, "
                f"at its limit ({self._low:g} to {self._high:g})"
            )
        if self._too_fast >= TOO_FAST_CYCLES:
            return (
                f"joint {self._number} turned at {speed:.2f} rad/s, "
                f"above its limit of {fastest:.4g}"
            )
        if self._pressed * CYCLE_S >= PRESSED_S:
            return (
                f"joint {self._number} was pressed with {abs(self.written_nm):.0f} N·m "
                f"for {PRESSED_S:g} s and did not move"
            )
        return None

    def travel(self, velocity_rad_s: float) -> None:
        """Add a cycle's velocity to the way since `compare`."""
        self._travel += velocity_rad_s * CYCLE_S
        self._top_rad_s = max(self._top_rad_s, abs(velocity_rad_s))

    def compare(self, position_rad: float, unsure_s: float) -> str | None:
        """Compare the way since the last call with the sum of the velocities.

        Args:
            position_rad: position now.
            unsure_s: time since then for which there are too many or too few readings.
        """
        difference = abs(position_rad - self._start - self._travel)
        allowed = CONSISTENCY_RAD + self._top_rad_s * unsure_s
        self._start, self._travel, self._top_rad_s = position_rad, 0.0, 0.0
        if difference > allowed:  # Never at the first call, where it is NaN.
            return (
                f"joint {self._number}: its position and its velocity differ by "
                f"{difference:.3f} rad after {CONSISTENCY_CYCLES} cycles"
            )
        return None


class Envelope:
    """Limits each cycle's torques, and says why the arm must be stopped."""

    def __init__(self, limits: ArmLimits) -> None:
        """Begin with an arm to which no torque was written."""
        self.limits = limits
        self.reason: str | None = None
        """Reason for SAFE since `reset`; `None` while there is none."""
        self.is_blind = False
        """True if the reason is that the joints' readings cannot be true. Since they would also
        mislead every limit and brake, all torque then goes to zero at its rate."""
        self._joints = [Joint(number, limits) for number in range(1, len(limits.low_rad) + 1)]
        self.reset()

    def require_fade(self, highest_nm: Sequence[float], fade_s: float) -> None:
        """Check that torques can fade to zero as fast as SAFE asks for.

        Args:
            highest_nm: largest commanded torque of each joint.
            fade_s: duration of the fade.

        Raises:
            ConfigError: the fade of a joint is faster than the arm's torque may change.
        """
        rates = self.limits.torque_rate_nm_s
        for number, (torque, rate) in enumerate(zip(highest_nm, rates, strict=True), 1):
            if torque / fade_s > TORQUE_MARGIN * rate:
                raise ConfigError(
                    f"joint {number}: a fade from {torque:g} N·m in {fade_s * 1e3:g} ms changes "
                    f"{torque / fade_s:.0f} N·m/s, expected at most {TORQUE_MARGIN * rate:.0f}; "
                    "lower its range"
                )

    def reset(self) -> None:
        """Forget the reason and the readings, for an arm that is armed anew.

        The torques that were written last are kept.
        """
        self.reason = None
        self.is_blind = False
        self._cycles = 0
        self._unsure_s = 0.0
        self._repeated = 0
        self._last: tuple[Sequence[float], Sequence[float]] = ((), ())
        for joint in self._joints:
            joint.forget()

    def limit(
        self,
        torque_nm: Sequence[float],
        position_rad: Sequence[float],
        velocity_rad_s: Sequence[float],
        *,
        is_driven: bool,
        elapsed_s: float = CYCLE_S,
    ) -> list[float]:
        """Return the torques (J,) to write in this cycle. Call it once per cycle.

        Args:
            torque_nm: wanted torques (J,), with everything that the driver adds but gravity.
            position_rad: joint positions (J,).
            velocity_rad_s: joint velocities (J,).
            is_driven: true while a controller's values are in effect. Only then the rules that ask
                for SAFE apply: a person may move an arm that is at rest.
            elapsed_s: time since the readings before. An arm goes on moving through cycles whose
                readings were lost.
        """
        if self.is_blind:
            return self.let_go()
        each = zip(self._joints, torque_nm, position_rad, velocity_rad_s, strict=True)
        written = [joint.limit(*readings) for joint, *readings in each]
        if is_driven and self.reason is None:
            if all(map(math.isfinite, torque_nm)):
                self.reason = self._find_reason(written, position_rad, velocity_rad_s, elapsed_s)
            else:
                self.reason = "a wanted torque is not finite"
        return written

    def let_go(self) -> list[float]:
        """Return the torques (J,) of this cycle on their way to zero, whatever else is wanted."""
        return [joint.let_go() for joint in self._joints]

    def _find_reason(
        self,
        written: Sequence[float],
        position: Sequence[float],
        velocity: Sequence[float],
        elapsed_s: float,
    ) -> str | None:
        if reason := self._distrust(written, position, velocity, elapsed_s):
            self.is_blind = True
            return reason
        each = zip(self._joints, position, velocity, strict=True)
        reasons = [reason for joint, at, speed in each if (reason := joint.reason(at, speed))]
        if reasons:
            return reasons[0]

        if self.limits.power_w < math.inf and (reason := self._too_strong(written, velocity)):
            return reason
        return outside_box(self.limits, position) if self._cycles % TOOL_CYCLES == 0 else None

    def _distrust(
        self,
        written: Sequence[float],
        position: Sequence[float],
        velocity: Sequence[float],
        elapsed_s: float,
    ) -> str | None:
        """Return why the joints' readings cannot be true."""
        for number, readings in enumerate(zip(position, velocity, strict=True), 1):
            if not all(map(math.isfinite, readings)):
                return f"joint {number}: its readings are not finite"
        for joint, speed in zip(self._joints, velocity, strict=True):
            joint.travel(speed)
        self._unsure_s += elapsed_s - CYCLE_S
        self._cycles += 1
        if self._are_repeated(written, position, velocity):
            return f"the joints' readings were the same for {REPEATED_CYCLES} cycles under torque"
        if self._cycles % CONSISTENCY_CYCLES == 1:
            unsure_s, self._unsure_s = abs(self._unsure_s), 0.0
            each = zip(self._joints, position, strict=True)
            reasons = [reason for joint, at in each if (reason := joint.compare(at, unsure_s))]
            return reasons[0] if reasons else None
        return None

    def _are_repeated(
        self, written: Sequence[float], position: Sequence[float], velocity: Sequence[float]
    ) -> bool:
        if (position, velocity) != self._last or max(map(abs, written)) <= REPEATED_NM:
            self._repeated = 0
            self._last = (position, velocity)
            return False
        self._repeated += 1
        return self._repeated >= REPEATED_CYCLES

    def _too_strong(self, written: Sequence[float], velocity: Sequence[float]) -> str | None:
        powers = [torque * speed for torque, speed in zip(written, velocity, strict=True)]
        power_w = sum(power for power in powers if power > 0.0)
        if power_w <= self.limits.power_w:
            return None
        return f"the joints got {power_w:.0f} W, above the limit of {self.limits.power_w:g}"


def outside_box(limits: ArmLimits, position_rad: Sequence[float]) -> str | None:
    """Return why the tool must not be at joint positions (J,); `None` within its box."""
    place = tool_place(limits.frames, position_rad)
    for axis, at, low, high in zip("xyz", place, limits.box_low_m, limits.box_high_m, strict=True):
        if not low <= at <= high:
            return f"the tool came to {axis} = {at:.3f} m, outside its box ({low:g} to {high:g})"
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
