"""Everything that takes a GPU, in one command: the `gpu` tests, then every size, precision and engine timed.

    python benchmarks/gpu.py --out runs/gpu

Each row is a `gatort profile --roofline` in a process of its own, since a CUDA error ends its process: paced at 20 Hz
and flat out, random observations, so that only the policy is timed. What an engine cannot do stands in the table in
its own words. Rows are kept in OUT as they come; the same command goes on with those that are missing or failed,
and ends by writing OUT/gpu.md.
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
    ("torch-cuda", "fp16"),
    ("torch-cuda", "fp32"),
    ("onnx-cuda", "fp32"),
    ("onnx-tensorrt", "fp32"),
    *(
        (builder, precision)
        for builder in ("tensorrt-rtx", "tensorrt")
        for precision in ("fp16", "int8", "int4")
    ),
)
TARGET = "this-gpu"
COLUMNS = (
    "preset",
    "engine",
    "precision",
    "pace",
    "p50 ms",
    "p99 ms",
    "max ms",
    "misses",
    "share of bandwidth",
)
GATORT = (sys.executable, "-m", "gatort.launch.cli")


@dataclass(frozen=True, slots=True)
class Row:
    """One combination to time."""

    preset: str
    engine: str
    precision: str

    def file(self, out: Path) -> Path:
        """Where its figures are kept."""
        return out / f"{self.preset}-{self.engine}-{self.precision}.json"


def main() -> int:
    """Run what is missing and write the table; exit status 1 when the `gpu` tests fail."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="folder for bundles, rows and the table"
    )
    parser.add_argument("--presets", nargs="+", default=PRESETS, help="sizes to time")
    parser.add_argument("--ticks", type=int, default=400, help="ticks at each pace")
    parser.add_argument("--no-tests", action="store_true", help="only time")
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
    """What an earlier run found; a failure counts as missing, for its cause may have been mended since."""
    file = row.file(out)
    return dict(json.loads(file.read_text())) if file.exists() else {"error": "not run"}


def keep(row: Row, found: dict[str, Any], out: Path) -> None:
    """Write a row whole or not at all."""
    part = row.file(out).with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    part.replace(row.file(out))


def tests_failed() -> bool:
    """Run the tests that need a GPU."""
    return (
        subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu"], check=False).returncode != 0
    )


def measure(row: Row, out: Path, ticks: int) -> dict[str, Any]:
    """Figures of one row, or the sentence of what failed."""
    bundle, report = out / row.preset, out / "profile.json"
    try:
        if not bundle.exists():
            run("export", "--preset", row.preset, "--random-weights", "--out", bundle)
        if row.engine in ("tensorrt-rtx", "tensorrt"):
            run(
                "compile",
                bundle,
                "--builder",
                row.engine,
                "--target",
                TARGET,
                "--precision",
                row.precision,
            )
        precision = () if row.engine.startswith("onnx") else ("--precision", row.precision)
        engine = ("--engine", row.engine, *precision, "--robot", "scripted", "--roofline")
        # Misses are reported, not judged: a slow engine is a finding too.
        run(
            "profile",
            "--bundle",
            bundle,
            *engine,
            "--ticks",
            ticks,
            "--max-misses",
            10**6,
            "--json",
            report,
        )
    except RuntimeError as error:
        return {"error": str(error)}
    return dict(json.loads(report.read_text()))


def run(*arguments: object) -> None:
    """One gatort command.

    Raises:
        RuntimeError: it failed; its last line on standard error.
    """
    done = subprocess.run(
        [*GATORT, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        )


def table(measured: dict[Row, dict[str, Any]]) -> str:
    """All rows in Markdown, the machine below."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    machines = []
    for row, found in measured.items():
        name = f"| {row.preset} | {row.engine} | {row.precision} "
        if "error" in found:
            said = found["error"].replace("|", "\\|")
            lines.append(f"{name}| – | {said} | | | | |")
            continue
        lines += [f"{name}{cells(found, pace)}" for pace in (found, found["other_pace"])]
        machines.append(f"{found['roofline']['device']['name']}; {found['machine']['versions']}")
    return "\n".join([*lines, "", *dict.fromkeys(machines)]) + "\n"


def cells(found: dict[str, Any], pace: dict[str, Any]) -> str:
    """A pace's part of a row; the share is that of the whole tick's bytes over the passes' median."""
    name = "paced" if pace["paced"] else "flat out"
    tick = pace["latency_ms"]["tick"]
    roofline = found["roofline"]
    times = (f"{tick[key]:.2f}" for key in ("p50", "p99", "max"))
    share = roofline["share_of_bandwidth"]["paced" if pace["paced"] else "flat_out"]
    return f"| {name} | {' | '.join(times)} | {pace['misses']} | {share:.0%} |"


if __name__ == "__main__":
    sys.exit(main())
