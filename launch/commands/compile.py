"""`gatort compile`: ONNX → TensorRT, for a GPU that need not be here, into this user's cache of engines."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gatort.launch.policy_episodes import (
    MOST_TRIALS,
    can_drive,
    policy_episodes,
)
from gatort.launch.report import (
    require_writable,
    screen,
    write_json,
)
from gatort.runtime.bundle import (
    ONNX_FILE,
    Manifest,
    verify,
)
from gatort.runtime.engines.cache import (
    EngineCache,
    EngineKey,
    EngineRecord,
    GraphAgreement,
)
from gatort.runtime.engines.gpu import Target
from gatort.runtime.engines.tensorrt import Builder
from gatort.runtime.errors import (
    ConfigError,
    MissingDependency,
)
from gatort.runtime.machine import this_machine
from gatort.runtime.packages import installed_version
from gatort.runtime.spec import Precision

if TYPE_CHECKING:
    from gatort.export.precision import (
        Bits,
        Conversion,
        Grams,
    )
    from gatort.export.to_tensorrt import BuildProgress as Show
    from gatort.runtime.episode import Episode
    from gatort.runtime.spec import PolicySpec

Compiled = Literal["fp16", "int8", "int4"]
BITS: dict[Precision, Bits | None] = {"fp16": None, "int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the policy met, in trials that no success rate is measured on."""

    calibration: list[Episode]
    """What rounding errors are compensated for; empty when nothing is rounded."""
    held_out: list[Episode]
    """What the engine's graph is compared on, at other layouts."""


def compile_bundle(
    bundle: Path | None = None,
    *,
    target: Target = "rtx3090",
    precision: Compiled = "fp16",
    builder: Builder = "tensorrt-rtx",
    trials: Annotated[int, Field(ge=0, le=MOST_TRIALS)] = 4,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    prune: Annotated[bool, Parameter(negative="")] = False,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    json: Path | None = None,
) -> int:
    """Compile a bundle into an engine for a GPU, and keep it in this user's cache.

    No GPU is needed for an RTX 3090's engine. It is built once for each bundle, GPU, precision and version of the
    builder, and again when it is to be calibrated on another number of trials.

    Parameters
    ----------
    bundle
        Directory of the policy, in fp32.
    target
        GPU that the engine is for: an RTX 3090, which need not be here, or the GPU of this machine.
    precision
        fp16; or weights rounded to int8 per output channel, or to int4 per output channel and 128 inputs, and all
        else in fp16.
    builder
        tensorrt-rtx builds for any card of the target's compute capability; tensorrt for this GPU only.
    trials
        Simulated trials that the policy drives before, to calibrate the rounding, and as many others on which the
        result is compared with fp32. 0 leaves both out, as an untrained policy or one for another robot does.
    list_
        Show the engines in the cache instead; exit status 1 when one of them must not be loaded.
    prune
        Remove engines that were changed, or whose builder is not installed any more.
    everything
        With --prune: remove them all.
    json
        Write the figures to this file as well.
    """
    require_writable(json)
    cache = EngineCache()
    if everything and not prune:
        raise ConfigError("--all goes with --prune")
    if prune:
        return _prune(cache, everything)
    if list_:
        return _list(cache, json)
    if bundle is None:
        raise ConfigError("expected a bundle to compile, --list or --prune")
    manifest = verify(bundle)
    if manifest.precision != "fp32":
        raise ConfigError(
            f"{bundle}: expected a bundle in fp32, found {manifest.precision}; compile what it came from"
        )
    key = EngineKey.of(manifest, target, precision, builder)
    found = cache.find(key)
    if not can_drive(manifest):
        trials = 0
    if found is not None and found.calibration_trials == _calibration_trials(key, trials):
        record, _ = cache.load(key)
        screen().print("built before, and unchanged since")
    else:
        _require_graph_packages()
        record = _compile(bundle, manifest, key, target, trials, cache)
    _show(record, manifest.spec)
    write_json(
        json, {**record.model_dump(), "ratio": record.ratio, "machine": asdict(this_machine())}
    )
    return 0


def _calibration_trials(key: EngineKey, trials: int) -> int:
    return trials if BITS[key.precision] else 0


def _compile(
    bundle: Path,
    manifest: Manifest,
    key: EngineKey,
    target: Target,
    trials: int,
    cache: EngineCache,
) -> EngineRecord:
    """Record, calibrate, convert, compare, build, store."""
    from gatort.export.to_tensorrt import build_engine

    cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    recorded = _record(bundle, _calibration_trials(key, trials), trials)
    grams = _calibrate(bundle, manifest, recorded)
    # Beside the cache, since /tmp may be memory and the largest graph has 2.4 GB.
    with tempfile.TemporaryDirectory(dir=cache.folder.parent, prefix=".compile-") as scratch:
        graph = Path(scratch) / ONNX_FILE
        converted = _convert(bundle, key, graph, grams)
        agreements = _compare(bundle, manifest, key, graph, grams, recorded.held_out)
        with _progress() as show:
            built = build_engine(graph, manifest.spec, target, key.builder, show)
    record = EngineRecord(
        key=key,
        name=manifest.name,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        size_bytes=built.plan.nbytes,
        weights_bytes=converted.weights_bytes,
        build_s=built.seconds,
        peak_memory_bytes=built.peak_memory_bytes,
        layers=built.layers,
        fused_layers=built.fused_layers,
        calibration_trials=len(recorded.calibration),
        compared_on=f"{trials} simulated trials that nothing was calibrated on"
        if agreements
        else "",
        agreements=agreements,
    )
    cache.store(record, built.plan)
    return record


