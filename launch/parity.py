"""`gatort parity`: PyTorch without a cache, PyTorch's ring and ONNX Runtime's ring must agree."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from rich.table import Table

from .export import require_torch
from .machine import this_machine
from .options import SHIPPED_BUNDLE
from .report import require_writable, screen, write_json


def parity(
    *, bundle: Path = SHIPPED_BUNDLE, wraps: PositiveInt = 3, seed: NonNegativeInt = 0, json: Path | None = None
) -> int:
    """Run a bundle's three paths on random observations and compare every logit and every greedy token.

    Exit status 1 when they disagree.

    Parameters
    ----------
    bundle
        Directory of the policy.
    wraps
        How often the window is overwritten, at least.
    seed
        Draws the observations.
    json
        Write the figures to this file as well.
    """
    require_writable(json)
    require_torch("parity")
    from gatort.export.parity import AGREEMENT, LOGIT_TOLERANCE, check_parity

    report = check_parity(bundle, wraps, seed)
    table = Table("paths", "largest logit difference", "same greedy token")
    for pair in report.pairs:
        table.add_row(f"{pair.first} – {pair.second}", f"{pair.largest_difference:.1e}", f"{pair.argmax_agreement:.2%}")
    extent = f"{report.tokens} action tokens, {report.wraps:.1f} wraps, logits up to {report.largest_logit:.1f}"
    bar = f"logits within {LOGIT_TOLERANCE:g}, and " if report.precision == "fp32" else ""
    bar = f"{report.precision}: {bar}at least {AGREEMENT[report.precision]:.0%} of tokens equal"
    verdict = f"the paths {'agree' if report.agrees else 'disagree'} ({bar})"
    screen().print(f"{extent}: {verdict}", table, sep="\n")
    write_json(json, {**asdict(report), "agrees": report.agrees, "machine": asdict(this_machine())})
    return int(not report.agrees)
