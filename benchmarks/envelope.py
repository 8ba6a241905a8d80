"""Drive a simulated arm where it must not go, and measure how the envelope answers.

    python benchmarks/envelope.py --json runs/envelope.json

Each joint is pushed with the largest torque in both directions. The hand is pressed onto the table,
empty and with a block, and the joints' readings are spoiled in flight. All times are those of a
virtual clock, in cycles of 1 ms. Every case is repeated with the fault in another millisecond of
the tick.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gatort.runtime.clock import VirtualClock
from gatort.runtime.envelope import STILL_RAD_S
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.panda import PANDA, PANDA_LIMITS, TORQUE_NM
from gatort.runtime.safety import STOPPED, Command, State
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot

MS: Final = 1_000_000
PERIOD_NS: Final = 50 * MS
PHASES: Final = (0, 13, 27, 41)
"""Milliseconds by which a fault is moved within a tick."""
FAULT_MS: Final = 1_000
"""Millisecond of a run in which a sensor's fault begins."""
RUN_MS: Final = 6_000
LATE_SHARE: Final = 0.1
"""Share of random cycles that come late."""
TURN_NM: Final = (8.0, 0.0, 0.0, -4.0, 2.0, 0.0, 2.0)
"""Torques that move the arm while a sensor fails, in turns of half a second."""

Array = NDArray[np.float64]
Readings = tuple[Array, Array]
Spoil = Callable[[Readings, Readings, int], Readings]
"""From the readings now, the last good ones and the cycles since, return wrong readings."""
ActionAt = Callable[[int, SimulatedRobot], Array]
"""From a tick and the arm, return an action (8,)."""
HELD_RAD: Final = np.array([0.0, 0.0, 0.0, -2.2, 0.0, 2.2, 0.8])
"""Posture of all joints but the second while the hand is pressed down."""
HELD_BLOCK_TICKS: Final = 40
"""Ticks in which the expert has lifted the red block."""
FAST_SHARE: Final = 1.2
"""Speed that a joint reads, as a share of its limit."""


@dataclass(frozen=True)
class Case:
    """One way to bring the arm where it must not go."""

    name: str
    action_at: ActionAt
    spoil: Spoil | None = None
    """Fault of the joints' readings from `FAULT_MS` on."""
    is_pressing: bool = False
    """True if the fault begins when joint 2 stands still."""


@dataclass(frozen=True)
class EnvelopeResult:
    """Answer of the envelope to one case."""

    case: str
    simulator: str
    runs: int
    stopped: int
    """Number of runs that ended in SAFE and LATCHED."""
    safe_ms: tuple[float, float] | None
    """Time from the fault to SAFE, p50 and longest; `None` where nothing must stop the arm."""
    torque_gone_ms: tuple[float, float] | None
    """Time from the fault to a written torque of zero, p50 and longest."""
    least_room_rad: float
    """Least distance of a joint to its stop."""
    fastest_share: float
    """Largest speed of a joint, as a share of its limit."""
    largest_step_nm: float
    """Largest change of a written torque from one cycle to the next."""
    reasons: tuple[str, ...]
    """Reasons that the robot gave."""


class Spoiled:
    """Readings of the joints, spoiled from one instant on."""

    def __init__(self, spoil: Spoil, from_ms: int) -> None:
        self._spoil = spoil
        self._from_ms = from_ms
        self._good: Readings | None = None
        self.cycle = 0

    def __call__(self, readings: Readings) -> Readings:
        """Return the readings of this cycle."""
        self.cycle += 1
        position, velocity = (np.array(each) for each in readings)
        if self.cycle < self._from_ms or self._good is None:
            self._good = position, velocity
            return position, velocity
        return self._spoil((position, velocity), self._good, self.cycle - self._from_ms)


def _frozen(_: Readings, good: Readings, __: int) -> Readings:
    return good


def _frozen_position(now: Readings, good: Readings, _: int) -> Readings:
    return good[0], now[1]


def _drifting_position(now: Readings, _: Readings, cycles: int) -> Readings:
    return now[0] + np.eye(7)[0] * 0.5e-3 * cycles, now[1]


def _not_finite(now: Readings, _: Readings, __: int) -> Readings:
    return now[0], np.full(7, np.nan)


SENSORS: Final = {
    "readings frozen": _frozen,
    "positions frozen": _frozen_position,
    "position drifts by 0.5 rad/s": _drifting_position,
    "velocities NaN": _not_finite,
}


