"""Run the `gpu` tests, then time every size, precision, engine and decoding that takes a GPU.

    python benchmarks/gpu.py --out runs/gpu

Each row is a `gatort profile`, paced at 20 Hz and flat out. It runs in a process of its own, since
a CUDA error ends its process. The share of the bandwidth is that of greedy passes. Observations are
random: only the policy is timed. If an engine fails, its own words stand in the table. Rows are
kept in OUT as they come. The same command continues with the rows that are missing or failed, and
writes OUT/gpu.md at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

PRESETS = ("gato-79m", "gato-364m", "gato-1.2b")
ENGINES = (
    ("torch-cuda", "fp16", "greedy"),
    ("torch-cuda", "fp16", "exact"),
    ("torch-cuda", "fp16", "parallel"),
    ("torch-cuda", "fp32", "greedy"),
    ("onnx-cuda", "fp32", "greedy"),
    ("onnx-cuda", "fp32", "exact"),
    ("onnx-tensorrt", "fp32", "greedy"),
    *(
        (builder, precision, "greedy")
        for builder in ("tensorrt-rtx", "tensorrt")
        for precision in ("fp16", "int8", "int4")
    ),
)
TARGET = "this-gpu"
COLUMNS = (
    "preset",
    "engine",
    "precision",
    "decoding",
    "passes",
    "pace",
    "p50 ms",
    "p99 ms",
    "max ms",
    "misses",
    "share of bandwidth",
)
GATORT = (sys.executable, "-m", "gatort")


@dataclass(frozen=True, slots=True)
class Row:
    """Combination of size, engine, precision and decoding to time."""

    preset: str
    """Name of the size."""
    engine: str
    """Engine, spelled as for `--engine`."""
    precision: str
    """Precision of the weights."""
    decoding: str
    """Way to a tick's tokens."""

    def file(self, out: Path) -> Path:
        """Return the file of the row's figures."""
        return out / f"{self.preset}-{self.engine}-{self.precision}-{self.decoding}.json"


def main() -> int:
    """Run the missing rows and write the table; return 1 if the `gpu` tests fail."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="folder for bundles, rows and the table"
    )
    parser.add_argument("--presets", nargs="+", default=PRESETS, help="sizes to time")
    parser.add_argument("--ticks", type=int, default=400, help="ticks at each pace")
    parser.add_argument("--no-tests", action="store_true", help="skip the tests")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    failed = not arguments.no_tests and tests_failed()
    rows = [Row(preset, *engine) for preset in arguments.presets for engine in ENGINES]
    found = {row: read(row, arguments.out) for row in rows}
    for row in track([row for row in rows if "error" in found[row]], "timing"):
        found[row] = measure(row, arguments.out, arguments.ticks)
        keep(row, found[row], arguments.out)

    text = table(found)
    (arguments.out / "gpu.md").write_text(text)
    print(text)
    return int(failed)


def read(row: Row, out: Path) -> dict[str, Any]:
    """Return the result of an earlier run.

    A failure counts as missing, because its cause may have been mended since.
    """
    file = row.file(out)
    return dict(json.loads(file.read_text())) if file.exists() else {"error": "not run"}


def keep(row: Row, found: dict[str, Any], out: Path) -> None:
    """Write a row's figures whole or not at all."""
    part = row.file(out).with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    part.replace(row.file(out))


def tests_failed() -> bool:
    """Run the tests that need a GPU. Return true if one failed."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu"], check=False)
    return done.returncode != 0


def measure(row: Row, out: Path, ticks: int) -> dict[str, Any]:
    """Return a row's figures, or the error of the command that failed."""
    bundle = out / row.preset
    report = out / "profile.json"
    try:
        if not bundle.exists():
            run("export", "--preset", row.preset, "--random-weights", "--out", bundle)
        if row.engine in ("tensorrt-rtx", "tensorrt"):
            choice = ("--builder", row.engine, "--target", TARGET, "--precision", row.precision)
            run("compile", bundle, *choice)

        precision = () if row.engine.startswith("onnx") else ("--precision", row.precision)
        engine = ("--engine", row.engine, *precision, "--decoding", row.decoding)
        # Misses are reported, not judged: a slow engine is a result too.
        limits = ("--ticks", ticks, "--max-misses", 10**6)
        timed = ("profile", "--bundle", bundle, *engine, "--robot", "scripted", *limits)
        if row.decoding == "greedy":
            run(*timed, "--roofline", "--json", report)
            return dict(json.loads(report.read_text()))
        run(*timed, "--flat-out", "--json", report)
        flat_out = json.loads(report.read_text())
        run(*timed, "--json", report)
        return {**json.loads(report.read_text()), "other_pace": flat_out}
    except RuntimeError as error:
        return {"error": str(error)}


def run(*arguments: object) -> None:
    """Run one gatort command.

    Raises:
        RuntimeError: it failed; the error is its last line on standard error.
    """
    done = subprocess.run(
        [*GATORT, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])


def table(measured: dict[Row, dict[str, Any]]) -> str:
    """Return all rows as a Markdown table, and the machines below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    machines = []
    for row, found in measured.items():
        name = f"| {row.preset} | {row.engine} | {row.precision} | {row.decoding} "
        if "error" in found:
            said = found["error"].replace("|", "\\|")
            lines.append(f"{name}| | – | {said} | | | | |")
            continue
        lines += [f"{name}{cells(found, pace)}" for pace in (found, found["other_pace"])]
        if "roofline" in found:
            device = found["roofline"]["device"]["name"]
            machines.append(f"{device}; {found['machine']['versions']}")
    return "\n".join([*lines, "", *dict.fromkeys(machines)]) + "\n"


def cells(found: dict[str, Any], pace: dict[str, Any]) -> str:
    """Return a pace's cells of a row.

    The share of bandwidth is that of the whole tick's bytes over the passes' median.
    """
    name = "paced" if pace["paced"] else "flat out"
    tick = pace["latency_ms"]["tick"]
    times = (f"{tick[key]:.2f}" for key in ("p50", "p99", "max"))
    share = "–"
    if "roofline" in found:
        shares = found["roofline"]["share_of_bandwidth"]
        share = f"{shares['paced' if pace['paced'] else 'flat_out']:.0%}"
    passes = f"{pace['passes']['mean']:.1f}"
    return f"| {passes} | {name} | {' | '.join(times)} | {pace['misses']} | {share} |"


if __name__ == "__main__":
    sys.exit(main())
