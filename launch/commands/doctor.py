"""`gatort doctor`: the parts of this machine, the missing ones, and how to install them."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
from rich.table import Table
from rich.text import Text

from gatort.launch.outputs import require_writable
from gatort.launch.report import screen, write_json
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import verify
from gatort.runtime.clock import MonotonicClock, monotonic_clock_info
from gatort.runtime.compiler import COMPILER
from gatort.runtime.engines.cache import builder_version
from gatort.runtime.engines.tensorrt import Builder
from gatort.runtime.errors import GatortError
from gatort.runtime.exit_status import verdict
from gatort.runtime.finding import Finding
from gatort.runtime.grant import QUOTA_HINT, SHARED_MEMORY, read_grant, shared_memory_obstacle
from gatort.runtime.machine import this_machine
from gatort.runtime.packages import X86_64, install_hint, installed_version
from gatort.runtime.robots.franka.computer import examine_arm_computer
from gatort.sim.film import time_one_frame
from gatort.sim.graphics import INSTALL_HINT, choose_gl

WAKE_UPS = 100
"""Number of wake-ups that are timed."""
WAKE_UP_PERIOD_NS = 5_000_000
"""Time between two wake-ups."""
LEAST_MEMORY_GIB = 1.0
"""Memory of a run with cameras, its recorder and a picture of its latency."""
LIMITS_HINT = "to /etc/security/limits.conf and log in again"


def doctor(*, address: str | None = None, json: Path | None = None) -> int:
    """List the parts of this machine, and how to install the missing ones.

    Exit status 1 when a part that gatort needs is missing.

    Parameters
    ----------
    address
        IP address of a Franka arm's control box: examine this machine as its computer, too. The arm
        does not move.
    json
        Write the findings to this file as well.
    """
    require_writable(json=json)
    findings = list(examine())
    if address is not None:
        findings += examine_arm_computer(address)
    screen(json).print(_table(findings))
    record = {"machine": asdict(this_machine()), "findings": [asdict(each) for each in findings]}
    write_json(json, "doctor", record)
    return verdict(not any(finding.state == "broken" for finding in findings))


def examine() -> Iterator[Finding]:
    """Yield the findings one after the other; none raises, whatever the machine lacks."""
    examinations: tuple[Callable[[], Finding], ...] = (
        _python, _processor, _memory, _shared_memory, _onnxruntime, _compiler, _shipped_bundle,
        _mujoco, _bullet, _franka, _gl, _rendered_frame, _matplotlib, _console, _torch, _tensorrt,
        _clock, _wake_up, _real_time_rights, _locked_memory,
    )  # fmt: skip
    for examination in examinations:
        yield examination()


def _table(findings: list[Finding]) -> Table:
    marks = {"ok": Text("✓", "green"), "absent": Text("–", "yellow"), "broken": Text("✗", "red")}
    table = Table(title=str(this_machine()), title_justify="left")
    for column in ("", "subject", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, finding.found, finding.mend)
    return table


def _python() -> Finding:
    found = platform.python_version()
    if found.startswith("3.11."):
        return Finding("Python", "ok", found)
    return Finding("Python", "absent", found, "gatort is tested with Python 3.11")


def _processor() -> Finding:
    grant = read_grant()
    found = this_machine().hardware
    if grant.limited:
        return Finding("processor", "absent", f"{found}; {grant.throttling}", QUOTA_HINT)
    if grant.cores >= 2:
        return Finding("processor", "ok", found)
    mend = "two cores or more keep the loop and the engine apart"
    return Finding("processor", "absent", found, mend)


def _memory() -> Finding:
    limit = read_grant().memory_limit_bytes
    gib = this_machine().memory_gib
    found = f"{gib:g} GiB{'' if limit is None else ', by the limit of a control group'}"
    if gib >= LEAST_MEMORY_GIB:
        return Finding("memory", "ok", found)
    mend = f"expected {LEAST_MEMORY_GIB:g} GiB: raise it (docker --memory, MemoryMax=, memory.max)"
    return Finding("memory", "absent", found, mend)


def _shared_memory() -> Finding:
    if (obstacle := shared_memory_obstacle()) is None:
        return Finding("shared memory", "ok", SHARED_MEMORY)
    found = f"locks of several workers need it: {obstacle}"
    mend = f"mount a tmpfs on {SHARED_MEMORY}, or pass --workers 1"
    return Finding("shared memory", "absent", found, mend)


def _onnxruntime() -> Finding:
    names = onnxruntime.get_available_providers()
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in names)
    return Finding("ONNX Runtime", "ok", f"{onnxruntime.__version__}; providers {providers}")


def _compiler() -> Finding:
    if platform.machine() != X86_64:
        found = f"{platform.machine()}: --engine native is written for x86-64"
        return Finding("C compiler", "absent", found, "use --engine onnx")
    if compiler := shutil.which(COMPILER):
        return Finding("C compiler", "ok", f"{compiler}, for --engine native and a Franka arm")
    mend = "on Debian, apt-get install gcc libc6-dev"
    return Finding("C compiler", "absent", f"no {COMPILER}, so no --engine native", mend)


def _shipped_bundle() -> Finding:
    try:
        manifest = verify(SHIPPED_BUNDLE)
    except GatortError as error:
        mend = "check the files out or install gatort again"
        return Finding("shipped bundle", "broken", str(error), mend)
    parameters = f"{manifest.training.parameters:,} parameters"
    return Finding("shipped bundle", "ok", f"{manifest.name}, {parameters}")


def _mujoco() -> Finding:
    return _package("simulator", "mujoco-core", "sim")


def _bullet() -> Finding:
    return _package("second simulator", "pybullet", "pybullet")


def _franka() -> Finding:
    return _package("Franka hand", "pylibfranka", "franka")


def _matplotlib() -> Finding:
    return _package("latency pictures", "matplotlib", "trials")


def _console() -> Finding:
    return _package("console in a browser", "uvicorn", "console")


def _torch() -> Finding:
    return _package("training", "torch", "train")


def _package(subject: str, package: str, extra: str) -> Finding:
    if found := installed_version(package):
        return Finding(subject, "ok", f"{package} {found}")
    return Finding(subject, "absent", f"no {package}", install_hint(package, extra))


def _tensorrt() -> Finding:
    builders: tuple[Builder, ...] = get_args(Builder)
    versions = {builder: builder_version(builder) for builder in builders}
    if found := [f"{builder} {version}" for builder, version in versions.items() if version]:
        return Finding("TensorRT", "ok", ", ".join(found))
    mend = install_hint("tensorrt-rtx", "tensorrt")
    return Finding("TensorRT", "absent", "neither tensorrt-rtx nor tensorrt", mend)


def _gl() -> Finding:
    if not installed_version("mujoco-core"):
        return Finding("GL", "absent", "not tried: no simulator", "pip install 'gatort[sim]'")
    asked = os.environ.get("MUJOCO_GL")
    if found := choose_gl():
        return Finding("GL", "ok", f"MUJOCO_GL={found}")
    refused = f"MUJOCO_GL={asked} draws nothing" if asked else "no library draws"
    return Finding("GL", "absent", refused, INSTALL_HINT)


def _rendered_frame() -> Finding:
    if not installed_version("mujoco-core") or not choose_gl():
        return Finding("rendered frame", "absent", "not tried: no GL", INSTALL_HINT)
    try:
        frame_ms, brightness = time_one_frame()
    except GatortError as error:
        return Finding("rendered frame", "absent", str(error), INSTALL_HINT)
    found = f"one 64×64 camera in {frame_ms:.1f} ms, mean brightness {brightness:.0f} of 255"
    return Finding("rendered frame", "ok", found)


def _clock() -> Finding:
    implementation, resolution_s = monotonic_clock_info()
    found = f"{implementation}, {resolution_s * 1e9:.0f} ns"
    if resolution_s <= 1e-6:
        return Finding("clock", "ok", found)
    mend = "a control loop needs a monotonic clock of 1 µs or finer"
    return Finding("clock", "broken", found, mend)


def _wake_up() -> Finding:
    clock = MonotonicClock()
    late_ns = np.empty(WAKE_UPS, np.int64)
    deadline_ns = clock.now_ns()
    for index in range(WAKE_UPS):
        deadline_ns += WAKE_UP_PERIOD_NS
        clock.sleep_until_ns(deadline_ns)
        late_ns[index] = clock.now_ns() - deadline_ns

    median_ms = np.median(late_ns) * 1e-6
    worst_ms = late_ns.max() * 1e-6
    found = f"late by {median_ms:.2f} ms in the median, {worst_ms:.2f} ms at worst, of {WAKE_UPS}"
    if worst_ms < 5.0:
        return Finding("wake-up", "ok", found)
    mend = "stop other work, or run with --realtime.fifo-priority"
    return Finding("wake-up", "absent", found, mend)


def _real_time_rights() -> Finding:
    policy = os.sched_getscheduler(0)
    parameters = os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, parameters)
    except PermissionError:
        limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
        mend = f"add `USER - rtprio 80` {LIMITS_HINT}"
        return Finding("SCHED_FIFO", "absent", f"refused; rtprio limit {limit}", mend)
    return Finding("SCHED_FIFO", "ok", "granted")


def _locked_memory() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0:
        return Finding("locked memory", "ok", "no limit")
    found = f"at most {soft / 2**20:.0f} MiB"
    mend = f"add `USER - memlock unlimited` {LIMITS_HINT}"
    return Finding("locked memory", "absent", found, mend)
