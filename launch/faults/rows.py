"""The faults that gatort must survive, one row each: what must happen, how soon, and what injects it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import (
    deciding,
    ending,
    linking,
    storing,
)
from .bench import (
    Bench,
    Outcome,
)

Inject = Callable[[Bench, int], Outcome]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a component fails; PX4 names its failures so."""

    component: str
    type: str
    inject: Inject
    times: int = 1
    """How often, each with a seed of its own."""
    anywhere: bool = False
    """Whether it happens in a controller alone, so that it can be injected into any arm."""


@dataclass(frozen=True, slots=True)
class Row:
    """Faults with one expectation."""

    number: int
    expected: str
    faults: tuple[Fault, ...]
    detection_ms: float | None = None
    """At most; none where nothing is bounded."""
    safe_ms: float | None = None
    """At most until the safe command is in effect; none where the arm goes on, or never moved."""
    measured: str = "detection"
    """What the time of detection is, where it is something else."""


def _sensor(component: str, kind: str, times: int = 3) -> Fault:
    return Fault(component, kind, partial(deciding.sensor, f"{component} {kind}"), times)  # type: ignore[arg-type]


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
        (Fault("policy", "late", deciding.late, 4, anywhere=True),),
        50,
    ),
    Row(5, "SAFE by the robot's watchdog", (Fault("policy", "hang", deciding.hang, 4),), 100, 150),
    Row(
        6,
        "the whole action is void; HOLD, SAFE",
        (
            Fault("policy", "nan", deciding.nan_logits, 3, anywhere=True),
            Fault("policy", "illegal_token", deciding.illegal_token, 3, anywhere=True),
        ),
        50,
        150,
    ),
    Row(
        7,
        "limited and flagged; not finite refused",
        (
            Fault("torque", "range", deciding.over_range, 2, anywhere=True),
            Fault("torque", "rate", deciding.over_rate, 2, anywhere=True),
            Fault("torque", "nan", partial(deciding.not_finite, float("nan")), 2, anywhere=True),
            Fault("torque", "inf", partial(deciding.not_finite, float("inf")), 2, anywhere=True),
            Fault("torque", "unguarded", deciding.unguarded, 2),
        ),
        50,
        150,
    ),
    Row(
        8,
        "one: HOLD; more: SAFE",
        (
            Fault("link", "loss_once", partial(linking.lost, 1), 3),
            Fault("link", "loss", partial(linking.lost, 1_000), 3),
        ),
        75,
        150,
    ),
    Row(9, "dropped; no change of state", (Fault("link", "repeat", linking.repeated, 3),)),
    Row(
        10,
        "not let in; counted; no change of state",
        (
            Fault("key", "unknown", partial(linking.intruder, "unknown"), 2),
            Fault("key", "none", partial(linking.intruder, "none"), 2),
            Fault("session", "forged", linking.forged, 2),
        ),
        2_000,
    ),
    Row(
        11,
        "refused, naming the file",
        (Fault("key", "wrong_robot", linking.wrong_server, 3),),
        2_000,
    ),
    Row(
        12,
        "dropped; no tick over a period",
        (
            Fault("message", "huge", linking.flood_huge),
            Fault("message", "random", linking.flood_random),
            Fault("message", "nested", linking.flood_nested),
            Fault("message", "parts", linking.flood_parts),
        ),
        50,
        measured="the longest tick",
    ),
    Row(13, "nothing changes", (Fault("wall_clock", "jump", ending.wall_clock),)),
    Row(
        14,
        "SAFE by the robot's process",
        (Fault("controller", "kill", ending.controller_killed, 3),),
        100,
        150,
    ),
    Row(
        15,
        "SAFE; nothing moves on resume",
        (Fault("controller", "suspend", ending.controller_suspended, 3),),
        100,
        150,
    ),
    Row(
        16,
        "the controller says so and ends",
        (Fault("robot", "kill", ending.robot_killed, 3),),
        100,
    ),
    Row(17, "no tick lost; marked incomplete", (Fault("disk", "full", storing.disk_full),)),
    Row(
        18,
        "readable to the last chunk",
        (
            Fault("recorder", "kill", storing.recorder_killed),
            Fault("recorder", "kill_controller", storing.recorded_controller_killed),
        ),
        1_000,
        150,
        measured="lost at the end",
    ),
    Row(
        19,
        "SAFE; no retry",
        (Fault("policy", "raise", deciding.device_lost, 3, anywhere=True),),
        100,
        150,
    ),
    Row(
        20,
        "refused before loading, naming the file",
        (
            Fault("bundle", "truncated", storing.truncated),
            Fault("bundle", "tampered", storing.tampered),
            Fault("bundle", "shape", storing.reshaped),
        ),
        measured="until refused",
    ),
    Row(
        21,
        "exit 2, naming the key; nothing armed",
        (
            Fault("configuration", "nan", storing.nan_limit),
            Fault("configuration", "unknown_key", storing.unknown_key),
            Fault("configuration", "no_rate", storing.no_rate),
            Fault("configuration", "timeout", storing.long_timeout),
        ),
        measured="until refused",
    ),
    Row(
        22,
        "misses counted; wakes in time",
        (Fault("cpu", "busy", ending.busy, 2),),
        5,
        measured="wake-up lateness, p99",
    ),
    Row(
        23,
        "SAFE within a tick; latched",
        (
            Fault("operator", "interrupt", ending.interrupt, 2),
            Fault("operator", "console_lost", ending.console_lost, 2),
            Fault("operator", "key", ending.key, 3),
            Fault("operator", "button", ending.button, 3),
        ),
        50,
        100,
    ),
    Row(
        24,
        "drops; no tick lost",
        (
            Fault("output", "unread", ending.output_unread),
            Fault("viewer", "hang", ending.viewer_hung),
        ),
    ),
)
