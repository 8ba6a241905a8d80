"""`gatort parity`: PyTorch without a cache, PyTorch's ring and another engine's ring must agree."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from rich.table import Table

from gatort.launch.report import (
    require_writable,
    screen,
    write_json,
)
from gatort.policies.loading import (
    SHIPPED_BUNDLE,
    EngineName,
    PolicyOptions,
    make_engine,
    precision_of,
)
from gatort.runtime.bundle import verify
from gatort.runtime.machine import this_machine
from gatort.runtime.packages import require_torch
from gatort.runtime.spec import Precision


def parity(
    *,
    bundle: Path = SHIPPED_BUNDLE,
    engine: EngineName = "onnx",
    precision: Precision | None = None,
    wraps: PositiveInt = 3,
    seed: NonNegativeInt = 0,
    json: Path | None = None,
) -> int:
    """Run a bundle's three paths on random observations and compare every logit and every greedy token.

    Exit status 1 when they disagree.

    Parameters
    ----------
    bundle
        Directory of the policy.
    engine
        What to compare with PyTorch.
    precision
        Of its weights, as for `gatort run`.
    wraps
        How often the window is overwritten, at least.
    seed
        Draws the observations.
    json
        Write the figures to this file as well.
    """
    require_writable(json)
    require_torch("parity")
    from gatort.export.parity import (
        AGREEMENT,
        LOGIT_TOLERANCE,
        compare,
    )
    from gatort.policies.weights import read_model

    options, manifest = (
        PolicyOptions(bundle=bundle, engine=engine, precision=precision),
        verify(bundle),
    )
    made = make_engine(options, manifest)
    report = compare(
        read_model(bundle), made, wraps, seed, precision_of(options, manifest.precision)
    )
    table = Table("paths", "largest logit difference", "same greedy token")
    for pair in report.pairs:
        table.add_row(
            f"{pair.first} – {pair.second}",
            f"{pair.largest_difference:.1e}",
            f"{pair.argmax_agreement:.2%}",
        )
    extent = f"{report.tokens} action tokens, {report.wraps:.1f} wraps, logits up to {report.largest_logit:.1f}"
    bar = f"logits within {LOGIT_TOLERANCE:g}, and " if report.precision == "fp32" else ""
    bar = f"{report.precision}: {bar}at least {AGREEMENT[report.precision]:.0%} of tokens equal"
    verdict = f"the paths {'agree' if report.agrees else 'disagree'} ({bar})"
    screen().print(f"{extent}: {verdict}", table, sep="\n")
    write_json(json, {**asdict(report), "agrees": report.agrees, "machine": asdict(this_machine())})
    return int(not report.agrees)
