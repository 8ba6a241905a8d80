"""Faults of configuration (row 21): limits, rates and timeouts that no arm may run with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .bench import Bench
from .bundles import change_manifest, damaged
from .judging import InjectionResult
from .refusals import refusal, run_on


def _no_rate(bundle: Path) -> tuple[str, ...]:
    def stop_the_clock(manifest: dict[str, Any]) -> None:
        manifest["spec"]["control_hz"] = 0

    change_manifest(bundle, stop_the_clock)
    return "control_hz", "expected at least 1, found 0"


def _no_limit(bundle: Path) -> tuple[str, ...]:
    def take_the_limit(manifest: dict[str, Any]) -> None:
        manifest["spec"]["actuators"][0]["high"] = float("nan")

    change_manifest(bundle, take_the_limit)
    return "actuators.0.high", "finite number"


no_rate, nan_limit = (partial(damaged, damage) for damage in (_no_rate, _no_limit))


def unknown_key(bench: Bench, _: int) -> InjectionResult:
    """Check that a launch profile with an unknown key is refused."""
    profile = bench.new_folder()
    profile.write_text("[realtime]\nfifo_prioriti = 80\n")
    command = [*run_on(bench), "--profile", str(profile)]
    return refusal(bench, ("fifo_prioriti", "did you mean"), command)


def long_timeout(bench: Bench, _: int) -> InjectionResult:
    """Check that an arm may not hold a command for longer than 200 ms."""
    command = ["robot", "mujoco", "--safe-after-ms", "300"]
    return refusal(bench, ("--safe-after-ms", "at most 200"), command)
