"""Faults of files: recordings, bundles and configuration (rows 17, 18, 20 and 21)."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import MANIFEST_FILE
from gatort.runtime.recording.reader import Recording

from .bench import (
    GATORT,
    MS,
    PERIOD_NS,
    Bench,
    Outcome,
    RunProcess,
    children,
    limit_files,
    must_go_on,
    must_stop,
)
from .ending import (
    misses,
    random_wait,
    stop_run,
)

FULL_BYTES = 20_000
RECORDED_NS = 2_000 * MS
LOST_MS = 1_000.0
REFUSED_IN_S = 60.0
REFUSED = 2


# -- 17 and 18: recordings -----------------------------------------------------------------------------------------


def _recorder_of(run: RunProcess) -> int:
    """The process that writes a run's recording."""
    for child in children(run.process.pid):
        if b"recording.process" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise LookupError("the run has no recorder process")


def disk_full(bench: Bench, _: int) -> Outcome:
    """The recording can grow no further in the middle of a run: it is marked incomplete, and no tick is lost."""
    arm = bench.arm
    with bench.run_process(arm) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        limit_files(_recorder_of(run), FULL_BYTES)
        bench.clock.sleep_until_ns(bench.clock.now_ns() + RECORDED_NS)
        asked_ns = stop_run(bench, run)
        steps = arm.trace.since(armed_ns).until(asked_ns)
    wrong = misses(run)
    if "incomplete" not in " ".join(run.said.split()):
        wrong = f"the run does not say that its recording is incomplete: {run.said[-300:]!r}"
    return must_go_on(steps, wrong=wrong)


def killed_while_recording(
    who: Literal["recorder", "controller"], bench: Bench, seed: int
) -> Outcome:
    """SIGKILL of the process that records, or of the one that drives: the file is read to its last chunk."""
    arm = bench.arm
    with bench.run_process(arm) as run:
        armed_ns = bench.wait_for_motion(arm, run, RECORDED_NS)
        random_wait(bench, seed)
        killed_ns = bench.clock.now_ns()
        if who == "recorder":
            subprocess.run(["kill", "-9", str(_recorder_of(run))], check=True)
            bench.clock.sleep_until_ns(killed_ns + 10 * PERIOD_NS)
            outcome = must_go_on(
                arm.trace.since(armed_ns).until(stop_run(bench, run)), wrong=misses(run)
            )
        else:
            run.process.send_signal(signal.SIGKILL)
            outcome = must_stop(arm, armed_ns, killed_ns)
    bench.clock.sleep_until_ns(
        bench.clock.now_ns() + 2 * PERIOD_NS
    )  # The recorder outlives the controller and ends.
    newest_ns = max((stamped.at_ns for stamped in Recording(run.recording).messages()), default=0)
    lost_ms = (killed_ns - newest_ns) * 1e-6
    wrong = outcome.wrong or (
        f"{lost_ms:.0f} ms of the recording are lost" if lost_ms > LOST_MS else None
    )
    return Outcome(max(0.0, lost_ms), outcome.safe_ms, wrong)


recorder_killed, recorded_controller_killed = (
    partial(killed_while_recording, "recorder"),
    partial(killed_while_recording, "controller"),
)


# -- 20 and 21: what is refused before anything moves --------------------------------------------------------------


def _refusal(bench: Bench, words: tuple[str, ...], command: list[str]) -> Outcome:
    """A command has to exit with 2, in a sentence with these words, and the arm must not have been armed."""
    arm = bench.arm
    began_ns = bench.clock.now_ns()
    done = subprocess.run(
        [*GATORT, *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=REFUSED_IN_S,
        check=False,
    )
    took_ms = (bench.clock.now_ns() - began_ns) * 1e-6
    wrong = None
    missing = [word for word in words if word not in done.stderr]
    if done.returncode != REFUSED or missing:
        wrong = f"expected exit 2 and {', '.join(words)}, found {done.returncode}: {done.stderr.strip()[-300:]}"
    moved = arm.trace.since(began_ns)
    if len(moved.sequence) != 1 or moved.fault():
        wrong = f"the arm changed its state: {', '.join(moved.sequence)}"
    return Outcome(took_ms, None, wrong)


def _run_on(bench: Bench) -> list[str]:
    return [
        "run",
        "--robot",
        bench.arm.endpoint,
        "--arm",
        "--seconds",
        "1",
        "--plot",
        str(bench.folder / "none.png"),
    ]


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


def _change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bundle / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def _reshape(bundle: Path) -> tuple[str, ...]:
    _change_manifest(
        bundle, lambda manifest: manifest["model"].update(layers=manifest["model"]["layers"] + 1)
    )
    return ("policy.onnx",)


def _stop_the_clock(bundle: Path) -> tuple[str, ...]:
    _change_manifest(bundle, lambda manifest: manifest["spec"].update(control_hz=0))
    return "control_hz", "greater than 0"


def _unlimit(bundle: Path) -> tuple[str, ...]:
    _change_manifest(
        bundle, lambda manifest: manifest["spec"]["actuators"][0].update(high=float("nan"))
    )
    return "actuators.0.high", "finite number"


def damaged_bundle(damage: Callable[[Path], tuple[str, ...]], bench: Bench, _: int) -> Outcome:
    """`gatort run` on a bundle that is not whole or not valid: refused in the words that `damage` returns."""
    bundle = shutil.copytree(SHIPPED_BUNDLE, bench.new_folder())
    return _refusal(bench, damage(bundle), [*_run_on(bench), "--bundle", str(bundle)])


def unknown_key(bench: Bench, _: int) -> Outcome:
    """A launch profile with a key that nothing reads."""
    profile = bench.new_folder()
    profile.write_text("[realtime]\nfifo_prioriti = 80\n")
    return _refusal(
        bench, ("fifo_prioriti", "did you mean"), [*_run_on(bench), "--profile", str(profile)]
    )


def long_timeout(bench: Bench, _: int) -> Outcome:
    """An arm that would hold a command for longer than 200 ms."""
    return _refusal(bench, ("safe_after", "200 ms"), ["robot", "mujoco", "--safe-after-ms", "300"])


truncated, tampered, reshaped, no_rate, nan_limit = (
    partial(damaged_bundle, damage)
    for damage in (_truncate, _tamper, _reshape, _stop_the_clock, _unlimit)
)
