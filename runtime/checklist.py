"""The checklist before an operator's consent: arm, cameras, policy, disk and deadline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from .errors import ObservationError
from .facts import Fact
from .live_run import LiveRun
from .policy import Policy
from .remote.client import RemoteRobot
from .robot import Robot
from .robots.cameras.frames import PictureSource
from .robots.cameras.rig import camera_facts
from .robots.sensors.robot import SensorRobot
from .robots.wrapped import layers
from .wording import counted

POLICY: Final = "policy"
"""Name of the row that tells which policy drives."""
LEAST_FREE_BYTES: Final = 1_000_000_000
"""Free disk below which a recording may not find room."""


def checklist(
    live: LiveRun,
    robot: RemoteRobot,
    cameras: Sequence[PictureSource],
    recording: Path,
) -> Iterator[Fact]:
    """Yield the rows, before the arm is armed.

    Args:
        live: run that has not begun.
        robot: arm at the other end of the wire.
        cameras: cameras of this computer.
        recording: file of the recording.
    """
    kind = "simulated" if robot.simulated else "real"
    yield Fact("arm", f"{robot.name} at {robot.endpoint}, {kind}")
    yield from robot.facts
    yield from camera_facts(cameras, live.clock.now_ns())
    yield from _sensor_facts(live.robot, live.clock.now_ns())
    known = {camera.key.name for camera in cameras} | {fact.name for fact in robot.facts}
    for index in robot.interface.pictures:
        if (name := robot.interface.observations[index].name) not in known:
            yield Fact(name, "from the robot, of unknown age")
    yield _observation_fact(live)
    yield _policy_fact(live.policy)
    if (takeover := live.loop.takeover) is not None:
        yield Fact("takeover", f"{takeover.device.name}; {takeover.device.help}")
    yield _disk_fact(recording)
    spec = live.policy.spec
    yield Fact(
        "deadline",
        f"an action {spec.action_delay_ms} ms after its observation, {spec.control_hz} ticks a "
        f"second, {live.ticks / spec.control_hz:g} s at most",
    )


def _sensor_facts(robot: Robot, now_ns: int) -> list[Fact]:
    """Return the rows of each sensor; one that gives keys in two ways has one row of its own."""
    sensing = [layer for layer in layers(robot) if isinstance(layer, SensorRobot)]
    return list(dict.fromkeys(fact for layer in sensing for fact in layer.facts(now_ns)))


def _observation_fact(live: LiveRun) -> Fact:
    """Observe once, with every sensor and camera, and check the units of the values."""
    keys = counted(len(live.robot.interface.observations), "key")
    try:
        observation = live.robot.observe()
        live.loop.guard.require_units(observation)
    except ObservationError as error:
        return Fact("observation", keys, str(error))
    age_ms = (live.clock.now_ns() - observation.stamp_ns) * 1e-6
    return Fact("observation", f"{keys}, joints {age_ms:.1f} ms old")


def _policy_fact(policy: Policy) -> Fact:
    if policy.manifest is None:
        return Fact(POLICY, f"{policy.engine.name}, no policy")
    name = f"{policy.manifest.name}, engine {policy.engine.name}"
    if (record := policy.manifest.success) is None:
        return Fact(POLICY, name, "it was never tried: run `gatort trials` with it first")
    return Fact(POLICY, f"{name}; {record.successes} of {record.trials} simulated trials")


def _disk_fact(recording: Path) -> Fact:
    folder = recording.absolute().parent
    free_bytes = shutil.disk_usage(folder).free
    scarce = free_bytes < LEAST_FREE_BYTES
    attention = f"expected {LEAST_FREE_BYTES * 1e-9:g} GB: free some, or choose another --record"
    return Fact("disk", f"{free_bytes * 1e-9:.1f} GB free in {folder}", attention if scarce else "")
