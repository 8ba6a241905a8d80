"""The faults that gatort must survive: expectation, bounds and injection of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from . import (
    bundles,
    commands,
    configuration,
    joints,
    keys,
    machine_load,
    messages,
    onlookers,
    operator_stop,
    policy,
    processes,
    recordings,
    sensors,
    torques,
    wall_clock,
)
from .judging import InjectionResult
from .loop_bench import LoopBench
from .sensor_memory import SensorFault

Inject = Callable[[Any, int], InjectionResult]
"""Injects a fault into a bench of its table, with a seed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a component fails, named as PX4 names its failures."""

    component: str
    type: str
    inject: Inject
    times: int = 1
    """Number of injections, each with a seed of its own."""
    anywhere: bool = False
    """True if it happens in a controller alone, so that it can be injected into any arm."""

    @property
    def name(self) -> str:
        """Component and type, as on the command line."""
        return f"{self.component} {self.type}"


@dataclass(frozen=True, slots=True)
class Row:
    """Faults with one expectation."""

    number: int
    expected: str
    faults: tuple[Fault, ...]
    detection_ms: float | None = None
    """Longest time to detection; `None` where it has no bound. ms"""
    safe_ms: float | None = None
    """Longest time to the safe command; `None` where the arm goes on or never moved. ms"""
    measured: str = "detection"
    """Name of the time to detection where the row measures another time."""


def _sensor(
    component: str,
    kind: str,
    inject: Callable[[SensorFault, LoopBench, int], InjectionResult] = sensors.sensor,
) -> Fault:
    fault = cast(SensorFault, f"{component} {kind}")
    return Fault(component, kind, partial(inject, fault), times=3)


ROWS = (
    Row(
        1,
        "nothing inferred from it; HOLD, SAFE",
        tuple(
            _sensor(component, kind)
            for component in ("camera", "joint_state")
            for kind in ("frozen", "absent")
        ),
        75,
        165,
    ),
    Row(
        2,
        "refused before tokenizing; HOLD, SAFE",
        (_sensor("joint_state", "nan"), _sensor("joint_state", "inf")),
        50,
        150,
    ),
    Row(3, "refused before tokenizing; HOLD, SAFE", (_sensor("joint_state", "jump"),), 50, 150),
    Row(
        4,
        "dropped; HOLD for a tick",
        (Fault("policy", "late", policy.late, 4, anywhere=True),),
        50,
    ),
    Row(5, "SAFE by the robot's watchdog", (Fault("policy", "hang", policy.hang, 4),), 100, 150),
    Row(
        6,
        "the whole action is void; HOLD, SAFE",
        (
            Fault("policy", "nan", policy.nan_logits, 3, anywhere=True),
            Fault("policy", "illegal_token", policy.illegal_token, 3, anywhere=True),
        ),
        50,
        150,
    ),
    Row(
        7,
        "limited and flagged; not finite refused",
        (
            Fault("torque", "range", torques.over_range, 2, anywhere=True),
            Fault("torque", "rate", torques.over_rate, 2, anywhere=True),
            Fault("torque", "nan", torques.not_a_number, 2, anywhere=True),
            Fault("torque", "inf", torques.infinite, 2, anywhere=True),
            Fault("torque", "unguarded", torques.unguarded, 2),
        ),
        50,
        150,
    ),
    Row(
        8,
        "one: HOLD; more: SAFE",
        (
            Fault("link", "loss_once", commands.lost_once, 3),
            Fault("link", "loss", commands.lost_for_good, 3),
        ),
        75,
        150,
    ),
    Row(9, "dropped; no change of state", (Fault("link", "repeat", commands.repeated, 3),)),
    Row(
        10,
        "not let in; counted; no change of state",
        (
            Fault("key", "unknown", keys.unknown_key, 2),
            Fault("key", "none", keys.no_key, 2),
            Fault("session", "forged", keys.forged, 2),
        ),
        2_000,
    ),
    Row(
        11,
        "refused, naming the file",
        (Fault("key", "wrong_robot", keys.wrong_robot, 3),),
        2_000,
    ),
    Row(
        12,
        "dropped; no tick over a period",
        (
            Fault("message", "huge", messages.huge),
            Fault("message", "random", messages.random),
            Fault("message", "nested", messages.nested),
            Fault("message", "parts", messages.parts),
        ),
        50,
        measured="the longest tick",
    ),
    Row(13, "nothing changes", (Fault("wall_clock", "jump", wall_clock.jump),)),
    Row(
        14,
        "SAFE by the robot's process",
        (Fault("controller", "kill", processes.controller_killed, 3),),
        100,
        150,
    ),
    Row(
        15,
        "SAFE; nothing moves on resume",
        (Fault("controller", "suspend", processes.controller_suspended, 3),),
        100,
        150,
    ),
    Row(
        16,
        "the controller says so and ends",
        (Fault("robot", "kill", processes.robot_killed, 3),),
        100,
    ),
    Row(17, "no tick lost; marked incomplete", (Fault("disk", "full", recordings.disk_full),)),
    Row(
        18,
        "readable to the last chunk",
        (
            Fault("recorder", "kill", recordings.recorder_killed),
            Fault("recorder", "kill_controller", recordings.recorded_controller_killed),
        ),
        1_000,
        150,
        measured="lost at the end",
    ),
    Row(
        19,
        "SAFE; no retry",
        (Fault("policy", "raise", policy.device_lost, 3, anywhere=True),),
        100,
        150,
    ),
    Row(
        20,
        "refused before loading, naming the file",
        (
            Fault("bundle", "truncated", bundles.truncated),
            Fault("bundle", "tampered", bundles.tampered),
            Fault("bundle", "shape", bundles.reshaped),
        ),
        measured="until refused",
    ),
    Row(
        21,
        "exit 2, naming the key; nothing armed",
        (
            Fault("configuration", "nan", configuration.nan_limit),
            Fault("configuration", "unknown_key", configuration.unknown_key),
            Fault("configuration", "no_rate", configuration.no_rate),
            Fault("configuration", "timeout", configuration.long_timeout),
        ),
        measured="until refused",
    ),
    Row(
        22,
        "misses counted; wakes in time",
        (Fault("cpu", "busy", machine_load.busy, 2),),
        5,
        measured="wake-up lateness, p99",
    ),
    Row(
        23,
        "SAFE within a tick; latched",
        (
            Fault("operator", "interrupt", operator_stop.interrupt, 2),
            Fault("operator", "console_lost", operator_stop.console_lost, 2),
            Fault("operator", "key", operator_stop.key, 3),
            Fault("operator", "button", operator_stop.button, 3),
        ),
        50,
        100,
    ),
    Row(
        24,
        "drops; no tick lost",
        (
            Fault("output", "unread", onlookers.output_unread),
            Fault("viewer", "hang", onlookers.viewer_hung),
        ),
    ),
    Row(
        25,
        "SAFE by the arm's envelope",
        tuple(_sensor("encoder", kind, joints.encoder) for kind in ("frozen", "drift", "nan")),
        200,
        250,
    ),
    Row(
        26,
        "SAFE by the robot's watchdog",
        (Fault("link", "every_second", commands.every_second_lost, 3),),
        900,
        1_000,
    ),
    Row(
        27,
        "SAFE; another door, and nobody armed",
        (
            Fault("door", "kill", processes.door_killed, 3),
            Fault("door", "suspend", processes.door_suspended, 2),
        ),
        100,
        150,
    ),
    Row(
        28,
        "SAFE by the arm's envelope",
        (_sensor("joint", "pressed", joints.pressed),),
        550,
        600,
    ),
    Row(
        29,
        "SAFE by the arm's envelope",
        (_sensor("encoder", "fast", joints.encoder),),
        50,
        100,
    ),
    Row(
        30,
        "SAFE by the arm's envelope",
        (_sensor("encoder", "at_limit", joints.encoder),),
        25,
        75,
    ),
    Row(
        31,
        "refused before tokenizing; HOLD, SAFE",
        (_sensor("joint_state", "repeated", sensors.repeated),),
        225,
        315,
    ),
    Row(
        32,
        "refused before it is armed, naming the key",
        (_sensor("joint_state", "degrees", sensors.other_unit),),
        measured="until refused",
    ),
)
