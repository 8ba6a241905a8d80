"""`gatort compile`: ONNX → TensorRT, for a GPU that need not be here, into this user's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gatort.export.compile import HeldOut, compile_bundle
from gatort.export.to_tensorrt import BuildProgress
from gatort.launch.outputs import require_writable
from gatort.launch.progress import show_policy_episodes
from gatort.launch.refusals import refuse_fields, refuse_ignored
from gatort.launch.report import Bars, screen, write_json
from gatort.policies.loading import shipped_or_own
from gatort.runtime.bundle import Manifest
from gatort.runtime.engines.cache import EngineCache, EngineRecord
from gatort.runtime.engines.gpu import GpuTarget
from gatort.runtime.engines.tensorrt import Builder
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, verdict
from gatort.runtime.machine import this_machine
from gatort.runtime.spec import PolicySpec, Strict
from gatort.runtime.wording import counted
from gatort.sim.collect import MOST_TRIALS, can_drive
from gatort.sim.tasks.seeds import VALIDATION_SEEDS


class CompileOptions(Strict):
    """One engine to build."""

    target: GpuTarget = "rtx3090"
    """GPU to build for: an RTX 3090, which need not be here, or the GPU of this machine."""
    precision: Literal["fp16", "int8", "int4"] = "fp16"
    """Precision of the engine. int8 rounds weights per output channel, int4 per output channel and
    128 inputs; both compute in fp16."""
    builder: Builder = "tensorrt-rtx"
    """Package that builds. tensorrt-rtx builds for any card of the target's compute capability;
    tensorrt builds for this machine's GPU only."""
    trials: Annotated[int, Field(ge=0, le=MOST_TRIALS)] = 4
    """Number of simulated trials, driven by the policy, on which the result is compared with fp32.
    0: no comparison. An untrained policy, or one for another robot, is not compared either."""


def compile_engine(
    bundle: Path | None = None,
    *,
    options: Annotated[CompileOptions | None, Parameter(name="*")] = None,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    prune: Annotated[bool, Parameter(negative="")] = False,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    json: Path | None = None,
) -> int:
    """Compile a bundle into an engine for a GPU and store it in this user's cache.

    An engine for an RTX 3090 can be built on a machine without a GPU. Each combination of bundle,
    GPU, precision and version of the builder is built once.

    Parameters
    ----------
    bundle
        Directory of the policy in fp32, or the name of a shipped one. Required, except with --list
        and --prune.
    list_
        List the engines in the cache instead; exit status 1 when one of them cannot be loaded.
    prune
        Remove engines that were changed, or whose builder is no longer installed, instead.
    everything
        With --prune: remove all engines.
    json
        Write the figures to this file as well.
    """
    require_writable(json=json)
    if everything and not prune:
        raise ConfigError("--all: expected --prune with it, found none")
    if prune and list_:
        raise ConfigError("expected --list or --prune, found both")
    if prune or list_:
        because = f"with {'--prune' if prune else '--list'}"
        refuse_ignored(because, bundle=bundle)
        refuse_fields(because, options, *CompileOptions.model_fields)
    if prune:
        refuse_ignored("with --prune", json=json)
        return _prune(everything)
    if list_:
        return _list(json)
    if bundle is None:
        raise ConfigError("expected a bundle to compile, --list or --prune")
    bundle = shipped_or_own(bundle)

    options = options or CompileOptions()
    trials = options.trials
    with _bar() as on_phase:
        compiled = compile_bundle(
            bundle,
            options.target,
            options.precision,
            options.builder,
            hold_out=partial(_hold_out, bundle, trials),
            on_phase=on_phase,
        )
    if compiled.built_before:
        screen(json).print("built before, and unchanged since")
    record = compiled.record
    screen(json).print(_table(record))
    if record.agreements:
        screen(json).print(_agreement_table(record, compiled.manifest.spec))
    figures = {**record.model_dump(), "ratio": record.ratio, "machine": asdict(this_machine())}
    write_json(json, "compile", figures)
    return ExitStatus.DONE


def _hold_out(bundle: Path, trials: int, manifest: Manifest) -> HeldOut:
    """Drive trials at validation layouts, which no success rate is measured on."""
    if not trials or not can_drive(manifest):
        return HeldOut()
    seeds = VALIDATION_SEEDS[len(VALIDATION_SEEDS) // 2 :][:trials]
    episodes = show_policy_episodes(bundle, seeds, "trials to compare on")
    return HeldOut(episodes, f"{counted(trials, 'simulated trial')} at validation layouts")


def _list(json: Path | None) -> int:
    cache = EngineCache()
    table = Table(title=str(cache.folder), title_justify="left")
    for column in ("engine", "bundle", "size", "× weights", "state"):
        table.add_column(column, overflow="fold")

    engines: list[EngineRecord] = []
    refused: dict[str, str] = {}
    for name, found in cache.records():
        if isinstance(found, EngineRecord):
            engines.append(found)
            size = f"{found.size_bytes / 1e6:,.1f} MB"
            table.add_row(name, found.name, size, f"{found.ratio:.3f}", "unchanged")
        else:
            refused[name] = str(found)
            table.add_row(name, "", "", "", str(found))

    screen(json).print(table if engines or refused else f"no engines in {cache.folder}")
    listed = [engine.model_dump() for engine in engines]
    write_json(
        json, "engines", {"folder": str(cache.folder), "engines": listed, "refused": refused}
    )
    return verdict(not refused)


def _prune(everything: bool) -> int:
    removed = EngineCache().prune(everything=everything)
    screen().print("\n".join(f"removed {name}" for name in removed) or "nothing to remove")
    return ExitStatus.DONE


def _table(record: EngineRecord) -> Table:
    table = Table(title=f"{record.name}, {record.key}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    peak_gb = record.peak_memory_bytes / 1e9
    rows = {
        "engine": f"{record.size_bytes / 1e6:,.1f} MB",
        "weights at this precision": f"{record.weights_bytes / 1e6:,.1f} MB",
        "engine / weights": f"{record.ratio:.3f}",
        "build": f"{record.build_s:.1f} s, peak memory {peak_gb:.2f} GB",
        "layers": f"{record.layers}, fused into {record.fused_layers or 'an unknown number'}",
        "SHA-256": record.sha256,
    }
    for name, cell in rows.items():
        table.add_row(name, cell)
    return table


def _agreement_table(record: EngineRecord, spec: PolicySpec) -> Table:
    """Lay out a column per graph: equal greedy tokens, then each actuator's mean error in its
    unit.
    """
    found = record.agreements
    names = (each.graph for each in found)
    table = Table("against fp32", *names, title=f"on {record.compared_on}", title_justify="left")
    table.add_row("same greedy token", *(f"{each.same_argmax:.2%}" for each in found))
    table.add_row("mean error / range", *(f"{each.share_of_range:.3%}" for each in found))
    for index, actuator in enumerate(spec.actuators):
        cells = (f"{each.error[index]:.4g}" for each in found)
        table.add_row(f"{actuator.name}, {actuator.unit}", *cells)
    return table


@contextmanager
def _bar() -> Iterator[BuildProgress]:
    """Draw one bar on standard error. Yields the callback that sets its phase and progress."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns) as bars:
        bar = bars.add_task("", visible=False)
        yield lambda phase, done, of: bars.update(
            bar, description=phase, completed=done, total=of, visible=True
        )
