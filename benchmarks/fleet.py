"""Many robots on one machine: `gatort serve`'s fleet against simulated arms, with bad ones among
them.

    python benchmarks/fleet.py --robots 16 --seconds 60 --json fleet.json
    python benchmarks/fleet.py --robots 16 --seconds 60 --bad        # and three that fail

The arms are MuJoCo's, behind the wire, in one process beside the fleet's. A computing witness runs
beside both. A missed tick counts as explained if the machine paused the witness in the second
around it. After the run, every tick of each robot is computed again by a policy that serves it
alone. Its tokens must be the same: no robot has changed another one's.

With `--bad`, three more robots take part. One is killed and one is stopped in the middle of the
run; the third sends random bytes by the hundred.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from gatort.launch.fleet_table import fleet_table
from gatort.launch.report import screen
from gatort.policies.loading import PolicyOptions, load_policies, quickest_cpu_engine
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.engines.turns import Turns
from gatort.runtime.fleet import Fleet, Member, MemberStatus
from gatort.runtime.grant import read_grant
from gatort.runtime.loop import TickRecord
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import ARM_PRIORITY, RealtimeConfig, apply
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.remote.transport import Connection
from gatort.runtime.remote.trial_keeper import TrialKeeper
from gatort.runtime.spec import select_keys
from gatort.runtime.witness_process import WitnessProcess
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks import task_named

HOST = "tcp://127.0.0.1"
FIRST_PORT = 5800
FIRST_SEED = 920_000
"""Seed of the first arm's first layout, of the validation range."""
LAYOUTS = 1000
"""Seeds from one arm's first layout to the next arm's."""
PAUSE_MS = 3.0
"""Shortest pause of the witness that explains a missed tick."""
AROUND_NS = 500_000_000
"""Stretch of time before and after a tick in which a pause explains it."""
GARBAGE_BYTES = 200
LIES_AFTER = 200
"""Answers after which the lying robot sends garbage."""
FLOOD = 300
"""Random frames for each answer of the lying robot."""


# -- Arms ------------------------------------------------------------------------------------------


class Turnless(RobotSocket):
    """A socket that never waits: one thread serves many of them."""

    def wait(self, longest_ms: int) -> None:
        """Return at once."""


class Lying(Turnless):
    """A socket that sends random bytes after a while."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._random = np.random.default_rng(0)
        self._answers = 0

    def send(self, connection: Connection, frame: bytes) -> None:
        """Send the answer, or garbage in its place."""
        self._answers += 1
        if self._answers <= LIES_AFTER:
            super().send(connection, frame)
            return
        for _ in range(FLOOD):
            super().send(connection, self._random.bytes(GARBAGE_BYTES))


def serve_arms(ports: Sequence[int], lying: int | None) -> None:
    """Let controllers drive an arm at each port, until a signal ends the process.

    An arm alone is a bad one, without real-time priority. Three more processes with one would take
    all that the kernel leaves to such threads, and it would halt them.
    """
    clock = MonotonicClock()
    task = task_named("stacking")
    servers = []
    for port in ports:
        seeds = count(FIRST_SEED + LAYOUTS * (port - FIRST_PORT))
        arm = make_robot("mujoco", task, clock, task.interface, next(seeds))
        trials = TrialKeeper(arm, clock, partial(_lay_out, arm, seeds), round(task.seconds * 1e9))
        transport = (Lying if port == lying else Turnless)(f"{HOST}:{port}")
        servers.append(
            RobotServer(arm, clock, transport, name=f"arm {port}", simulated=True, trials=trials)
        )
    for server in servers:
        server.turn()  # The time of the arms made after it.
    print("ready", flush=True)
    with apply(RealtimeConfig(fifo_priority=0 if len(ports) == 1 else None), ARM_PRIORITY):
        while True:
            for server in servers:
                server.turn()
            clock.sleep_until_ns(clock.now_ns() + 1_000_000)


def _lay_out(arm: SimulatedRobot, seeds: Iterator[int]) -> None:
    arm.lay_out(next(seeds))


def _start(ports: Sequence[int], lying: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--arms", *map(str, ports)]
    if lying is not None:
        command += ["--lying", str(lying)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"expected arms at the ports {list(ports)}, found none")
    return process


# -- The fleet -------------------------------------------------------------------------------------


@dataclass
class Trace:
    """Every tick of one robot."""

    robot: str
    seen: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    """Observed values of each tick that came to a decision."""
    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    sent: list[bool] = field(default_factory=list)
    """True where a command was sent, so that the frame stands in the context."""
    missed_ns: list[int] = field(default_factory=list)
    """Deadline of each tick without a command, and of each one that was skipped."""
    ticks: int = 0
    """Number of ticks that should have been."""

    def look(self, record: TickRecord) -> None:
        """Keep a tick."""
        self.ticks += 1 + record.wake.skipped
        late = record.wake.skipped + (record.command is None)
        self.missed_ns += [record.wake.deadline_ns] * late
        if record.decision is not None and record.observation is not None:
            self.seen.append(record.observation.values)
            self.tokens.append(record.decision.tokens)
            self.sent.append(record.command is not None)


@dataclass(frozen=True)
class Row:
    """Result of one robot."""

    robot: str
    state: str
    reason: str | None
    ticks: int
    missed: int
    """Number of ticks without a command."""
    unexplained: int
    """Number of these without a pause of the machine around them."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    equal: int
    """Number of ticks whose tokens are those of a policy that serves this robot alone."""
    decided: int
    """Number of ticks that came to a decision."""


