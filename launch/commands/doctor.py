"""`gatort doctor`: what this machine has, what is missing and the line that mends it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from rich.table import Table
from rich.text import Text

from gatort.launch.report import (
    require_writable,
    screen,
    write_json,
)
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import verify
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.engines.cache import builder_version
from gatort.runtime.engines.native_build import COMPILER
from gatort.runtime.engines.tensorrt import Builder
from gatort.runtime.errors import GatortError
from gatort.runtime.machine import this_machine
from gatort.runtime.packages import installed_version
from gatort.sim.graphics import (
    INSTALL_HINT,
    choose_gl,
)

WAKE_UPS = 100
WAKE_UP_PERIOD_NS = 5_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the examination."""

    subject: str
    state: Literal["ok", "absent", "broken"]
    """`absent` is something gatort goes on without; `broken` is something that it cannot."""
    found: str
    mend: str = ""
    """What to install or change; empty when there is nothing to mend."""


def doctor(*, json: Path | None = None) -> int:
    """Say what this machine has, what is missing and what to install for it.

    Exit status 1 when something that gatort cannot do without is missing.

    Parameters
    ----------
    json
        Write the findings to this file as well.
    """
    require_writable(json)
    findings = list(examine())
    table = Table(title=str(this_machine()), title_justify="left")
    for column in ("", "subject", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": Text("✓", "green"), "absent": Text("–", "yellow"), "broken": Text("✗", "red")}
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, finding.found, finding.mend)
    screen().print(table)
    write_json(
        json,
        {"machine": asdict(this_machine()), "findings": [asdict(finding) for finding in findings]},
    )
    return int(any(finding.state == "broken" for finding in findings))


def examine() -> Iterator[Finding]:
    """Yield one finding after the other; none raises, whatever the machine lacks."""
    examinations: list[Callable[[], Finding]] = [
        _python, _processor, _onnxruntime, _compiler, _shipped_bundle, _mujoco, _bullet, _franka, _gl, _rendered_frame,
        _matplotlib, _torch, _tensorrt, _clock, _wake_up, _real_time_rights, _locked_memory,
    ]  # fmt: skip
    for examination in examinations:
        yield examination()


def _python() -> Finding:
    found = platform.python_version()
    if found.startswith("3.11."):
        return Finding("Python", "ok", found)
    return Finding("Python", "absent", found, "Python 3.11 is what gatort is tested with")


def _processor() -> Finding:
    machine = this_machine()
    found = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:.0f} GiB"
    if machine.cores >= 2:
        return Finding("processor", "ok", found)
    return Finding(
        "processor", "absent", found, "two cores or more keep the loop and the engine apart"
    )


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("ONNX Runtime", "broken", str(error), "pip install onnxruntime")
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    )
    return Finding("ONNX Runtime", "ok", f"{onnxruntime.__version__}; providers {providers}")


def _compiler() -> Finding:
    if compiler := shutil.which(COMPILER):
        return Finding("C compiler", "ok", f"{compiler}: --engine native")
    mend = "on Debian, apt-get install gcc libc6-dev"
    return Finding("C compiler", "absent", f"no {COMPILER}, so no --engine native", mend)


def _shipped_bundle() -> Finding:
    try:
        manifest = verify(SHIPPED_BUNDLE)
    except GatortError as error:
        return Finding(
            "shipped bundle", "broken", str(error), "check the files out or install gatort again"
        )
    return Finding(
        "shipped bundle", "ok", f"{manifest.name}, {manifest.training.parameters:,} parameters"
    )


def _mujoco() -> Finding:
    return _package("simulator", "mujoco-core", "pip install 'gatort[sim]'")


def _bullet() -> Finding:
    return _package("second simulator", "pybullet", "pip install 'gatort[pybullet]'")


def _franka() -> Finding:
    return _package("Franka arm", "pylibfranka", "pip install 'gatort[franka]'")


def _matplotlib() -> Finding:
    return _package("latency pictures", "matplotlib", "pip install 'gatort[trials]'")


def _torch() -> Finding:
    return _package("training", "torch", "pip install 'gatort[train]'")


def _package(subject: str, package: str, mend: str) -> Finding:
    found = installed_version(package)
    return (
        Finding(subject, "ok", f"{package} {found}")
        if found
        else Finding(subject, "absent", f"no {package}", mend)
    )


def _tensorrt() -> Finding:
    found = [
        f"{builder} {version}"
        for builder in get_args(Builder)
        if (version := builder_version(builder))
    ]
    if found:
        return Finding("TensorRT", "ok", ", ".join(found))
    return Finding(
        "TensorRT", "absent", "neither tensorrt-rtx nor tensorrt", "pip install 'gatort[tensorrt]'"
    )


def _gl() -> Finding:
    if not installed_version("mujoco-core"):
        return Finding("GL", "absent", "not tried: no simulator", "pip install 'gatort[sim]'")
    asked = os.environ.get("MUJOCO_GL")
    found = choose_gl()
    if found:
        return Finding("GL", "ok", f"MUJOCO_GL={found}")
    return Finding(
        "GL",
        "absent",
        f"MUJOCO_GL={asked} draws nothing" if asked else "no library draws",
        INSTALL_HINT,
    )


def _rendered_frame() -> Finding:
    if not installed_version("mujoco-core") or not choose_gl():
        return Finding("rendered frame", "absent", "not tried: no GL", INSTALL_HINT)
    from gatort.sim.film import time_one_frame

    try:
        frame_ms, brightness = time_one_frame()
    except GatortError as error:
        return Finding("rendered frame", "absent", str(error), INSTALL_HINT)
    return Finding(
        "rendered frame",
        "ok",
        f"one 64×64 camera in {frame_ms:.1f} ms, mean brightness {brightness:.0f} of 255",
    )


def _clock() -> Finding:
    clock = time.get_clock_info("monotonic")
    found = f"{clock.implementation}, {clock.resolution * 1e9:.0f} ns"
    if clock.resolution <= 1e-6:
        return Finding("clock", "ok", found)
    return Finding(
        "clock", "broken", found, "a control loop needs a monotonic clock of 1 µs or finer"
    )


def _wake_up() -> Finding:
    clock = MonotonicClock()
    late_ns = np.empty(WAKE_UPS, np.int64)
    deadline_ns = clock.now_ns()
    for index in range(WAKE_UPS):
        deadline_ns += WAKE_UP_PERIOD_NS
        clock.sleep_until_ns(deadline_ns)
        late_ns[index] = clock.now_ns() - deadline_ns
    median_ms, worst_ms = np.median(late_ns) * 1e-6, late_ns.max() * 1e-6
    found = f"late by {median_ms:.2f} ms in the median, {worst_ms:.2f} ms at worst, of {WAKE_UPS}"
    if worst_ms < 5.0:
        return Finding("wake-up", "ok", found)
    return Finding(
        "wake-up", "absent", found, "stop other work, or run with --realtime.fifo-priority"
    )


def _real_time_rights() -> Finding:
    try:
        policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, parameters)
    except PermissionError:
        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        mend = "add `USER - rtprio 80` to /etc/security/limits.conf and log in again"
        return Finding("SCHED_FIFO", "absent", f"refused; rtprio limit {limit}", mend)
    return Finding("SCHED_FIFO", "ok", "granted")


def _locked_memory() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0:
        return Finding("locked memory", "ok", "no limit")
    mend = "add `USER - memlock unlimited` to /etc/security/limits.conf and log in again"
    return Finding("locked memory", "absent", f"at most {soft / 2**20:.0f} MiB", mend)