def _fast(joint: int, now: Readings, good: Readings, cycles: int) -> Readings:
    position, velocity = now
    velocity[joint] = FAST_SHARE * PANDA_LIMITS.speed_rad_s[joint]
    position[joint] = good[0][joint] + velocity[joint] * cycles * 1e-3
    return position, velocity


def run(
    simulator: SimulatorName, case: Case, phase_ms: int
) -> tuple[dict[str, float], str | None, bool]:
    """Drive one arm. Return its figures, the reason for its stop, and if it stopped."""
    clock = VirtualClock()
    robot = make_robot(simulator, "stacking", clock, seed=900_000)
    fault_ms = FAULT_MS + phase_ms
    torques: list[Array] = []
    readings: list[Readings] = []
    states: list[State] = []
    step, joints = robot.simulator.step, robot.simulator.joints

    def watched(torque_nm: Array, width_m: float | None) -> None:
        torques.append(np.array(torque_nm))
        readings.append(tuple(np.array(each) for each in joints()))  # type: ignore[arg-type]  # two
        states.append(robot.state)
        step(torque_nm, width_m)

    robot.simulator.step = watched  # type: ignore[method-assign]  # of this one simulator
    if case.spoil is not None:
        spoiled = Spoiled(case.spoil, fault_ms)
        robot.simulator.joints = lambda: spoiled(joints())  # type: ignore[method-assign]

    robot.arm()
    for tick in range(RUN_MS * MS // PERIOD_NS):
        observation = robot.observe()
        values = case.action_at(tick, robot)
        apply_at_ns = observation.stamp_ns + 25 * MS
        robot.command(Command(tick + 1, observation.sequence, apply_at_ns, 60 * MS, values))
        clock.advance_ns(PERIOD_NS)
        robot.advance()
    robot.close()

    written = np.array(torques)
    position = np.array([each[0] for each in readings])
    velocity = np.abs(np.array([each[1] for each in readings]))
    room = np.minimum(position - PANDA_LIMITS.low_rad, PANDA_LIMITS.high_rad - position)
    # Once it is latched, the simulated arm brakes itself, as a real one does.
    latched = states.index(State.LATCHED) if State.LATCHED in states else len(states)
    figures = {
        "room": float(room.min()),
        "share": float((velocity / PANDA_LIMITS.speed_rad_s).max()),
        "step": float(np.abs(np.diff(written[:latched], axis=0)).max()),
    }
    safe = [index for index, state in enumerate(states) if state in (State.SAFE, State.LATCHED)]
    if safe and (case.spoil is not None or case.is_pressing):
        if case.is_pressing:
            moving = np.flatnonzero(velocity[: safe[0], 1] >= STILL_RAD_S)
            fault_ms = int(moving[-1]) + 1
        figures |= {"safe": max(safe[0] - fault_ms, 0), "gone": latched - fault_ms}
    return figures, robot.stop_reason, bool(safe) and robot.state in STOPPED


def measure(case: Case, simulator: SimulatorName) -> EnvelopeResult:
    """Run one case in all phases."""
    runs = [run(simulator, case, phase) for phase in PHASES]
    figures = [figure for figure, _, _ in runs]

    def median_and_worst(name: str) -> tuple[float, float] | None:
        found = [each[name] for each in figures if name in each]
        return (float(np.median(found)), max(found)) if found else None

    return EnvelopeResult(
        case=case.name,
        simulator=simulator,
        runs=len(runs),
        stopped=sum(stopped for _, _, stopped in runs),
        safe_ms=median_and_worst("safe"),
        torque_gone_ms=median_and_worst("gone"),
        least_room_rad=min(each["room"] for each in figures),
        fastest_share=max(each["share"] for each in figures),
        largest_step_nm=max(each["step"] for each in figures),
        reasons=tuple(sorted({reason for _, reason, _ in runs if reason})),
    )


def _constant(torque_nm: Array) -> ActionAt:
    return lambda *_: np.append(torque_nm, 0.0)


def _turn(tick: int, _: SimulatedRobot) -> Array:
    return np.append(np.array(TURN_NM) * (1 if tick // 10 % 2 else -1), 0.0)


def _press_down(_: int, robot: SimulatedRobot) -> Array:
    """Push joint 2 down with 20 N·m, and hold the posture of all others."""
    position, velocity = robot.simulator.joints()
    held = 12.0 * (HELD_RAD - position) - 0.5 * velocity
    held[1] = 20.0
    return np.append(np.clip(held, -np.array(TORQUE_NM), TORQUE_NM), 0.0)


def _press_block(tick: int, robot: SimulatedRobot) -> Array:
    """Let the expert lift the red block, then press it down."""
    return robot.expert_action() if tick < HELD_BLOCK_TICKS else _press_down(tick, robot)


def cases() -> list[Case]:
    """Return all cases."""
    found = []
    for joint, torque in enumerate(TORQUE_NM):
        for sign, word in ((1.0, "up"), (-1.0, "down")):
            push = np.eye(7)[joint] * sign * torque
            name = f"joint {joint + 1} {word} with {torque:g} N·m"
            found.append(Case(name, _constant(push)))
    found += [
        Case("the hand onto the table with 20 N·m", _press_down, is_pressing=True),
        Case("a held block onto the table with 20 N·m", _press_block, is_pressing=True),
    ]
    found += [Case(name, _turn, spoil) for name, spoil in SENSORS.items()]
    found += [
        Case(f"joint {joint + 1} reads {FAST_SHARE} × its limit", _turn, partial(_fast, joint))
        for joint in range(len(TORQUE_NM))
    ]
    return found


class Motors(Driver):
    """An arm without physics that notes the torques which are written to it."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(PANDA, clock, limits=PANDA_LIMITS)
        self.position = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.8])
        self.velocity = np.zeros(7)
        self.written = np.zeros(7)
        self.largest_step_nm = 0.0

    def _advance(self, now_ns: int) -> None:
        before = self.written
        wanted = self._in_effect(now_ns)[:7] - 3.0 * self.velocity
        self.written = self._within_envelope(wanted, self.position, self.velocity, now_ns)
        step = float(np.abs(self.written - before).max())
        self.largest_step_nm = max(self.largest_step_nm, step)

    def _read(self) -> tuple[int, Sequence[Array]]:
        return self._clock.now_ns(), [self.position, self.velocity, np.zeros(1)]

    def close(self) -> None:
        """Do nothing: there is no arm."""


def largest_step_nm(cycles: int, seed: int) -> float:
    """Return the largest step of a written torque in random sequences of commands.

    Commands are legal and illegal, cycles up to 20 ms late, and the arm is armed and stopped at any
    instant.
    """
    draw, clock = np.random.default_rng(seed), VirtualClock()
    motors = Motors(clock)
    sequence = 0
    for _ in track(range(cycles), "random cycles"):
        late = draw.random() < LATE_SHARE
        clock.advance_ns(int(draw.integers(1, 20_000)) * 1_000 if late else MS)
        motors.velocity = draw.normal(0, 0.6, 7)
        motors.advance()
        chance = draw.random()
        if chance < 0.02:
            sequence += 1
            torque = draw.choice([draw.uniform(-30, 30), 1e6, -87.0, np.nan])
            values = np.append(draw.uniform(-1, 1, 7) * torque, 0.04)
            apply_at_ns = clock.now_ns() + int(draw.integers(0, 30)) * MS
            motors.command(Command(sequence, sequence, apply_at_ns, 60 * MS, values))
        elif chance < 0.023:
            motors.stop()
        elif chance < 0.03:
            motors.arm()
            sequence = 0
    return motors.largest_step_nm


def table_of(results: list[EnvelopeResult]) -> Table:
    """Return the results as a table."""
    table = Table(
        "case", "arm", "stopped", "SAFE, ms", "no torque, ms", "room rad", "speed", "step"
    )
    for each in results:
        table.add_row(
            each.case,
            each.simulator,
            f"{each.stopped} of {each.runs}",
            _times(each.safe_ms),
            _times(each.torque_gone_ms),
            f"{each.least_room_rad:.3f}",
            f"{each.fastest_share:.0%}",
            f"{each.largest_step_nm:.2f}",
        )
    return table


def _times(p50_and_max_ms: tuple[float, float] | None) -> str:
    return "–" if p50_and_max_ms is None else "{:.0f} / {:.0f}".format(*p50_and_max_ms)


def main() -> None:
    """Measure all cases in both simulators."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cycles", type=int, default=1_000_000)
    args = parser.parse_args()
    simulators: tuple[SimulatorName, ...] = ("mujoco", "pybullet")
    todo = [(case, simulator) for case in cases() for simulator in simulators]
    results = [measure(case, simulator) for case, simulator in track(todo, "cases")]
    Console(width=120).print(table_of(results))
    for each in results:
        for reason in each.reasons:
            print(f"{each.case}, {each.simulator}: {reason}")
    step_nm = largest_step_nm(args.cycles, seed=0)
    print(f"{args.cycles:,} random cycles: the largest step of a torque was {step_nm:.3f} N·m")
    if args.json:
        args.json.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
