"""A person takes the arm and gives it back, through the same guard and into the same context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Mark, no_mark
from gatort.runtime.errors import ConfigError
from gatort.runtime.guard import Refusal
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.runtime.safety import State
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, PolicySpec
from gatort.runtime.takeover.takeover import Takeover

from .conftest import HeldDevice


def run(
    loop: ControlLoop, ticks: int, at: dict[int, Callable[[], None]] | None = None
) -> list[TickRecord]:
    """Run, and call each function of `at` in the slack before its tick."""
    records: list[TickRecord] = []

    def look(record: TickRecord) -> None:
        records.append(record)
        act = (at or {}).get(record.wake.tick + 1)
        if act is not None:
            act()

    loop.run(ticks, look)
    return records


def setting(device: HeldDevice, **fields: object) -> Callable[[], None]:
    def act() -> None:
        for name, value in fields.items():
            setattr(device, name, value)

    return act


def test_only_the_ticks_of_the_person_are_theirs(loop: ControlLoop, device: HeldDevice) -> None:
    records = run(
        loop,
        30,
        {
            10: setting(device, drives=True, linear_m_s=(0.0, 0.0, 0.1)),
            20: setting(device, drives=False),
        },
    )
    assert [record.by_person for record in records] == [False] * 10 + [True] * 10 + [False] * 10
    assert loop.takeover is not None
    assert (loop.takeover.times, loop.takeover.ticks) == (1, 10)
    assert all(record.command is not None for record in records)
    torques = [np.abs(record.command.values[:7]).max() for record in records if record.command]
    assert max(torques[10:20]) > 1.0
    assert max(torques[:10] + torques[20:]) < 0.1


def test_the_policy_goes_on_from_what_the_person_did(loop: ControlLoop, device: HeldDevice) -> None:
    frames: list[list[int]] = []
    engine = loop.decoder.engine
    tick = engine.tick

    def watched(frame: Frame, mark: Mark = no_mark) -> None:
        frames.append(frame.prefill.ids[0].tolist())
        tick(frame, mark)

    engine.tick = watched  # type: ignore[method-assign]
    records = run(
        loop, 6, {2: setting(device, drives=True, width_m=0.0), 4: setting(device, drives=False)}
    )
    for before, frame in zip(records, frames[1:], strict=False):
        assert before.decision is not None
        assert frame[0] == before.decision.tokens[-1]
    hands = [record.decision.tokens[-1] for record in records if record.decision]
    assert [int(hand) - FIRST_CONTINUOUS_ID for hand in hands] == [1023, 1023, 0, 0, 1023, 1023]
    assert loop.decoder.frames == 6


def test_a_persons_action_is_rounded_to_bins_like_a_policys(
    loop: ControlLoop, device: HeldDevice
) -> None:
    device.drives = True
    device.linear_m_s = (0.1, 0.0, 0.0)
    for record in run(loop, 5):
        assert record.decision is not None
        assert record.command is not None
        again = loop.decoder.tokenizer.encode_action(record.decision.action)
        assert again.tolist() == record.decision.tokens.tolist()


def test_taking_over_arms_nothing(loop: ControlLoop, device: HeldDevice) -> None:
    device.drives = True
    record = TickRecord(loop.pacer.wait())
    loop.telemetry.begin(record.wake)
    loop.step(record)
    assert record.command is None
    assert loop.robot.state is State.DISARMED


def test_a_person_cannot_leave_safe_or_latched(loop: ControlLoop, device: HeldDevice) -> None:
    device.drives = True

    def stop() -> None:
        loop.robot.stop()

    records = run(loop, 40, {10: stop})
    assert len(records) < 15
    assert loop.robot.state in (State.SAFE, State.LATCHED)


def test_the_persons_stop_is_the_operators_stop(loop: ControlLoop, device: HeldDevice) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(loop, 40, {10: setting(device, stops=True)})
    assert loop.robot.state is State.SAFE


def test_an_arm_whose_person_falls_silent_halts_and_is_then_stopped(
    loop: ControlLoop, device: HeldDevice, clock: VirtualClock
) -> None:
    def unplug() -> None:
        device.silent_since_ns = clock.now_ns()

    device.drives = True
    device.linear_m_s = (0.0, 0.0, 0.1)
    records = run(loop, 60, {10: unplug})
    assert loop.guard.refused == {Refusal.TAKEOVER: 2}
    assert loop.guard.state is State.SAFE
    # One second of halting, then HOLD and SAFE.
    assert len(records) == 10 + 20 + 2
    assert all(record.by_person for record in records)
    assert "found none for 1100 ms" in (loop.refusal or "")
    speeds = [
        np.abs(record.observation.values[1]).max() for record in records if record.observation
    ]
    assert speeds[12] > 0.05
    assert speeds[-1] < 0.01


def test_a_device_that_is_lost_leaves_the_policy_its_arm(
    loop: ControlLoop, device: HeldDevice, clock: VirtualClock
) -> None:
    device.silent_since_ns = clock.now_ns()
    records = run(loop, 60, {40: setting(device, drives=True)})
    assert len(records) == 60
    assert not any(record.by_person for record in records)
    assert loop.takeover is not None
    assert loop.takeover.status == "the policy: the device is lost"


def test_a_device_that_is_heard_again_goes_on(
    loop: ControlLoop, device: HeldDevice, clock: VirtualClock
) -> None:
    def pause() -> None:
        device.silent_since_ns = clock.now_ns()

    device.drives = True
    records = run(loop, 40, {10: pause, 20: setting(device, silent_since_ns=None)})
    assert len(records) == 40
    assert all(record.by_person and record.command is not None for record in records)


def test_a_silent_device_does_not_give_the_arm_back(
    loop: ControlLoop, device: HeldDevice, clock: VirtualClock
) -> None:
    def pause() -> None:
        device.silent_since_ns = clock.now_ns()

    device.drives = True
    records = run(loop, 25, {10: pause, 18: setting(device, drives=False)})
    assert len(records) == 25
    assert all(record.by_person for record in records)


def test_the_gripper_keeps_its_command_until_the_person_asks(
    loop: ControlLoop, device: HeldDevice
) -> None:
    records = run(loop, 30, {10: setting(device, drives=True), 20: setting(device, width_m=0.0)})
    widths = [record.command.values[7] for record in records if record.command]
    assert min(widths[:20]) > GRIPPER_OPEN_M - 1e-4
    assert max(widths[20:]) < 1e-4


def test_a_gripper_that_was_never_commanded_keeps_its_opening(
    loop: ControlLoop, device: HeldDevice
) -> None:
    device.drives = True
    records = run(loop, 5)
    assert all(record.command.values[7] > 0.07 for record in records if record.command)


def test_who_has_the_arm_is_said(loop: ControlLoop, device: HeldDevice) -> None:
    assert loop.takeover is not None
    assert loop.takeover.status == "the policy; [t] take over"
    device.drives = True
    run(loop, 1)
    assert loop.takeover.status == "a person (device); [t] take over"


def test_passes_and_guesses_of_a_persons_ticks_are_not_the_policys(
    loop: ControlLoop, device: HeldDevice
) -> None:
    run(loop, 10, {4: setting(device, drives=True)})
    assert loop.telemetry.passes.ticks.sum() == 4
    assert loop.telemetry.refused == 0


def test_a_robot_of_another_kind_is_refused(
    spec: PolicySpec, device: HeldDevice, clock: VirtualClock
) -> None:
    with pytest.raises(ConfigError, match="expected the keys arm/joint_position and"):
        Takeover(device, spec, clock)