def _record(bundle: Path, calibration: int, held_out: int) -> _Recorded:
    from gatort.sim.tasks.stacking.task import VALIDATION_SEEDS

    first = VALIDATION_SEEDS[:calibration]
    others = VALIDATION_SEEDS[len(VALIDATION_SEEDS) // 2 :][:held_out]
    return _Recorded(
        policy_episodes(bundle, first, "trials to calibrate with") if first else [],
        policy_episodes(bundle, others, "trials to compare on") if others else [],
    )


def _calibrate(bundle: Path, manifest: Manifest, recorded: _Recorded) -> Grams | None:
    if not recorded.calibration:
        return None
    from gatort.export.calibration import gram_matrices

    with _progress() as show:
        show("calibrating", 0, 1)
        grams = gram_matrices(
            bundle / ONNX_FILE, manifest.spec, manifest.model, recorded.calibration
        )
        show("calibrating", 1, 1)
    return grams


def _convert(bundle: Path, key: EngineKey, graph: Path, grams: Grams | None) -> Conversion:
    """Write the graph at the key's precision to `graph`."""
    from gatort.export.precision import convert

    with _progress() as show:
        show("converting", 0, 1)
        return convert(
            bundle / ONNX_FILE,
            graph,
            BITS[key.precision],
            half_floats=True,
            grams=grams,
            progress=lambda done, of: show("rounding weights", done, of),
        )


def _compare(
    bundle: Path,
    manifest: Manifest,
    key: EngineKey,
    graph: Path,
    grams: Grams | None,
    held_out: list[Episode],
) -> tuple[GraphAgreement, ...]:
    """How near the engine's graph, run by ONNX Runtime, comes to fp32; and how near its weights alone come.

    The engine itself needs its GPU. Rounded weights under float32 arithmetic show what of the difference is theirs.
    """
    if not held_out:
        return ()
    from gatort.export.calibration import (
        GraphEngine,
        compare_actions,
    )
    from gatort.export.precision import convert

    graphs = {"the engine's graph": graph}
    if bits := BITS[key.precision]:
        weights = graphs["its weights in fp32 arithmetic"] = graph.with_name("weights.onnx")
        convert(bundle / ONNX_FILE, weights, bits, half_floats=False, grams=grams)
    found = []
    with _progress() as show:
        for done, (name, path) in enumerate(graphs.items()):
            show("comparing with fp32", done, len(graphs))
            reference = GraphEngine(bundle / ONNX_FILE)
            agreement = compare_actions(
                reference, GraphEngine(path), manifest.spec, manifest.model, held_out
            )
            found.append(GraphAgreement(graph=name, **asdict(agreement)))
        show("comparing with fp32", len(graphs), len(graphs))
    return tuple(found)


def _list(cache: EngineCache, json: Path | None) -> int:
    table = Table(title=str(cache.folder), title_justify="left")
    for column in ("engine", "bundle", "size", "× weights", "state"):
        table.add_column(column, overflow="fold")
    entries = list(cache.records())
    for name, found in entries:
        if isinstance(found, EngineRecord):
            table.add_row(
                name,
                found.name,
                f"{found.size_bytes / 1e6:,.1f} MB",
                f"{found.ratio:.3f}",
                "unchanged",
            )
        else:
            table.add_row(name, "", "", "", str(found))
    screen().print(table if entries else f"no engines in {cache.folder}")
    write_json(
        json,
        {
            "folder": str(cache.folder),
            "engines": [
                found.model_dump() for _, found in entries if isinstance(found, EngineRecord)
            ],
            "refused": {
                name: str(found) for name, found in entries if not isinstance(found, EngineRecord)
            },
        },
    )
    return int(any(not isinstance(found, EngineRecord) for _, found in entries))


def _prune(cache: EngineCache, everything: bool) -> int:
    removed = cache.prune(everything=everything)
    screen().print("\n".join(f"removed {name}" for name in removed) or "nothing to remove")
    return 0


def _show(record: EngineRecord, spec: PolicySpec) -> None:
    screen().print(_table(record))
    if record.agreements:
        screen().print(_agreement_table(record, spec))


def _table(record: EngineRecord) -> Table:
    table = Table(title=f"{record.name}, {record.key}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("engine", f"{record.size_bytes / 1e6:,.1f} MB")
    table.add_row("weights at this precision", f"{record.weights_bytes / 1e6:,.1f} MB")
    table.add_row("engine / weights", f"{record.ratio:.3f}")
    table.add_row(
        "build", f"{record.build_s:.1f} s, peak memory {record.peak_memory_bytes / 1e9:.2f} GB"
    )
    table.add_row(
        "layers", f"{record.layers}, fused into {record.fused_layers or 'an unknown number'}"
    )
    table.add_row(
        "calibrated on",
        f"{record.calibration_trials} trials" if record.calibration_trials else "nothing",
    )
    table.add_row("SHA-256", record.sha256)
    return table


def _agreement_table(record: EngineRecord, spec: PolicySpec) -> Table:
    """A column per graph: same greedy token, then each actuator's mean absolute error in its unit."""
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
def _progress() -> Iterator[Show]:
    """One bar on standard error; what is given shows a phase, and how much of it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen(stderr=True)) as bars:
        bar = bars.add_task("")
        yield lambda phase, done, of: bars.update(bar, description=phase, completed=done, total=of)


def _require_graph_packages() -> None:
    """Check that what reads and writes graphs is there.

    Raises:
        MissingDependency: with the line that installs it.
    """
    if missing := [package for package in ("onnx", "onnx-ir") if not installed_version(package)]:
        raise MissingDependency(
            f"compiling needs {', '.join(missing)}: pip install 'gatort[tensorrt]'"
        )