def _same(trace: Trace, policy: Policy) -> int:
    """Compute a robot's ticks again, alone. Return how many have the same tokens."""
    selection = select_keys(policy.spec, task_named("stacking").interface)
    policy.reset()
    same = 0
    for values, tokens, sent in zip(trace.seen, trace.tokens, trace.sent, strict=True):
        decision = policy.decide(selection.select(values))
        same += int((decision.tokens == tokens).all())
        if sent:
            policy.commit()
    return same


def _row(trace: Trace, status: MemberStatus, witness: WitnessProcess, policy: Policy) -> Row:
    return Row(
        robot=trace.robot,
        state=str(status.state) if status.state is not None else "away",
        reason=status.reason,
        ticks=trace.ticks,
        missed=len(trace.missed_ns),
        unexplained=sum(not _paused(witness, at_ns) for at_ns in trace.missed_ns),
        p50_ms=status.tick.p50_ms,
        p99_ms=status.tick.p99_ms,
        max_ms=status.tick.max_ms,
        equal=_same(trace, policy),
        decided=len(trace.seen),
    )


def _paused(witness: WitnessProcess, at_ns: int) -> bool:
    report = witness.between(at_ns - AROUND_NS, at_ns + AROUND_NS)
    return report is not None and report.pause_ms >= PAUSE_MS


def measure(args: argparse.Namespace) -> list[Row]:
    """Drive the robots and return a row for each."""
    clock = MonotonicClock()
    ports = list(range(FIRST_PORT, FIRST_PORT + args.robots))
    bad = list(range(ports[-1] + 1, ports[-1] + 4)) if args.bad else []
    traces = [Trace(f"{HOST}:{port}") for port in ports + bad]

    options = PolicyOptions(bundle=args.bundle, engine=args.engine, threads=1)
    turns = Turns(read_grant().processors, clock)
    *policies, (alone, _) = load_policies(options, len(traces) + 1, turns)
    period_ns = alone.spec.period_ns
    members = [
        Member(
            trace.robot,
            policy,
            engine,
            partial(RemoteRobot, trace.robot, clock),
            clock,
            phase_ns=period_ns * index // len(traces),
            consent=True,
            on_tick=trace.look,
        )
        for index, (trace, (policy, engine)) in enumerate(zip(traces, policies, strict=True))
    ]
    fleet = Fleet(members)
    processes = [_start(ports[::2]), _start(ports[1::2])]
    processes += [_start([port], lying=bad[-1]) for port in bad]
    try:
        with WitnessProcess() as witness:
            with fleet.driven():
                began_s = time.process_time()
                _pass_time(clock, args.seconds, processes[2:])
                used_s = time.process_time() - began_s
                statuses = fleet.statuses
            shown = screen()
            shown.print(fleet_table(statuses))
            ticks = sum(status.ticks for status in statuses)
            shown.print(
                f"{1e3 * used_s / ticks:.2f} ms of processor time a tick, "
                f"{used_s / args.seconds:.2f} processors in all"
            )
            return [
                _row(trace, status, witness, alone)
                for trace, status in track(
                    list(zip(traces, statuses, strict=True)), "computing again", transient=True
                )
            ]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _pass_time(clock: Clock, seconds: float, bad: Sequence[subprocess.Popen[str]]) -> None:
    """Wait, and kill one robot and stop another one in the middle."""
    half_ns = round(seconds * 5e8)
    clock.sleep_until_ns(clock.now_ns() + half_ns)
    if bad:
        bad[0].send_signal(signal.SIGKILL)
        bad[1].send_signal(signal.SIGSTOP)
    clock.sleep_until_ns(clock.now_ns() + half_ns)


def main() -> None:
    """Serve arms, or measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", type=int, default=16, help="robots that must go on")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bad", action="store_true", help="three more robots that fail")
    parser.add_argument("--bundle", type=Path, default=PolicyOptions().bundle)
    parser.add_argument("--engine", default=quickest_cpu_engine())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arms", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--lying", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arms:
        serve_arms(args.arms, args.lying)
        return

    rows = measure(args)
    table = Table(title=f"{args.robots} robots, {args.seconds:g} s, {this_machine()}")
    for name in ("robot", "state", "ticks", "missed", "unexplained", "p99 ms", "as alone"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            row.robot.removeprefix("tcp://"),
            row.state,
            str(row.ticks),
            str(row.missed),
            str(row.unexplained),
            f"{row.p99_ms:.1f}",
            f"{row.equal} of {row.decided}",
        )
    screen().print(table)
    good = rows[: args.robots]
    ticks = sum(row.ticks for row in good)
    unexplained = sum(row.unexplained for row in good)
    print(
        f"{args.robots} robots: {ticks} ticks, {sum(row.missed for row in good)} missed, "
        f"{unexplained} of them unexplained ({100 * unexplained / ticks:.3f} %); "
        f"{sum(row.equal for row in good)} of {sum(row.decided for row in good)} ticks as alone"
    )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
