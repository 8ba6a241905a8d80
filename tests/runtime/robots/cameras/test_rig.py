"""Pictures in the observations of an arm, and the control loop when a camera fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.facts import Fact
from gatort.runtime.guard import Refusal
from gatort.runtime.loop import TickRecord
from gatort.runtime.robot import Robot
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import BadFrame, CameraFault, VideoFrame
from gatort.runtime.robots.cameras.intake import Intake
from gatort.runtime.robots.cameras.rig import CameraRig, CameraRobot, with_cameras
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec
from gatort.runtime.telemetry import Telemetry
from gatort.testing import RobotContract, scripted_policy

from .conftest import numbered_frame

MS = 1_000_000
FRAME_NS = 33 * MS
CONFIG = CameraConfig(source="file:clip.mp4", height_px=16, width_px=16)


class FedCamera(Intake):
    """A camera whose frames arrive at 30 Hz of a virtual clock, until it fails."""

    def __init__(self, name: str, clock: VirtualClock) -> None:
        super().__init__(name, CONFIG, clock)
        self.fault: CameraFault | None = None
        self.closed = False
        self._due_ns = clock.now_ns()
        self._number = 0

    def read(self) -> Any:
        while self._due_ns <= self._clock.now_ns():
            self._arrive(self._due_ns)
            self._due_ns += FRAME_NS
        return super().read()

    def _arrive(self, at_ns: int) -> None:
        if self.fault is CameraFault.TORN:
            self.refuse(BadFrame(CameraFault.TORN, "expected a whole JPEG, found half of one"))
        elif self.fault is not CameraFault.SILENT:
            if self.fault is not CameraFault.REPEATED:
                self._number += 1
            self.take(VideoFrame(numbered_frame(self._number), self._number, at_ns))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cameras(clock: VirtualClock) -> list[FedCamera]:
    return [FedCamera(name, clock) for name in ("wrist", "front")]


def driver(spec: PolicySpec, clock: VirtualClock, cameras: Sequence[FedCamera]) -> Driver:
    return with_cameras(ScriptedRobot(spec, clock), CameraRig(spec, cameras))


def robot(spec: PolicySpec, clock: VirtualClock, cameras: Sequence[FedCamera]) -> Robot:
    return CameraRobot(ScriptedRobot(spec, clock), CameraRig(spec, cameras))


class TestCameraRobots(RobotContract):
    @pytest.fixture(params=[driver, robot])
    def robot(
        self, request: pytest.FixtureRequest, spec: PolicySpec, clock: VirtualClock
    ) -> Iterator[Robot]:
        made: Robot = request.param(spec, clock, [FedCamera("front", clock)])
        yield made
        made.close()


@pytest.mark.parametrize("make", [driver, robot])
def test_pictures_stand_before_joint_values_in_order_of_their_names(
    spec: PolicySpec, clock: VirtualClock, cameras: list[FedCamera], make: Any
) -> None:
    arm = make(spec, clock, cameras)
    names = [key.name for key in arm.interface.observations]
    assert names == ["camera/front", "camera/wrist", "arm/position", "arm/velocity"]
    values = arm.observe().values
    assert [value.shape for value in values] == [(16, 16, 3), (16, 16, 3), (3,), (2,)]
    values[0][:] = 0  # The copy belongs to the observation.
    assert arm.observe().values[0].any()
    arm.close()
    assert all(camera.closed for camera in cameras)


def test_the_facts_give_each_cameras_size_and_age_or_its_fault(
    spec: PolicySpec, clock: VirtualClock, cameras: list[FedCamera]
) -> None:
    arm = driver(spec, clock, cameras)
    clock.advance_ns(20 * MS)
    age_ms = 20 + CONFIG.latency_ns // MS
    good = [Fact(f"camera/{name}", f"16×16, {age_ms} ms old") for name in ("front", "wrist")]
    assert list(arm.facts) == good
    cameras[1].fault = CameraFault.SILENT
    clock.advance_ns(1_000 * MS)
    front, wrist = arm.facts
    assert (front.value, wrist.attention) == ("no fresh picture", "")
    assert "camera/front" in front.attention


def test_the_stamp_stays_the_robots_own(
    spec: PolicySpec, clock: VirtualClock, cameras: list[FedCamera]
) -> None:
    arm = driver(spec, clock, cameras)
    assert arm.observe().stamp_ns == clock.now_ns()
    assert cameras[0].read().stamp_ns == clock.now_ns() - CONFIG.latency_ns


def test_an_arm_at_its_own_pace_keeps_it(spec: PolicySpec, clock: VirtualClock) -> None:
    class Paced(ScriptedRobot):
        own_pace = True

    rig = CameraRig(spec, [FedCamera("front", clock)])
    assert with_cameras(Paced(spec, clock), rig).own_pace
    assert not with_cameras(ScriptedRobot(spec, clock), rig).own_pace


def test_the_arm_keeps_its_one_inner_loop(spec: PolicySpec, clock: VirtualClock) -> None:
    arm = ScriptedRobot(spec, clock)
    seen = with_cameras(arm, CameraRig(spec, [FedCamera("front", clock)]))
    steps: list[int] = []
    seen.on_step = lambda at_ns, *_: steps.append(at_ns)
    clock.advance_ns(3 * MS)
    seen.advance()
    assert seen.inner_loop is arm.inner_loop
    assert len(steps) == 3


def test_a_key_that_the_robot_already_offers_is_refused(
    spec: PolicySpec, clock: VirtualClock
) -> None:
    seen = CameraRig(spec, [FedCamera("front", clock)]).interface
    with pytest.raises(ConfigError, match="already offers camera/front: name the camera"):
        CameraRig(seen, [FedCamera("front", clock)])


@pytest.mark.parametrize("fault", [CameraFault.SILENT, CameraFault.TORN, CameraFault.REPEATED])
@pytest.mark.parametrize("make", [driver, robot])
def test_a_camera_that_fails_leads_to_safe_and_its_return_arms_nothing(
    spec: PolicySpec, clock: VirtualClock, make: Any, fault: CameraFault
) -> None:
    camera = FedCamera("front", clock)
    arm = make(spec, clock, [camera])
    actions: NDArray[np.float64] = np.full((1, len(spec.actuators)), 5.0)
    policy = scripted_policy(arm.interface, actions)
    loop = policy.control(arm, clock, telemetry=Telemetry(policy.spec, 64, clock))
    failed_ns = 0
    refused: list[tuple[int, str]] = []
    states: list[State] = []

    def look(record: TickRecord) -> None:
        nonlocal failed_ns
        states.append(loop.guard.state)
        if record.refusal is not None:
            refused.append((clock.now_ns(), record.refusal))
        if len(states) == 5:
            camera.fault = fault
            failed_ns = camera._due_ns

    assert loop.run(40, look) < 12
    assert states[:5] == [State.RUN] * 5
    assert states[-2:] == [State.HOLD, State.SAFE]
    # Two ticks of 50 ms after the first bad frame was due.
    assert refused[0][0] - failed_ns <= 100 * MS
    assert "camera/front: expected" in refused[0][1]
    assert loop.guard.refused == {Refusal.OBSERVATION: 2}

    camera.fault = None
    for _ in range(20):
        clock.advance_ns(50 * MS)
        arm.observe()
    assert arm.state is State.LATCHED
    assert loop.guard.state is State.SAFE


def test_a_run_does_not_begin_while_a_camera_gives_nothing(
    spec: PolicySpec, clock: VirtualClock
) -> None:
    camera = FedCamera("front", clock)
    camera.fault = CameraFault.SILENT
    arm = robot(spec, clock, [camera])
    policy = scripted_policy(arm.interface, np.zeros((1, len(spec.actuators))))
    loop = policy.control(arm, clock, telemetry=Telemetry(policy.spec, 64, clock))
    with pytest.raises(ObservationError, match="camera/front"):
        loop.run(3)
    assert arm.state is State.DISARMED


@pytest.mark.parametrize("make", [driver, robot])
def test_pictures_of_a_look_that_no_observation_followed_are_not_used_later(
    spec: PolicySpec, clock: VirtualClock, cameras: list[FedCamera], make: Any
) -> None:
    arm = make(spec, clock, cameras)
    looked = arm.look()
    assert looked is not None
    clock.advance_ns(10 * spec.period_ns)
    values = arm.observe().values
    assert all(value is not picture for value, picture in zip(values, looked, strict=False))
    assert any((value != picture).any() for value, picture in zip(values, looked, strict=False))

    arm.look()
    cameras[0].fault = CameraFault.SILENT
    clock.advance_ns(1_000_000_000)
    with pytest.raises(ObservationError, match="camera/wrist"):
        arm.observe()
