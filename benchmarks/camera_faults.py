"""Time the reaction to each fault of a camera: a stream on this machine, a live loop, a table.

    python benchmarks/camera_faults.py --times 20 --json runs/camera_faults.json

A server on 127.0.0.1 sends numbered JPEGs at 30 Hz. A control loop at 20 Hz drives a scripted arm
that has this camera. In the middle of each run the stream fails. Every time counts from the instant
at which the first faulty frame was due. Exit status 1: a fault was not noticed, or an arm did not
stay latched after the camera had come back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gatort.faults.mjpeg_server import STREAM_FAULTS, MjpegServer, StreamFault
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.loop import TickRecord
from gatort.runtime.machine import this_machine
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import CameraFault
from gatort.runtime.robots.cameras.opencv import encode
from gatort.runtime.robots.cameras.process import CameraProcess
from gatort.runtime.robots.cameras.rig import CameraRig, CameraRobot
from gatort.runtime.robots.panda import PANDA
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec
from gatort.runtime.telemetry import Telemetry
from gatort.testing import scripted_policy

MS = 1_000_000
GOOD_TICKS = 8
MOST_TICKS = 60
MOST_TRIES = 10
"""Tries of one injection. A pause of the machine can stop the arm before the fault."""
PATIENCE_NS = 10_000 * MS
"""Longest wait for the camera's return, and for the arm's rest."""
STEP_NS = 5 * MS
FRAME_SIZE = (480, 640)
BOUND_MS = 100.0
"""Two ticks."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault in one run."""

    fault: StreamFault
    named: CameraFault | None
    """Status of the camera at the first refusal; `None` if nothing was refused."""
    refused_ms: float | None
    """Time to the first refused observation."""
    latched_ms: float | None
    """Time until the safe command was in effect for good."""
    good_again_ms: float | None
    """Time from the end of the fault to the next good picture."""
    stays_latched: bool
    """True if the arm was still latched after the camera had come back."""
    late_wake_ms: float
    """Lateness of the loop's latest wake-up, in which this machine paused."""


class Run:
    """A loop that drives an arm while its camera fails."""

    def __init__(self, server: MjpegServer, camera: CameraProcess, clock: MonotonicClock) -> None:
        self._server = server
        self._camera = camera
        self._clock = clock
        self._named: CameraFault | None = None
        self._refused_ns = 0
        self._latched_ns = 0
        self._late_ns = 0
        self._ticks = 0

    def inject(self, fault: StreamFault, after: int, phase_ns: int) -> Injection | None:
        """Drive, let the stream fail, and let it recover.

        Returns:
            The times, or `None` if a pause of the machine stopped the arm before the fault.
        """
        spec = PolicySpec(**PANDA.model_dump(), window_frames=1)
        arm = ScriptedRobot(spec, self._clock)
        arm.on_step = self._step
        robot = CameraRobot(arm, CameraRig(spec, [self._camera]))
        action = [(actuator.low + 3 * actuator.high) / 4 for actuator in spec.actuators]
        policy = scripted_policy(robot.interface, [action])
        telemetry = Telemetry(policy.spec, MOST_TICKS, self._clock)
        loop = policy.control(robot, self._clock, telemetry=telemetry)
        self._clock.sleep_until_ns(self._clock.now_ns() + phase_ns)

        loop.run(MOST_TICKS, lambda record: self._look(record, fault, after))
        began_ns = self._server.began_ns
        self._rest(arm)
        self._server.fault = "none"
        good_ns = self._wait_for_good()
        if self._ticks < after:
            return None
        stays = arm.state is State.LATCHED and loop.guard.state is not State.RUN
        return Injection(
            fault,
            self._named,
            (self._refused_ns - began_ns) / MS if self._refused_ns else None,
            (self._latched_ns - began_ns) / MS if self._latched_ns else None,
            good_ns / MS if good_ns is not None else None,
            stays,
            self._late_ns / MS,
        )

    def _look(self, record: TickRecord, fault: StreamFault, after: int) -> None:
        self._ticks += 1
        self._late_ns = max(self._late_ns, record.wake.lateness_ns)
        if self._ticks == after:
            self._server.fault = fault
        if record.refusal is not None and not self._refused_ns:
            self._refused_ns = self._clock.now_ns()
            self._named = self._camera.status.fault

    def _step(self, at_ns: int, state: State, _: object) -> None:
        if state is State.LATCHED and not self._latched_ns:
            self._latched_ns = at_ns

    def _rest(self, arm: ScriptedRobot) -> None:
        until_ns = self._clock.now_ns() + PATIENCE_NS
        while arm.state is not State.LATCHED and self._clock.now_ns() < until_ns:
            self._clock.sleep_until_ns(self._clock.now_ns() + STEP_NS)
            arm.advance()

    def _wait_for_good(self) -> int | None:
        """Return the time until the camera's next good picture."""
        began_ns = self._clock.now_ns()
        shown = self._camera.status.frames
        while (now_ns := self._clock.now_ns()) < began_ns + PATIENCE_NS:
            status = self._camera.status
            if status.fault is None and status.frames > shown + 2:
                return now_ns - began_ns
            self._clock.sleep_until_ns(now_ns + STEP_NS)
        return None


