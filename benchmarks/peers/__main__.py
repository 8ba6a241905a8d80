"""Time the same ticks through gatort and its peers, in turns.

    python benchmarks/peers --peers-python .venv-peers/bin/python

Every engine runs in a process of its own, with the fastest of the settings that its module names.
The engines of a group (one size, one precision) are timed in random order, three times. The results
go to a JSON file and to docs/peers.md.
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
    """Sizes and engines to time, with folder, interpreter and durations."""

    folder: Path
    """Folder for checkpoints."""
    peers_python: str
    """Interpreter of the environment that holds the peers' packages."""
    sizes: list[str]
    """Sizes to time."""
    engines: list[str]
    """Engines to time."""
    trial_s: float
    """Time of a trial of one setting."""
    turn_s: float
    """Time of a turn."""

    def python(self, engine: str) -> str:
        """Return the interpreter of an engine: this one for gatort."""
        return sys.executable if engine.startswith("gatort") else self.peers_python

    @property
    def groups(self) -> list[tuple[str, Precision]]:
        """Sizes and precisions within which engines are compared."""
        return [(size, precision) for size in self.sizes for precision in get_args(Precision)]

    @property
    def steps(self) -> int:
        """Number of steps of the progress bar."""
        per_engine = 2 + REPEATS * len(PREFILLS)
        return len(self.sizes) + len(self.groups) * len(self.engines) * per_engine


def best_process(plan: Plan, engine: str, folder: Path, precision: Precision) -> Process:
    """Return the engine, loaded with the fastest of its settings; end the others.

    Raises:
        SystemExit: the engine's module names no settings.
    """
    best: Process | None = None
    best_ms = float("inf")
    for settings in Process.choices(plan.python(engine), engine, folder, precision):
        process = Process(plan.python(engine), engine, folder, precision, settings)
        # A low quantile, because other programs on this machine only add time.
        tick_ms = quantiles(process.time(max(PREFILLS), plan.trial_s).ticks_ms, n=10)[0]
        if tick_ms >= best_ms:
            process.end()
            continue
        if best is not None:
            best.end()
        best = process
        best_ms = tick_ms

    if best is None:
        raise SystemExit(f"{engine}: expected settings to try, its module names none")
    return best


def time_group(plan: Plan, size: str, precision: Precision, progress: Progress) -> list[Result]:
    """Choose each engine's settings, then let them take turns."""
    task = progress.task_ids[0]
    folder = plan.folder / size
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
    turns = [(process, prefill) for process in processes for prefill in PREFILLS]
    progress.update(task, description=f"{size} {precision}: in turns")
    for _ in range(REPEATS):
        for process, prefill in shuffled(turns):
            results[process.engine, prefill].runs.append(process.time(prefill, plan.turn_s))
            progress.advance(task)

    for process in processes:
        process.end()
    return list(results.values())


def shuffled(turns: list[tuple[Process, int]]) -> list[tuple[Process, int]]:
    """Return the turns in a random order."""
    return random.sample(turns, len(turns))


def run(plan: Plan) -> list[Result]:
    """Time all groups and show a progress bar."""
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
    """Return true if a float32 engine gives gatort's tokens; int8 engines round differently."""
    if result.precision != "fp32":
        return True
    same = [other for other in results if other.engine == "gatort" and other.group == result.group]
    return all(equal_share(result, other) == 1.0 for other in same)


def main() -> None:
    """Measure, write JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--peers-python", default=".venv-peers/bin/python", help="interpreter of the peers")
    option("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="sizes to time")
    option("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="engines to time")
    option("--folder", type=Path, default=ROOT / "runs" / "peers", help="folder for checkpoints")
    option("--json", type=Path, default=ROOT / "runs" / "peers.json", help="file for the figures")
    option("--page", type=Path, default=ROOT / "docs" / "peers.md", help="page to write")
    option("--trial-s", type=float, default=0.7, help="time of a trial of one setting, in s")
    option("--turn-s", type=float, default=1.5, help="time of a turn, in s")
    args = parser.parse_args()

    random.seed(SEED)
    plan = Plan(args.folder, args.peers_python, args.sizes, args.engines, args.trial_s, args.turn_s)
    results = run(plan)
    rate = measure_cpu()
    args.json.write_text(json.dumps([asdict(result) for result in results]) + "\n")
    write_page(args.page, results, rate.rates.read_bytes_s, str(this_machine()))
    print(args.page.read_text())

    different = [result.engine for result in results if not agrees(result, results)]
    if different:
        sys.exit(f"expected gatort's tokens of all float32 engines, found others of {different}")


if __name__ == "__main__":
    main()
