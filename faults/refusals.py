"""Commands that must be refused before anything moves."""

from __future__ import annotations

import subprocess

from gatort.runtime.exit_status import ExitStatus

from .bench import Bench
from .judging import InjectionResult, words
from .run_process import END_S, GATORT


def refusal(bench: Bench, expected: tuple[str, ...], command: list[str]) -> InjectionResult:
    """Check that a command exits with 2 and these words, and that the arm was not armed."""
    arm = bench.arm
    began_ns = bench.clock.now_ns()
    done = subprocess.run(
        [*GATORT, *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=END_S,
        check=False,
    )
    took_ms = (bench.clock.now_ns() - began_ns) * 1e-6

    wrong = None
    missing = [word for word in expected if word not in done.stderr]
    if done.returncode != ExitStatus.REFUSED or missing:
        found = f"{done.returncode}: {done.stderr.strip()[-300:]}"
        wrong = f"expected exit {ExitStatus.REFUSED} and {', '.join(expected)}, found {found}"
    moved = arm.trace.since(began_ns)
    if len(moved.sequence) != 1 or moved.fault():
        wrong = f"the arm changed its state: {words(moved.sequence)}"
    return InjectionResult(took_ms, None, wrong)


def run_on(bench: Bench) -> list[str]:
    """Return a `gatort run` command on the bench's arm."""
    plot = str(bench.folder / "none.png")
    return ["run", "--robot", bench.arm.endpoint, "--arm", "--seconds", "1", "--plot", plot]