def frames(count: int) -> list[bytes]:
    """Return JPEGs of a noisy picture, as a camera's are, that differ from each other."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count, *FRAME_SIZE, 3), np.uint8) // 8
    return [encode(each + np.uint8(100), ".jpg") for each in noise]


def inject_all(times: int, seed: int, latency_ms: float) -> list[Injection]:
    """Inject each fault `times` times at a random phase of the loop."""
    random = np.random.default_rng(seed)
    clock = MonotonicClock()
    other = encode(np.zeros((240, 320, 3), np.uint8), ".jpg")
    found = []
    with MjpegServer(frames(12), other, clock) as server:
        camera = CameraProcess(
            "front", CameraConfig(source=server.url, latency_ms=latency_ms), clock
        )
        camera.wait()
        faults = [fault for fault in STREAM_FAULTS for _ in range(times)]
        for fault in track(faults, description="injections", console=Console(stderr=True)):
            after = GOOD_TICKS + int(random.integers(6))
            phase_ns = int(random.integers(50 * MS))
            runs = (Run(server, camera, clock) for _ in range(MOST_TRIES))
            injections = (run.inject(fault, after, phase_ns) for run in runs)
            injected = next((each for each in injections if each is not None), None)
            if injected is None:
                sys.exit(
                    f"expected the arm to run until the fault, found it stopped in {MOST_TRIES} of "
                    f"{MOST_TRIES} tries: end what else computes on this machine"
                )
            found.append(injected)
        camera.close()
    return found


def table(injections: Sequence[Injection]) -> Table:
    """Lay out the injections, one row per fault."""
    made = Table(title=f"{this_machine()}; p50 / max in ms", title_justify="left")
    for column in ("fault", "detected as", "refused", "safe for good", "good again", "in 100 ms",
                   "stays latched", "late wake-up", "n"):  # fmt: skip
        made.add_column(column)
    for fault in STREAM_FAULTS:
        rows = [each for each in injections if each.fault == fault]
        names = dict.fromkeys(str(each.named) for each in rows)
        in_time = sum((each.refused_ms or np.inf) <= BOUND_MS for each in rows)
        made.add_row(
            fault,
            ", ".join(names),
            _cell(each.refused_ms for each in rows),
            _cell(each.latched_ms for each in rows),
            _cell(each.good_again_ms for each in rows),
            str(in_time),
            str(sum(each.stays_latched for each in rows)),
            f"{max(each.late_wake_ms for each in rows):.0f}",
            str(len(rows)),
        )
    return made


def _cell(times_ms: Iterable[float | None]) -> str:
    known = [each for each in times_ms if each is not None]
    return f"{median(known):.0f} / {max(known):.0f}" if known else "–"


def main() -> int:
    """Inject, print the table, and write the injections."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="injections of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--latency-ms", type=float, default=CameraConfig(source="file:-").latency_ms
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    injections = inject_all(arguments.times, arguments.seed, arguments.latency_ms)
    Console(width=150).print(table(injections))
    if arguments.json is not None:
        record = {
            "machine": asdict(this_machine()),
            "latency_ms": arguments.latency_ms,
            "injections": [asdict(each) for each in injections],
        }
        arguments.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return int(not all(each.refused_ms and each.stays_latched for each in injections))


if __name__ == "__main__":
    sys.exit(main())
