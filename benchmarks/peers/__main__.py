"""The same ticks through gatort and its peers, in turns: python benchmarks/peers --peers-python .venv-peers/bin/python.

Every engine runs in a process of its own, with the best of the settings that its module names; those in a group (one
size, one precision) are timed in random order, three times. Writes JSON and the table in docs/peers.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import get_args

from llama import write_checkpoints
from process import Process, prepare
from rich.progress import Progress
from table import Result, equal_share, write_page
from work import PREFILLS, SIZES, Precision

from gatort.export.roofline.rates import measure_cpu
from gatort.runtime.machine import this_machine

ENGINES = ("gatort", "gatort_onnx", "transformers", "transformers_compiled", "genai", "openvino")
REPEATS = 3
ROOT = Path(__file__).parents[2]
SEED = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to time, where, with which interpreters, for how long."""

    folder: Path
    peers_python: str
    sizes: list[str]
    engines: list[str]
    trial_s: float
    turn_s: float

    def python(self, engine: str) -> str:
        """This one for gatort; the peers' packages are in an environment of their own."""
        return sys.executable if engine.startswith("gatort") else self.peers_python

    @property
    def groups(self) -> list[tuple[str, Precision]]:
        """Sizes and precisions whose engines are compared."""
        return [(size, precision) for size in self.sizes for precision in get_args(Precision)]

    @property
    def steps(self) -> int:
        """Of the progress bar."""
        return len(self.sizes) + len(self.groups) * len(self.engines) * (
            2 + REPEATS * len(PREFILLS)
        )


def best_process(plan: Plan, engine: str, folder: Path, precision: Precision) -> Process:
    """The engine, loaded with whichever of its settings runs fastest; the others are ended."""
    best, best_ms = None, float("inf")
    for settings in Process.choices(plan.python(engine), engine, folder, precision):
        process = Process(plan.python(engine), engine, folder, precision, settings)
        # A low quantile, because others' work on this machine only ever adds.
        tick_ms = quantiles(process.time(max(PREFILLS), plan.trial_s).ticks_ms, n=10)[0]
        if tick_ms < best_ms:
            best, process, best_ms = process, best, tick_ms
        if process is not None:
            process.end()
    if best is None:
        raise SystemExit(f"{engine} names no settings")
    return best


def time_group(plan: Plan, size: str, precision: Precision, progress: Progress) -> list[Result]:
    """Choose each engine's settings, then let them take turns."""
    task, folder = progress.task_ids[0], plan.folder / size
    processes: list[Process] = []
    for engine in plan.engines:
        progress.update(task, description=f"{size} {precision}: {engine}")
        prepare(plan.python(engine), engine, folder, precision)
        progress.advance(task)
        processes.append(best_process(plan, engine, folder, precision))
        progress.advance(task)
    results = {
        (process.engine, prefill): Result(
            size, precision, prefill, process.engine, process.settings, []
        )
        for process in processes
        for prefill in PREFILLS
    }
    progress.update(task, description=f"{size} {precision}: in turns")
    for _ in range(REPEATS):
        for process, prefill in shuffled(
            [(process, prefill) for process in processes for prefill in PREFILLS]
        ):
            results[process.engine, prefill].runs.append(process.time(prefill, plan.turn_s))
            progress.advance(task)
    for process in processes:
        process.end()
    return list(results.values())


def shuffled(turns: list[tuple[Process, int]]) -> list[tuple[Process, int]]:
    """In another order each time."""
    return random.sample(turns, len(turns))


def run(plan: Plan) -> list[Result]:
    """Everything, with a bar."""
    shutil.rmtree(plan.folder, ignore_errors=True)
    results: list[Result] = []
    with Progress() as progress:
        task = progress.add_task("checkpoints", total=plan.steps)
        for size in plan.sizes:
            write_checkpoints(SIZES[size], plan.folder / size)
            progress.advance(task)
        for size, precision in plan.groups:
            results += time_group(plan, size, precision, progress)
    return results


def agrees(result: Result, results: list[Result]) -> bool:
    """Whether a float32 engine gives gatort's tokens; int8 engines round differently."""
    if result.precision != "fp32":
        return True
    same = [other for other in results if other.engine == "gatort" and other.group == result.group]
    return all(equal_share(result, other) == 1.0 for other in same)


def main() -> None:
    """Measure, write JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", default=".venv-peers/bin/python")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "peers")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "peers.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "peers.md")
    parser.add_argument("--trial-s", type=float, default=0.7)
    parser.add_argument("--turn-s", type=float, default=1.5)
    args = parser.parse_args()
    random.seed(SEED)
    plan = Plan(args.folder, args.peers_python, args.sizes, args.engines, args.trial_s, args.turn_s)
    results = run(plan)
    rate, machine = measure_cpu(), str(this_machine())
    args.json.write_text(json.dumps([asdict(result) for result in results]) + "\n")
    write_page(args.page, results, rate.rates.read_bytes_s, machine)
    print(args.page.read_text())
    if different := [result.engine for result in results if not agrees(result, results)]:
        sys.exit(f"float32 engines that give other tokens than gatort: {different}")


if __name__ == "__main__":
    main()
