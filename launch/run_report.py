"""Outcome of a live run in words and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gatort.runtime.envelope import ArmLimits
from gatort.runtime.live_run import LiveRun
from gatort.runtime.machine import this_machine
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote.client import RemoteRobot, remote_of
from gatort.runtime.robot import Robot
from gatort.runtime.robots.cameras.rig import cameras_of
from gatort.runtime.robots.franka.limits import FR3_LIMITS
from gatort.runtime.robots.panda import PANDA_LIMITS
from gatort.runtime.wording import counted

from .options import RunOptions
from .report import counts, latency_record, passes_record, percentile_record
from .slow_tick_table import slow_tick_records


def run_sentence(live: LiveRun, options: RunOptions) -> str:
    """Return the run in one line."""
    telemetry = live.telemetry
    # A run that was stopped has named its reasons already.
    reasons = "" if live.stopped else counts(live.refusals)
    where = options.robot if remote_of(live.robot) is not None else f"seed {options.seed}"
    parts = [part for part in (_outcome(live), live.ending) if part is not None]
    return (
        f"{where}: {', '.join(parts)} after {live.seconds:.1f} s; "
        f"{counted(telemetry.ticks, 'tick')} at {telemetry.rate.average_hz:.2f} Hz, "
        f"{counted(telemetry.misses, 'miss', 'misses')} of {live.budget_ms:g} ms, "
        f"{telemetry.refused} refused{reasons}, action deadline {live.deadline_ms:g} ms"
        f"{_clipped(live)}{_taken_over(live)}"
    )


def run_sentences(live: LiveRun, options: RunOptions) -> list[str]:
    """Return the run in one line, and a line on the processor if deadlines were missed."""
    processor = live.processor_sentence
    return [run_sentence(live, options), *([processor] if processor is not None else [])]


def recording_sentence(recorder: Recorder) -> str:
    """Return the line on the recording at the end of a run."""
    if recorder.complete:
        note = f" ({recorder.note})" if recorder.note is not None else ""
        return f"recording: {recorder.path}{note}"
    dropped = f", {counted(recorder.dropped, 'message')} dropped" if recorder.dropped else ""
    return f"recording DEGRADED: {recorder.path} is incomplete: {recorder.degraded}{dropped}"


def limits_of(robot: Robot) -> ArmLimits:
    """Return the limits of the arm: an FR3's, or those of a simulated Panda."""
    remote = remote_of(robot)
    return PANDA_LIMITS if remote is None or remote.simulated else FR3_LIMITS


def robot_sentences(robot: Robot) -> list[str]:
    """Return a line on the connection and a line for each camera of this computer."""
    remote = remote_of(robot)
    lines = [wire_sentence(remote)] if remote is not None else []
    return lines + [f"{camera.key.name}: {camera.status}" for camera in cameras_of(robot)]


def wire_sentence(robot: RemoteRobot) -> str:
    """Return the round trips, retries and clock offset of a connection in one line."""
    trips = robot.round_trips
    return (
        f"wire: round trip p50 {trips.p50_ms:.2f}, p99 {trips.p99_ms:.2f}, "
        f"max {trips.max_ms:.2f} ms over {counted(trips.count, 'answer')}; "
        f"{counted(robot.retries, 'retry', 'retries')}, "
        f"clock offset {robot.clock_offset_ns * 1e-6:+.3f} ms"
    )


def run_record(live: LiveRun, options: RunOptions, recorder: Recorder) -> dict[str, Any]:
    """Return the JSON form."""
    guard = live.loop.guard
    telemetry = live.telemetry
    remote = remote_of(live.robot)
    wire = {"wire": _wire_record(remote)} if remote is not None else {}
    if (takeover := live.loop.takeover) is not None:
        wire["takeover"] = {
            "device": takeover.device.name,
            "times": takeover.times,
            "ticks": takeover.ticks,
            "lost": takeover.is_lost,
        }
    if cameras := cameras_of(live.robot):
        wire["cameras"] = {each.key.name: asdict(each.status) for each in cameras}
    return {
        "bundle": live.policy.manifest.name if live.policy.manifest else None,
        "seed": options.seed,
        "succeeded": live.robot.succeeded,
        "stopped": live.stopped,
        "interrupted": live.interrupted,
        "ticks": telemetry.ticks,
        "seconds": live.seconds,
        "rate_hz": asdict(telemetry.rate),
        "budget_ms": live.budget_ms,
        "deadline_ms": live.deadline_ms,
        "misses": telemetry.misses,
        "missed_ticks": slow_tick_records(live.missed_ticks),
        "refused": {str(reason): count for reason, count in guard.refused.items()},
        "last_refusal": live.loop.refusal,
        "failure": live.failure,
        "limited": {str(reason): count for reason, count in guard.limited.items()},
        "clipped": dict(guard.clipped),
        "latency_ms": latency_record(telemetry.summary()),
        "passes": passes_record(telemetry.passes),
        **wire,
        "scheduling": live.scheduling,
        "processor": asdict(live.contention) if live.contention else None,
        "machine": asdict(this_machine()),
        "recording": recording_record(recorder),
    }


def recording_record(recorder: Recorder) -> dict[str, Any]:
    """Return the JSON form of a recording."""
    return {
        "file": str(recorder.path),
        "complete": recorder.complete,
        "degraded": recorder.degraded,
        "dropped": recorder.dropped,
    }


def _outcome(live: LiveRun) -> str:
    if live.is_dry:
        return "dry run"
    remote = remote_of(live.robot)
    if remote is not None and remote.successes > 1:
        return f"{remote.successes} successes"
    if live.robot.succeeded:
        return "success"
    return "no success" if live.has_task else live.policy.engine.name


def _clipped(live: LiveRun) -> str:
    """Return a clause on each key with values outside its range; empty without any."""
    return "".join(
        f"; {key} was outside its range in {count} of {counted(live.telemetry.ticks, 'tick')}"
        for key, count in live.loop.guard.clipped.most_common()
    )


def _taken_over(live: LiveRun) -> str:
    """Return a clause on the ticks of a person; empty without any."""
    takeover = live.loop.takeover
    if takeover is None or not takeover.times:
        return ""
    times, ticks = counted(takeover.times, "time"), counted(takeover.ticks, "tick")
    return f"; a person took over {times}, for {ticks}"


def _wire_record(robot: RemoteRobot) -> dict[str, Any]:
    return {
        "robot": robot.name,
        "simulated": robot.simulated,
        "successes": robot.successes,
        "round_trip_ms": percentile_record(robot.round_trips),
        "clock_offset_ms": robot.clock_offset_ns * 1e-6,
        "retries": robot.retries,
        "outdated": robot.outdated,
        "malformed": robot.malformed,
        "dropped": robot.dropped,
    }
