"""Faults of bundles (row 20): truncated, tampered with, or of another shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import MANIFEST_FILE

from .bench import Bench
from .judging import InjectionResult
from .refusals import refusal, run_on

Damage = Callable[[Path], tuple[str, ...]]
"""Damages a copy of a bundle and returns the words that the refusal must have."""


def _truncate(bundle: Path) -> tuple[str, ...]:
    file = bundle / "policy.onnx"
    file.write_bytes(file.read_bytes()[:-1000])
    return (file.name,)


def _tamper(bundle: Path) -> tuple[str, ...]:
    file = bundle / "model.safetensors"
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)
    return (file.name,)


def _reshape(bundle: Path) -> tuple[str, ...]:
    def add_a_layer(manifest: dict[str, Any]) -> None:
        manifest["model"]["layers"] += 1

    change_manifest(bundle, add_a_layer)
    return ("model.safetensors",)


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a bundle's manifest in place."""
    file = bundle / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def damaged(damage: Damage, bench: Bench, _: int) -> InjectionResult:
    """Check that `gatort run` refuses a damaged bundle."""
    bundle = shutil.copytree(SHIPPED_BUNDLE, bench.new_folder())
    return refusal(bench, damage(bundle), [*run_on(bench), "--bundle", str(bundle)])


truncated, tampered, reshaped = (
    partial(damaged, damage) for damage in (_truncate, _tamper, _reshape)
)
