"""`gatort parity`: three paths through one policy that must agree.

PyTorch without a cache, PyTorch's ring and another engine's ring read the same observations.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt
from rich.table import Table

from gatort.export.parity import AGREEMENT, LOGIT_TOLERANCE, ParityReport, compare
from gatort.launch.outputs import require_writable
from gatort.launch.report import screen, write_json
from gatort.policies.loading import (
    SHIPPED_BUNDLE,
    EngineName,
    PolicyOptions,
    make_engine,
    precision_of,
)
from gatort.policies.weights import read_model
from gatort.runtime.bundle import verify
from gatort.runtime.exit_status import verdict
from gatort.runtime.machine import this_machine
from gatort.runtime.spec import Precision, Seed
from gatort.runtime.wording import counted


def parity(
    *,
    bundle: Path = SHIPPED_BUNDLE,
    engine: EngineName = "onnx",
    precision: Precision | None = None,
    wraps: Annotated[PositiveInt, Field(le=10_000)] = 3,
    seed: Seed = 0,
    json: Path | None = None,
) -> int:
    """Run a bundle on random observations through three paths that must give the same tokens.

    The paths are PyTorch without a cache, PyTorch with a ring cache, and another engine with its
    ring cache. Exit status 1 when they disagree.

    Parameters
    ----------
    bundle
        Directory of the policy, or the name of a shipped one.
    engine
        Engine to compare with PyTorch.
    precision
        Precision of the engine's weights; the default is that of `gatort run`.
    wraps
        Least number of times that the window is overwritten.
    seed
        Seed of the random observations.
    json
        Write the figures to this file as well.
    """
    require_writable(json=json)
    # A pass for each token, so that a pass that differs is named.
    options = PolicyOptions(bundle=bundle, engine=engine, precision=precision, decoding="greedy")
    manifest = verify(options.bundle)
    report = compare(
        read_model(options.bundle),
        make_engine(options, manifest),
        wraps,
        seed,
        precision_of(options, manifest.precision),
    )

    screen(json).print(_verdict(report), _table(report), sep="\n")
    write_json(
        json,
        "parity",
        {**asdict(report), "agrees": report.agrees, "machine": asdict(this_machine())},
    )
    return verdict(report.agrees)


def _verdict(report: ParityReport) -> str:
    bars = [f"at least {AGREEMENT[report.precision]:.0%} of tokens equal"]
    if report.precision == "fp32":
        bars.insert(0, f"logits within {LOGIT_TOLERANCE:g}")
    return (
        f"{counted(report.tokens, 'action token')}, {report.wraps:.1f} wraps, logits up to "
        f"{report.largest_logit:.1f}: the paths {'agree' if report.agrees else 'disagree'} "
        f"({report.precision}: {', and '.join(bars)})"
    )


def _table(report: ParityReport) -> Table:
    table = Table("paths", "largest logit difference", "same greedy token")
    for pair in report.pairs:
        paths = f"{pair.first} – {pair.second}"
        table.add_row(paths, f"{pair.largest_difference:.1e}", f"{pair.argmax_agreement:.2%}")
    return table
