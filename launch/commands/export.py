"""`gatort export`: PyTorch → ONNX → bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, NonNegativeInt
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gatort.launch.policy_episodes import (
    MOST_TRIALS,
    can_drive,
    policy_episodes,
)
from gatort.launch.report import screen
from gatort.policies.presets import preset as preset_named
from gatort.runtime.bundle import (
    ONNX_FILE,
    TrainingRecord,
    verify,
)
from gatort.runtime.errors import (
    ConfigError,
)
from gatort.runtime.machine import peak_memory_bytes
from gatort.runtime.packages import require_torch

if TYPE_CHECKING:
    from gatort.export.bundle_writer import Rounding
    from gatort.policies.model import Gato

GATO = "gato-"
"""What the presets of the paper's sizes begin with; they bring the paper's frame."""


def export(
    source: Path | None = None,
    *,
    out: Path,
    preset: str | None = None,
    random_weights: Annotated[bool, Parameter(negative="")] = False,
    cameras: Annotated[bool, Parameter(negative="")] = False,
    name: str | None = None,
    seed: NonNegativeInt = 0,
    precision: Literal["fp32", "int8", "int4", "w8a8"] = "fp32",
    trials: Annotated[int, Field(ge=0, le=MOST_TRIALS)] = 4,
) -> int:
    """Export a model to ONNX and write it as a bundle: manifest, weights and graph, with a hash of each.

    Training exports by itself; this exports a bundle's weights again, or an untrained model to try a machine with.

    Parameters
    ----------
    source
        Bundle whose weights are exported again; its success rate has to be measured again.
    out
        Folder of the new bundle; a bundle that is there is replaced once the new one is whole.
    preset
        Export an untrained model of this size instead. The gato sizes have Gato's frame: two 128×128 cameras and
        proprioception.
    random_weights
        Say that the preset's weights may be drawn at random: it knows nothing and is there to be timed.
    cameras
        Let a tiny or stack model see through two 64×64 cameras, and not know where the blocks are.
    name
        What the bundle is called; the source's name or the preset when it is not given.
    seed
        Draws the untrained model's weights.
    precision
        Round the graph's weights: int8 per output channel, or int4 per output channel and 128 inputs. w8a8 rounds
        activations too: the fastest on a CPU, and not the same action to the bin.
    trials
        Simulated trials of the source that the rounding is calibrated on, where it is a policy for the simulated arm.
    """
    if (source is None) == (preset is None):
        raise ConfigError(
            "expected a bundle to export again or --preset NAME for an untrained model, one of the two"
        )
    _require_asked_for(preset, random_weights, cameras)
    require_torch("exporting")
    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.weights import read_model

    rounding = _rounding(source, precision, trials)
    with _steps() as begin:
        if source is not None:
            begin("reading weights")
            manifest = verify(source)
            called, model, training = manifest.name, read_model(source), manifest.training
        else:
            begin("drawing weights")
            model = _untrained(preset or "", cameras, seed)
            called, training = preset or "", _no_training(model, seed)
        if rounding is not None and rounding.grams is not None:
            training = _chosen_on(training, trials)
        written = write_bundle(out, name or called, model, training, begin=begin, rounding=rounding)
    peak_gb = peak_memory_bytes() / 1e9
    screen().print(
        f"{written.name}: {training.parameters:,} parameters in {out}, peak memory {peak_gb:.1f} GB"
    )
    return 0


def _rounding(
    source: Path | None, precision: Literal["fp32", "int8", "int4", "w8a8"], trials: int
) -> Rounding | None:
    """How to round, calibrated on trials that the source drives at validation seeds."""
    if precision == "fp32":
        return None
    from gatort.export.bundle_writer import Rounding

    if source is None:
        return Rounding(precision)
    if (manifest := verify(source)).precision != "fp32":
        raise ConfigError(
            f"{source}: expected a bundle in fp32 to round, found {manifest.precision}"
        )
    if not trials or not can_drive(manifest):
        return Rounding(precision)
    from gatort.export.calibration import gram_matrices
    from gatort.sim.tasks.stacking.task import VALIDATION_SEEDS

    recorded = policy_episodes(source, VALIDATION_SEEDS[:trials], "trials to calibrate with")
    return Rounding(
        precision, gram_matrices(source / ONNX_FILE, manifest.spec, manifest.model, recorded)
    )


def _chosen_on(training: TrainingRecord, trials: int) -> TrainingRecord:
    """The record of a policy that was rounded on so many trials: none of them may measure it."""
    from gatort.sim.tasks.stacking.task import VALIDATION_SEEDS

    used = (VALIDATION_SEEDS[0], VALIDATION_SEEDS[trials - 1])
    return training.model_copy(
        update={"validation_seeds": tuple(sorted({*training.validation_seeds, used}))}
    )


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A line on standard error per step, with the time that it took; call what is given with each step that begins."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen(stderr=True)) as progress:

        def end() -> None:
            for task in progress.tasks:
                progress.update(task.id, completed=1)

        def begin(step: str) -> None:
            end()
            progress.add_task(step, total=1)

        yield begin
        end()


def _require_asked_for(preset: str | None, random_weights: bool, cameras: bool) -> None:
    """Refuse an untrained model that nobody asked for, so that none is taken for a policy."""
    if preset is None:
        if random_weights or cameras:
            raise ConfigError(
                "--random-weights and --cameras go with --preset: a bundle has its weights and its frame"
            )
        return
    preset_named(preset)
    if not random_weights:
        raise ConfigError(
            f"{preset!r} is a size, not a policy: ask for an untrained one with --random-weights"
        )
    if cameras and preset.startswith(GATO):
        raise ConfigError(
            f"{preset!r} sees through two 128×128 cameras already: leave --cameras out"
        )


def _untrained(preset: str, cameras: bool, seed: int) -> Gato:
    import torch

    from gatort.policies.model import Gato
    from gatort.sim.tasks.stacking.task import (
        CAMERA_SPEC,
        GATO_SPEC,
        STACK_SPEC,
    )

    torch.manual_seed(seed)
    spec = GATO_SPEC if preset.startswith(GATO) else CAMERA_SPEC if cameras else STACK_SPEC
    return Gato(spec, preset_named(preset))


def _no_training(model: Gato, seed: int) -> TrainingRecord:
    return TrainingRecord(
        recipe=f"none: weights drawn from seed {seed}",
        demonstrations="none",
        parameters=model.parameters_total,
        steps=0,
    )
