"""`gatort profile`: time the control loop stage by stage and judge the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field, NonNegativeInt

from gatort.export.roofline.rates import Device, measure_cpu
from gatort.export.roofline.roofline import Roofline, assess, passes_p50_ms
from gatort.launch.options import LoopOptions, config_text, refuse_unused_by_engine, resolve
from gatort.launch.outputs import require_writable, spared
from gatort.launch.profiling import Measurement, Source, measure
from gatort.launch.refusals import refuse_fields, refuse_ignored
from gatort.launch.report import (
    draw_latency,
    passes_sentences,
    percentile_table,
    screen,
    write_json,
)
from gatort.launch.roofline_tables import roofline_report
from gatort.policies.loading import CPU_ENGINES, PolicyOptions
from gatort.runtime.bundle import load_manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, verdict
from gatort.runtime.machine import this_machine
from gatort.runtime.packages import require_packages
from gatort.runtime.wording import counted
from gatort.sim.tasks import task_of
from gatort.sim.tasks.stacking.specifications import GATO_SPEC


def profile(
    *,
    options: Annotated[LoopOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    ticks: Annotated[int, Field(ge=1, le=1_000_000)] = 1200,
    paced: Annotated[bool, Parameter(negative="--flat-out")] = True,
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0,
    max_misses: NonNegativeInt = 0,
    robot: Source = "auto",
    roofline: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time every stage of the control loop and say whether the budget holds.

    It times the policy `stack` unless --bundle names another, also where `gatort run` takes the
    policy with cameras. Exit status 1 when the number of misses, or the number of ticks without
    a command, is larger than --max-misses. A miss is a tick that took longer than the budget,
    or a skipped deadline. Without --flat-out, a witness runs beside the loop: a process that
    computes the same small work 20 times a second. It reports for how long this machine pauses
    a computation. A tick during such a pause is late, and gatort cannot prevent it.

    Parameters
    ----------
    profile
        Launch profile: a TOML file, or the name of a shipped one. A flag overrides the file.
    print_config
        Print the effective configuration as a launch profile, and end.
    ticks
        Number of ticks to time, after two that warm up.
    paced
        Wake at the control rate, as on the robot. --flat-out runs tick after tick, which gives
        shorter times.
    budget_ms
        Longest tick that is not a miss, in milliseconds.
    max_misses
        Largest allowed number of misses, and also of ticks without a command.
    robot
        Source of the observations: the simulated arm (mujoco), or random values (scripted), which
        time the policy alone. auto takes the arm where MuJoCo is installed.
    roofline
        Report the share of this machine's possible speed that the passes reach, with a projection
        on an RTX 3090. Times the other pace too, and measures memory and arithmetic.
    json
        Write the figures to this file as well.
    plot
        Draw the figures into this .png, .svg or .pdf file.
    """
    typed = options
    scripted = options if robot == "scripted" else None
    refuse_fields("with --robot scripted, which has no task", scripted, "task")
    options = resolve(LoopOptions, options, profile)
    refuse_unused_by_engine(typed, options.engine)
    if print_config:
        refuse_ignored("with --print-config", json=json, plot=plot, roofline=roofline)
        print(config_text(options), end="")
        return ExitStatus.DONE
    options = _counted(options) if roofline else options
    require_writable(json=json, plot=plot)
    _require_policy(options)
    if plot is not None:
        require_packages("--plot", "trials", "matplotlib")

    console = screen(json)
    if paced:
        console.print(f"timing {counted(ticks, 'tick')} at the control rate…", style="dim")
    measured = measure(options, ticks=ticks, paced=paced, budget_ms=budget_ms, source=robot)
    sentence = measured.sentence(max_misses)
    table = percentile_table(measured.telemetry.summary(), budget_ms, measured.deadline_ms)
    console.print(sentence, table, *passes_sentences(measured.telemetry.passes), sep="\n")
    if (processor := measured.processor_sentence) is not None:
        console.print(processor)
    console.print(str(this_machine()), style="dim")
    if measured.witness is not None:
        console.print(f"witness: {measured.witness.sentence}", style="dim")

    record: dict[str, Any] = measured.record(max_misses)
    if roofline and not measured.interrupted:
        console.print(
            "timing the other pace, then this machine's memory and arithmetic…", style="dim"
        )
        other = measure(options, ticks=ticks, paced=not paced, budget_ms=budget_ms, source=robot)
        record["other_pace"] = other.record(max_misses)
        record["interrupted"] = other.interrupted
        if not other.interrupted:
            found = _assess(options, measured, other)
            console.print(*roofline_report(found, GATO_SPEC), sep="\n")
            record["roofline"] = found.record(GATO_SPEC)

    write_json(json, "profile", record)
    if plot is not None:
        with spared("picture"):
            draw_latency(plot, sentence, measured.telemetry, measured.deadline_ms)
    if record["interrupted"]:
        raise KeyboardInterrupt
    return verdict(measured.holds(max_misses))


def _require_policy(options: LoopOptions) -> None:
    """Check the policy and its task, before a sentence says that they are timed."""
    manifest = load_manifest(options.bundle)
    if options.task is not None:
        task_of(manifest, options.task)


def _counted(options: LoopOptions) -> LoopOptions:
    """Return options whose passes are those whose work the roofline counts.

    Raises:
        ConfigError: others are asked for.
    """
    if options.decoding not in (None, "greedy"):
        raise ConfigError(
            f"--roofline counts greedy passes: leave out --decoding {options.decoding}"
        )
    return options.model_copy(update={"decoding": "greedy"})


def _assess(options: PolicyOptions, one: Measurement, other: Measurement) -> Roofline:
    paced, flat_out = (one, other) if one.paced else (other, one)
    return assess(
        options,
        _measure_device(options),
        passes_p50_ms(paced.telemetry),
        passes_p50_ms(flat_out.telemetry),
    )


def _measure_device(options: PolicyOptions) -> Device:
    if options.engine in CPU_ENGINES:
        return measure_cpu()
    # Only a GPU is measured through PyTorch, which takes seconds to import.
    from gatort.export.roofline.gpu_rates import measure_gpu

    return measure_gpu()
