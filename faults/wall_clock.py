"""Fault of the wall clock (row 13): it jumps by an hour while the monotonic clock goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from .bench import Bench
from .judging import Deviation, InjectionResult, must_go_on, seeded
from .loop_bench import PERIOD_NS
from .run_process import running

AN_HOUR_S = 3600
SHIM = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long moved(void) {
    const char *file = getenv("GATORT_JUMP");
    return file && access(file, F_OK) == 0 ? %d : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    int status = syscall(SYS_clock_gettime, id, at);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += moved();
    return status;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
"""Library that moves the wall clock of one process once the file GATORT_JUMP exists."""


def jump(bench: Bench, seed: int) -> InjectionResult:
    """Let the wall clock of both processes jump by an hour; the machine's own stays as it is."""
    if shutil.which("gcc") is None:
        return InjectionResult(wrong="not run: expected gcc to build the clock that jumps")
    folder = bench.new_folder()
    folder.mkdir()
    source, library, file = folder / "shim.c", folder / "shim.so", folder / "jump"
    source.write_text(SHIM % AN_HOUR_S)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)

    environment = {"LD_PRELOAD": str(library), "GATORT_JUMP": str(file)}
    run_folder = bench.new_folder()
    with (
        bench.own_arm(environment=environment) as arm,
        running(arm.endpoint, run_folder, environment=environment) as run,
    ):
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait_within_a_tick(seeded(seed))
        before_s = _wall_clock_s(environment)
        file.touch()
        jumped_s = _wall_clock_s(environment) - before_s
        bench.wait(20 * PERIOD_NS)
        steps = bench.stop_run(arm, run, armed_ns)

    deviation = run.losses()
    if jumped_s < AN_HOUR_S:
        deviation = Deviation(wrong=f"expected a jump of an hour, found {jumped_s:.0f} s")
    return must_go_on(steps, deviation=deviation)


def _wall_clock_s(environment: dict[str, str]) -> float:
    """Return the time of day that a process under the library sees."""
    command = [sys.executable, "-P", "-c", "import time; print(time.time())"]
    variables = {**os.environ, **environment}
    return float(subprocess.run(command, env=variables, capture_output=True, check=True).stdout)
