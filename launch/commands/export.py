"""`gatort export`: PyTorch → ONNX → bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from pydantic import Field
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from gatort.export.bundle_writer import write_bundle
from gatort.launch.outputs import require_own_folder
from gatort.launch.report import Bars, screen
from gatort.policies.loading import shipped_or_own
from gatort.policies.model import Gato
from gatort.policies.presets import preset as preset_named
from gatort.policies.weights import read_model
from gatort.runtime.bundle import TrainingRecord, verify
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.invalid_values import said
from gatort.runtime.machine import peak_memory_bytes
from gatort.runtime.spec import Seed
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, GATO_SPEC, STACK_SPEC

BundleName = Annotated[
    str,
    Field(pattern=r"^\w[\w.+-]{0,99}$"),
    said("expected at most 100 letters, digits, _ . + and -, the first a letter or a digit"),
]
GATO = "gato-"
"""Prefix of the presets of the paper's sizes, which bring the paper's frame."""


def export(
    source: Path | None = None,
    *,
    out: Path,
    preset: str | None = None,
    random_weights: Annotated[bool, Parameter(negative="")] = False,
    cameras: Annotated[bool, Parameter(negative="")] = False,
    name: BundleName | None = None,
    seed: Seed | None = None,
    precision: Literal["fp32", "int8", "int4", "w8a8"] = "fp32",
) -> int:
    """Export a model to ONNX and write it as a bundle of manifest, weights and graph.

    Training exports its policy by itself. This command exports a bundle's weights again, or an
    untrained model that serves to time a machine.

    Parameters
    ----------
    source
        Bundle whose weights are exported again, or the name of a shipped one. The new bundle has
        no success rate until one is measured.
    out
        Folder of the new bundle, which must be new or empty.
    preset
        Size of an untrained model to export instead of a bundle: tiny, stack, gato-79m, gato-364m
        or gato-1.2b. The gato sizes have the frame of the paper: two 128×128 cameras and
        proprioception.
    random_weights
        Confirm that the preset's weights are drawn at random: the model has learned nothing.
    cameras
        For the presets `tiny` and `stack`: two 64×64 cameras instead of the blocks' poses.
    name
        Name of the new bundle; by default the source's name or the preset.
    seed
        Seed of the untrained model's weights; 0 by default.
    precision
        Precision of the graph's weights: int8 rounds per output channel, int4 per output channel
        and 128 inputs. w8a8 rounds activations too: the fastest on a CPU, but actions differ by a
        bin or more.
    """
    _check(source, preset, random_weights, cameras)
    source = shipped_or_own(source) if source is not None else None
    if source is not None and seed is not None:
        raise ConfigError(f"--seed draws weights, and {source} has its own: leave it out")
    require_own_folder("--out", out)
    rounding = None if precision == "fp32" else precision

    with _steps() as begin:
        if source is not None:
            begin("reading weights")
            manifest = verify(source)
            if rounding and manifest.precision != "fp32":
                raise ConfigError(
                    f"{source}: expected a bundle in fp32 to round, found {manifest.precision}"
                )
            default_name = manifest.name
            task = manifest.task
            model = read_model(source)
            training = manifest.training
        else:
            begin("drawing weights")
            default_name = preset or ""
            task = "stacking"
            model = _untrained(default_name, cameras, seed or 0)
            training = _no_training(model, seed or 0)
        written = write_bundle(
            out,
            name or default_name,
            model,
            training,
            begin=begin,
            rounding=rounding,
            task=task,
        )

    peak_gb = peak_memory_bytes() / 1e9
    screen().print(
        f"{written.name}: {training.parameters:,} parameters in {out}, peak memory {peak_gb:.1f} GB"
    )
    return ExitStatus.DONE


def _check(source: Path | None, preset: str | None, random_weights: bool, cameras: bool) -> None:
    """Refuse contradictory flags, and an untrained model that was not explicitly asked for."""
    if (source is None) == (preset is None):
        raise ConfigError(
            "expected either a bundle to export again or --preset NAME for an untrained model"
        )
    if preset is None:
        if random_weights or cameras:
            raise ConfigError(
                "--random-weights and --cameras go with --preset: a bundle has its own weights "
                "and frame"
            )
        return

    preset_named(preset)
    if not random_weights:
        raise ConfigError(
            f"{preset!r} is a size, not a policy: confirm an untrained model with --random-weights"
        )
    if cameras and preset.startswith(GATO):
        raise ConfigError(
            f"{preset!r} sees through two 128×128 cameras already: leave --cameras out"
        )


def _untrained(preset: str, cameras: bool, seed: int) -> Gato:
    torch.manual_seed(seed)
    stacking = CAMERA_SPEC if cameras else STACK_SPEC
    spec = GATO_SPEC if preset.startswith(GATO) else stacking
    return Gato(spec, preset_named(preset))


def _no_training(model: Gato, seed: int) -> TrainingRecord:
    return TrainingRecord(
        recipe=f"none: weights drawn from seed {seed}",
        demonstrations="none",
        parameters=model.parameters_total,
        steps=0,
    )


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Print a line per step on standard error, with its duration. Yields the callback that begins a
    step.
    """
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns) as progress:

        def end() -> None:
            for task in progress.tasks:
                progress.update(task.id, completed=1)

        def begin(step: str) -> None:
            end()
            progress.add_task(step, total=1)

        yield begin
        end()
