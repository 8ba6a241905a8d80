"""Time Stop on a page of the console, and the loop's ticks beside pages that do not read.

    python -m benchmarks.console --json runs/console.json

A `gatort run --console` drives a simulated arm in a process of its own. Stop is pressed by a
mouse click in headless Chromium, where that is installed, and then over a WebSocket without a
browser. The time ends with the first step of the arm's inner loop that is in SAFE. Then runs go on
for a while without a console, with one, and with one that has 100 pages which never read.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from tests.console.chromium import DESK, PROGRAM, Page, chromium
from tests.console.visitor import Visitor

from gatort.faults.bench import Bench
from gatort.faults.drive import EndedEarlyError
from gatort.faults.run_process import RunProcess, running
from gatort.runtime.errors import RobotError
from gatort.runtime.machine import this_machine
from gatort.runtime.safety import State

MS: Final = 1_000_000
SLOW_PAGES: Final = 100
MOST_VOID: Final = 10
Found = TypeVar("Found")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=40, help="0 for the ticks alone")
    parser.add_argument("--seconds", type=float, default=40.0, help="duration of each run of ticks")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    report: dict[str, Any] = {"machine": asdict(this_machine())}
    with tempfile.TemporaryDirectory() as folder, Bench() as bench, ExitStack() as stack:
        page = stack.enter_context(chromium(Path(folder))) if PROGRAM is not None else None
        for name, pressed in {"click": page, "socket": None}.items():
            if args.stops and (name == "socket" or page is not None):
                report[name] = stop_times(bench, pressed, args.stops)
                print(name, json.dumps(report[name]), flush=True)
        for name, pages in (
            ("without a console", None),
            ("no page", 0),
            ("slow pages", SLOW_PAGES),
        ):
            figures, void = tried(partial(ticks, bench, pages, args.seconds))
            report[name] = figures | {"void": void}
            print(name, json.dumps(report[name]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def stop_times(bench: Bench, page: Page | None, stops: int) -> dict[str, Any]:
    """Press Stop `stops` times, each in a run of its own, and time the arm's way to SAFE."""
    rng = np.random.default_rng(0)
    void = 0
    times: list[tuple[float, float]] = []
    for _ in range(stops):
        found, failed = tried(lambda: _stop_time(bench, page, rng.uniform(300, 350)))
        times.append(found)
        void += failed
    to_safe_ms, to_latched_ms = zip(*times, strict=True)
    return {
        "stops": stops,
        "void": void,
        "to_safe_ms": spread(to_safe_ms),
        "to_latched_ms": spread(to_latched_ms),
    }


def _stop_time(bench: Bench, page: Page | None, wait_ms: float) -> tuple[float, float]:
    """Return the times from Stop in one run to SAFE and to LATCHED, in ms."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder(), options=["--console"]) as run:
        with _pressing(url_of(bench, run), page) as press:
            bench.wait_for_motion(arm, run)
            bench.wait(round(wait_ms * MS))  # Anywhere within a tick.
            asked_ns = bench.clock.now_ns()
            press()
            arm.rest()
        run.process.wait(30)
    trace = arm.trace.since(asked_ns)
    safe_ns = trace.first(State.SAFE, State.LATCHED)
    latched_ns = trace.first(State.LATCHED)
    if safe_ns is None or latched_ns is None:
        raise SystemExit(f"the arm did not stop; the run said: {run.said[-400:]}")
    return (safe_ns - asked_ns) / MS, (latched_ns - asked_ns) / MS


def tried(measure: Callable[[], Found]) -> tuple[Found, int]:
    """Measure until no run ends early, because the machine was busy. Return the failures as well.

    A busy machine delays an observation, and after two of them the guard stops the run.
    """
    for void in range(MOST_VOID):
        try:
            return measure(), void
        except (RobotError, EndedEarlyError) as error:
            print(f"void: {str(error)[-200:]}", flush=True)
    raise SystemExit(f"{MOST_VOID} runs ended early: this machine is too busy")


def spread(values_ms: Sequence[float]) -> dict[str, float]:
    """Return the median, the 90th percentile and the largest value."""
    p50, p90, longest = np.percentile(values_ms, [50, 90, 100], method="inverted_cdf").tolist()
    return {"p50": p50, "p90": p90, "max": longest}


@contextmanager
def _pressing(url: str, page: Page | None) -> Iterator[Callable[[], object]]:
    """Open the console, and yield a function that presses Stop."""
    if page is not None:
        page.show(DESK)
        page.open(url)
        page.wait("document.getElementById('stop') !== null && socket?.readyState === 1")
        place = page.middle("#stop")
        yield lambda: page.click_at(*place)
        return
    visitor = Visitor(url)
    visitor.enter()
    with visitor.live() as socket:
        yield lambda: socket.send("stop")


def ticks(bench: Bench, pages: int | None, seconds: float) -> dict[str, Any]:
    """Run for a while beside pages that never read, and return the figures of the ticks."""
    arm = bench.arm
    options = [] if pages is None else ["--console"]
    with (
        running(arm.endpoint, bench.new_folder(), options=options) as run,
        ExitStack() as stack,
    ):
        if pages:
            visitor = Visitor(url_of(bench, run))
            visitor.enter()
            for _ in range(pages):
                stack.enter_context(visitor.deaf())
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait(round(seconds * 1e9))
        bench.stop_run(arm, run, armed_ns)
        report = json.loads((run.folder / "run.json").read_text())
    keys = ("ticks", "misses", "refused", "rate_hz")
    return {key: report[key] for key in keys} | {
        "tick_ms": report["latency_ms"]["tick"],
        "console": report.get("console"),
    }


def url_of(bench: Bench, run: RunProcess) -> str:
    """Return the URL that a run has printed."""
    while (found := re.search(r"console: (http://\S+)", run.said)) is None:
        if not run.alive:
            raise SystemExit(f"the run ended: {run.said[-400:]}")
        bench.wait(5 * MS)
    return found[1]


if __name__ == "__main__":
    main()
