"""An hour over a bad link: unexpected stops, unexplained misses, and the memory of both processes.

    python benchmarks/soak.py                                   # the hour of docs/soak.md
    python benchmarks/soak.py --seconds 60 --hogs-seconds 10    # a rehearsal, into runs/

Two real processes speak over TCP: `gatort robot mujoco --again` and `gatort run --until time`. The
link loses 1 % of the messages and adds up to 5 ms of jitter each way. Four processes that only
compute take the cores for ten minutes. A run that stops is started again as an operator would, with
new consent, and counted with its reason.

The recordings hold every tick, so each miss is attributed to the stage that took its time. A
computing witness runs beside both processes: its longest pause stands beside each stop. Exit status
1: a stop or a miss is unexplained, or memory grew.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from gatort.runtime.machine import this_machine
from gatort.runtime.recording.messages import TickMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.remote.link import RETRY_NS
from gatort.runtime.telemetry import Misses
from gatort.runtime.witness import WitnessReport
from gatort.runtime.witness_process import WitnessProcess
from gatort.runtime.wording import counted

HOGS = 4
SAMPLE_S = 10.0
"""Time between two samples of memory."""
TURN_S = 0.25
"""Time between two looks at the processes."""
SETTLED_S = 300.0
"""Time after which memory counts as settled; half of a shorter run."""
GROWTH = 0.05
"""Growth of memory that still counts as flat: caches and logs fill up once."""
PERIOD_NS = 50_000_000
LATE_WAKE_MS = 5.0
SLOW_MS = 20.0
"""Tokenizing, passes and guard take a third of this on an idle machine."""
PAUSE_MS = 20.0
"""Shortest pause of the witness that explains a skipped deadline."""
AROUND_NS = 1_000_000_000
"""Stretch of time before and after a tick in which a pause explains it."""
START_S, STOP_S = 60.0, 30.0
_LATE = "the loop woke late"
_PAUSED = "the machine paused a computation"
_PASSED, _OTHER = "deadline passed before the loop came to it", "other"
UNEXPLAINED = (_PASSED, _OTHER)
GATORT = (sys.executable, "-m", "gatort")


# -- Processes -------------------------------------------------------------------------------------


@contextmanager
def robot_process(
    args: argparse.Namespace, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `gatort robot`; yield it and its address. `log` gets a line for each change of state."""
    link = [
        "--loss",
        str(args.loss),
        "--jitter-ms",
        str(args.jitter_ms),
        "--link-seed",
        str(args.link_seed),
    ]
    command = [
        *GATORT,
        "robot",
        "mujoco",
        "--again",
        "--bind",
        "tcp://127.0.0.1:0",
        "--realtime",
        *link,
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output) as process,
    ):
        try:
            yield process, _address(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        if found := re.search(r"tcp://\S+:\d+", log.read_text()):
            return found.group().rstrip(",")
        time.sleep(0.1)
    raise SystemExit(f"the robot's process did not say where it listens: {log.read_text()!r}")


def start_run(address: str, seconds: float, report: Path) -> subprocess.Popen[bytes]:
    """Start `gatort run` for so long, with its summary and its recording beside each other."""
    command = [
        *GATORT,
        "run",
        "--profile",
        "realtime",
        "--threads",
        "1",
        "--robot",
        address,
        "--arm",
    ]
    files = [
        "--json",
        report,
        "--record",
        report.with_suffix(".mcap"),
        "--plot",
        report.with_suffix(".png"),
    ]
    until = ["--until", "time", "--seconds", f"{seconds:.2f}"]
    with report.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [*command, *until, *files], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def memory_mb(pid: int) -> float:
    """Return the MB in RAM of a process and its children; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    own_mb = int(found.group(1)) * 1024e-6 if found else 0.0
    return own_mb + sum(memory_mb(int(child)) for child in children)


class Hogs:
    """Processes that do nothing but compute, between two instants."""

    def __init__(self, begin_s: float, end_s: float) -> None:
        self.begin_s, self.end_s = begin_s, end_s
        self._processes: list[subprocess.Popen[bytes]] = []

    def watch(self, elapsed_s: float) -> None:
        """Start or end them."""
        due = self.begin_s <= elapsed_s < self.end_s
        if due and not self._processes:
            self._processes = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)
            ]
        elif not due:
            self.close()

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []


# -- The hour --------------------------------------------------------------------------------------


@dataclass
class Soak:
    """Samples and reports of one soak."""

    began_ns: int = 0
    """Start on the monotonic clock, which also stamps the recordings."""
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """Samples every ten seconds: elapsed s, robot's MB, controller's MB."""
    runs: list[Path] = field(default_factory=list)
    """Reports of the runs in order."""
    hogs_s: tuple[float, float] = (0.0, 0.0)


def soak(args: argparse.Namespace, folder: Path) -> Soak:
    """Run until the time is up."""
    middle_s = args.seconds / 2
    hogs = Hogs(middle_s - args.hogs_seconds / 2, middle_s + args.hogs_seconds / 2)
    seen = Soak(hogs_s=(hogs.begin_s, hogs.end_s))
    with robot_process(args, folder / "robot.log") as (robot, address), Progress() as progress:
        bar = progress.add_task("soak", total=args.seconds)
        began_s = time.monotonic()
        seen.began_ns = time.monotonic_ns()
        run: subprocess.Popen[bytes] | None = None
        sampled_s = -SAMPLE_S
        try:
            while (elapsed_s := time.monotonic() - began_s) < args.seconds or (
                run and run.poll() is None
            ):
                hogs.watch(elapsed_s)
                if (run is None or run.poll() is not None) and elapsed_s < args.seconds - 1:
                    seen.runs.append(folder / f"run{len(seen.runs):03d}.json")
                    run = start_run(address, args.seconds - elapsed_s, seen.runs[-1])
                if elapsed_s - sampled_s >= SAMPLE_S and run is not None:
                    sampled_s = elapsed_s
                    seen.memory.append((elapsed_s, memory_mb(robot.pid), memory_mb(run.pid)))
                progress.update(
                    bar, completed=elapsed_s, description=f"soak, {counted(len(seen.runs), 'run')}"
                )
                time.sleep(TURN_S)
        finally:
            hogs.close()
            if run is not None and run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.wait(STOP_S)
    return seen


# -- The findings ------------------------------------------------------------------------------


@dataclass
class Findings:
    """Figures and sentences of the report."""

    ticks: int = 0
    misses: int = 0
    """Number of misses that the runs counted."""
    late_ns: list[int] = field(default_factory=list)
    """Wake-up lateness of each tick, in ns."""
    late_hogged_ns: list[int] = field(default_factory=list)
    """Wake-up lateness of the ticks while the hogs ran, in ns."""
    causes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Misses by (cause, span)."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Refused ticks by (reason, span)."""
    stops: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    wires: list[dict[str, Any]] = field(default_factory=list)
    trials: tuple[int, int] = (0, 0)
    """Numbers of layouts stacked and of layouts given up."""


def find(seen: Soak, robot_log: str, witness: WitnessProcess) -> Findings:
    """Read the runs' reports and recordings, the robot's counters and the witness's pauses."""
    findings = Findings()
    if counted := re.findall(r"successes: (\d+), given up: (\d+)", robot_log):
        stacked, given_up = counted[-1]
        findings.trials = int(stacked), int(given_up)
    for number, report in enumerate(seen.runs):
        if not report.exists():
            log = report.with_suffix(".log").read_text(errors="replace").strip()
            findings.unexplained.append(
                f"run {number} left no report: {log.splitlines()[-1] if log else 'no output'}"
            )
            continue
        record = json.loads(report.read_text())
        findings.ticks += record["ticks"]
        findings.misses += record["misses"]
        findings.wires.append(record["wire"])
        last = _read_ticks(seen, report.with_suffix(".mcap"), findings, witness)
        if record["stopped"]:
            dropped_before = findings.wires[-2]["dropped"] if len(findings.wires) > 1 else 0
            _explain_stop(number, record, last, dropped_before, findings)
            findings.stops[-1] += (
                f"; longest pause nearby {pause_ms(witness, last[-1].deadline_ns):.0f} ms"
            )
    findings.unexplained += [
        f"{counted(count, 'miss', 'misses')}: {cause} ({span})"
        for (cause, span), count in findings.causes.items()
        if cause in UNEXPLAINED
    ]
    recorded = sum(findings.causes.values())
    if recorded != findings.misses:
        findings.unexplained.append(
            f"counted misses: {findings.misses}; the recordings show {recorded}"
        )
    return findings


def _span(seen: Soak, at_ns: int) -> str:
    elapsed_s = (at_ns - seen.began_ns) * 1e-9
    return "hogs" if seen.hogs_s[0] <= elapsed_s < seen.hogs_s[1] else "no hogs"


def pause_ms(witness: WitnessProcess, at_ns: int) -> float:
    """Return the witness's longest pause around an instant, in ms."""
    around = witness.between(at_ns - AROUND_NS, at_ns + AROUND_NS)
    return around.pause_ms if around is not None else 0.0


def _read_ticks(
    seen: Soak, path: Path, findings: Findings, witness: WitnessProcess
) -> list[TickMessage]:
    """Count a recording's ticks. Return its last ones."""
    ticks = [
        stamped.message
        for stamped in Recording(path).messages()
        if isinstance(stamped.message, TickMessage)
    ]
    misses = Misses(PERIOD_NS)
    for tick in ticks:
        span = _span(seen, tick.deadline_ns)
        late_ns = max(0, tick.lateness_ns)
        findings.late_ns.append(late_ns)
        if span == "hogs":
            findings.late_hogged_ns.append(late_ns)
        if skipped := misses.woke(tick.skipped):
            late = late_ns > LATE_WAKE_MS * 1e6 or span == "hogs"
            paused = pause_ms(witness, tick.deadline_ns) >= PAUSE_MS
            findings.causes[_LATE if late else _PAUSED if paused else _PASSED, span] += skipped
        if misses.ended(tick.took_ns):
            findings.causes[_cause(tick), span] += 1
        if tick.reason:
            findings.refused[f"{tick.reason}: {_cause(tick)}", span] += 1
    return ticks[-4:]


def _cause(tick: TickMessage) -> str:
    """Return the stage that took a tick's time; the stamps begin with reading the robot."""
    stamps_ms = (np.array(tick.stamps_ns) - tick.stamps_ns[0]) * 1e-6
    asked_ms = stamps_ms[1] if len(stamps_ms) > 1 else stamps_ms[-1]
    if len(stamps_ms) == 1:
        return "link: no answer to any request in time"
    if tick.lateness_ns > LATE_WAKE_MS * 1e6:
        return _LATE
    if stamps_ms[-1] - asked_ms > SLOW_MS:
        return "the policy computed long"
    if asked_ms > RETRY_NS * 1e-6:
        return "link: the observation was asked for again or came late"
    return _OTHER


def _explain_stop(
    number: int,
    record: dict[str, Any],
    last: list[TickMessage],
    dropped_before: int,
    findings: Findings,
) -> None:
    if record["failure"]:
        findings.stops.append(f"run {number} after {record['seconds']:.0f} s: {record['failure']}")
        findings.unexplained.append(findings.stops[-1])
        return
    reasons = [f"{tick.reason} ({_cause(tick)})" for tick in last if tick.reason]
    skipped = sum(tick.skipped for tick in last)
    why = "; ".join([*reasons, *([f"{counted(skipped, 'deadline')} skipped"] if skipped else [])])
    # Without a refused tick the robot's watchdog stopped it: commands did not come in time.
    dropped = record["wire"]["dropped"] - dropped_before
    explained = why or (f"watchdog, {counted(dropped, 'command')} came too late" if dropped else "")
    reason = explained or "watchdog, nothing tells why"
    findings.stops.append(f"run {number} after {record['seconds']:.0f} s: {reason}")
    if not explained:
        findings.unexplained.append(findings.stops[-1])


def _settled(
    seen: Soak, args: argparse.Namespace
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the memory (robot, controller) in MB once settled, and at the end."""
    rows = np.array([row for row in seen.memory if row[2] > 0])
    after = rows[rows[:, 0] >= min(SETTLED_S, args.seconds / 2)]
    return after[:6, 1:].max(axis=0), after[-6:, 1:].max(axis=0)


# -- The report ------------------------------------------------------------------------------------


def write_report(
    path: Path,
    seen: Soak,
    findings: Findings,
    pauses: WitnessReport | None,
    args: argparse.Namespace,
) -> bool:
    """Write the page and its picture. Return true if memory is flat and all is explained."""
    early_mb, late_mb = _settled(seen, args)
    flat = bool((late_mb <= early_mb * (1 + GROWTH)).all())
    trips = [wire["round_trip_ms"] for wire in findings.wires]
    picture = path.with_suffix(".png")
    draw(picture, seen, args)
    stacked, given_up = findings.trials
    growth = "flat" if flat else "it grew"
    rows = {
        "ticks": f"{findings.ticks:,} in {len(seen.runs)} run{'s' if len(seen.runs) > 1 else ''}",
        "blocks stacked": f"{stacked}, and {given_up} layouts given up after 20 s",
        "misses": str(findings.misses),
        "refused ticks": str(sum(findings.refused.values())),
        "stops, each re-armed": str(len(findings.stops)),
        "unexplained": str(len(findings.unexplained)),
        "asked again": f"{sum(wire['retries'] for wire in findings.wires):,} requests",
        "commands not applied": str(max(wire["dropped"] for wire in findings.wires)),
        "round trip, ms": " / ".join(
            f"{max(trip[q] for trip in trips):.2f}" for q in ("p50", "p99", "max")
        )
        + " (p50, p99, max; of several runs the largest)",
        "wake-up lateness, ms": _percentiles(findings.late_ns),
        "wake-up lateness under hogs, ms": _percentiles(findings.late_hogged_ns),
        "computing witness": _pauses(pauses),
        "memory of the robot": f"{early_mb[0]:.1f} → {late_mb[0]:.1f} MB",
        "memory of the controller": f"{early_mb[1]:.1f} → {late_mb[1]:.1f} MB ({growth})",
    }
    path.write_text(_page(args, rows, findings, picture), encoding="utf-8")
    return flat and not findings.unexplained


def _pauses(pauses: WitnessReport | None) -> str:
    if pauses is None:
        return "none ran"
    durations = f"p99 {pauses.p99_ms:.1f}, max {pauses.max_ms:.1f} ms"
    return f"{pauses.sentence} ({durations}, {pauses.periods:,} times)"


def _percentiles(durations_ns: list[int]) -> str:
    if not durations_ns:
        return "no tick"
    p50, p99, most = np.percentile(np.array(durations_ns) * 1e-6, (50, 99, 100))
    return f"{p50:.2f} / {p99:.2f} / {most:.2f} (p50, p99, max)"


def _page(args: argparse.Namespace, rows: dict[str, str], findings: Findings, picture: Path) -> str:
    command = (
        f"python benchmarks/soak.py --seconds {args.seconds:g} --hogs-seconds {args.hogs_seconds:g}"
    )
    return f"""# The soak

{args.seconds:.0f} s at 20 Hz over TCP: `gatort robot mujoco --again --realtime` and
`gatort run --until time`, {args.loss:.0%} loss and up to {args.jitter_ms:g} ms of jitter each way,
{HOGS} processes that take the cores for {args.hogs_seconds:.0f} s in the middle.
This command made the page:

    {command}

on {this_machine()}.

| | |
|---|---|
{_lines(f"| {name} | {value} |" for name, value in rows.items())}

The table compares memory {min(SETTLED_S, args.seconds / 2):.0f} s after the start and at the end.

![memory of both processes]({picture.name})

{_counts("misses", findings.causes, args.hogs_seconds)}
{_counts("refused ticks", findings.refused, args.hogs_seconds)}
## Stops

{_lines(f"- {stop}" for stop in findings.stops or ["none"])}

## Unexplained

{_lines(f"- {each}" for each in findings.unexplained or ["nothing"])}
"""


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _counts(title: str, counts: Counter[tuple[str, str]], hogs_seconds: float) -> str:
    if not counts:
        return f"No {title}.\n"
    names = sorted({name for name, _ in counts})
    rows = _lines(
        f"| {name} | {counts[name, 'hogs']} | {counts[name, 'no hogs']} |" for name in names
    )
    return f"| {title} | {hogs_seconds:.0f} s with hogs | the rest |\n|---|---:|---:|\n{rows}\n"


def draw(path: Path, seen: Soak, args: argparse.Namespace) -> None:
    """Draw the memory of both processes over time, with the hogs' span shaded."""
    from matplotlib.figure import Figure

    rows = np.array([row for row in seen.memory if row[2] > 0])
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(rows[:, 0] / 60, rows[:, 1], label="robot")
    axes.plot(rows[:, 0] / 60, rows[:, 2], label="controller")
    axes.axvspan(
        seen.hogs_s[0] / 60,
        seen.hogs_s[1] / 60,
        color="crimson",
        alpha=0.12,
        label=f"{HOGS} CPU hogs",
    )
    axes.set(xlim=(0, args.seconds / 60), ylim=(0, None), xlabel="minutes", ylabel="MB in RAM")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=90, format="png")


def main() -> int:
    """Soak, explain, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--hogs-seconds", type=float, default=600.0)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--jitter-ms", type=float, default=5.0)
    parser.add_argument("--link-seed", type=int, default=0)
    parser.add_argument(
        "--report", type=Path, help="docs/soak.md for the hour, runs/soak.md for less"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for the runs' reports, logs and recordings"
    )
    args = parser.parse_args()
    report: Path = args.report or Path("docs" if args.seconds >= 3600 else "runs", "soak.md")
    report.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with WitnessProcess() as witness:
            seen = soak(args, folder)
            findings = find(seen, (folder / "robot.log").read_text(), witness)
            pauses = witness.between(seen.began_ns, time.monotonic_ns())
        good = write_report(report, seen, findings, pauses, args)
    print(report.read_text())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
