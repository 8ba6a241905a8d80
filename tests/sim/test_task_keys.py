"""A task's keys follow from poses and joints, and equal those of the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("mujoco")

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError, SpecError
from gatort.runtime.facts import Fact
from gatort.runtime.robots.panda import PANDA
from gatort.runtime.robots.sensors.readings import SensorReading
from gatort.runtime.robots.sensors.robot import SensorRobot
from gatort.runtime.spec import PolicySpec
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.task_keys import TaskKeys, pose_of, rotation_of
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking

MS = 1_000_000
JOINTS_ONLY = PolicySpec.model_validate(
    {name: getattr(PANDA, name) for name in type(PANDA).model_fields} | {"window_frames": 1}
)
LACKING = [key for key in STACK_SPEC.observations if key not in JOINTS_ONLY.observations]


@dataclass
class ExactSensor:
    """A sensor that publishes the true poses of a simulated arm's cubes."""

    robot: SimulatedRobot
    stamp_ns: int | None = 0
    readings: dict[str, SensorReading] = field(default_factory=dict)
    address: str = "tcp://127.0.0.1:5560"

    def publish(self, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        bodies = self.robot.simulator.bodies()
        for cube in self.robot.layout.cubes:
            yaw = cube.yaw_rad / 2
            numbers = [*bodies[cube.name].position, np.cos(yaw), 0, 0, np.sin(yaw)]
            self.readings[f"pose/{cube.name}"] = SensorReading(np.array(numbers), stamp_ns)
            self.readings[f"edge/{cube.name}"] = SensorReading(np.array([cube.edge_m]), stamp_ns)

    def update(self) -> dict[str, SensorReading]:
        return self.readings

    def close(self) -> None:
        return


@dataclass
class Desk:
    """The same layout twice: with block keys of the simulator, and with derived ones."""

    clock: VirtualClock
    told: SimulatedRobot
    sensor: ExactSensor
    seeing: SensorRobot


@pytest.fixture
def desk() -> Desk:
    clock, task = VirtualClock(1_000 * MS), Stacking()
    told = make_robot("mujoco", task, clock, STACK_SPEC, seed=3)
    arm = make_robot("mujoco", task, clock, JOINTS_ONLY, seed=3)
    sensor = ExactSensor(arm)
    sensor.publish(clock.now_ns())
    return Desk(
        clock, told, sensor, SensorRobot(arm, TaskKeys(task, LACKING, PANDA, sensor, clock))
    )


def test_derived_keys_equal_those_of_the_simulator(desk: Desk) -> None:
    assert desk.seeing.interface.observations == STACK_SPEC.observations
    derived, told = desk.seeing.observe(), desk.told.observe()
    for key, found, expected in zip(
        STACK_SPEC.observations, derived.values, told.values, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=key.name)
        assert found.dtype == np.float32


def test_a_sensor_that_falls_silent_is_refused(desk: Desk) -> None:
    desk.clock.sleep_until_ns(desk.clock.now_ns() + 200 * MS)
    desk.seeing.observe()
    desk.clock.sleep_until_ns(desk.clock.now_ns() + MS)
    with pytest.raises(ObservationError, match="found one 201 ms old"):
        desk.seeing.observe()


def test_a_sensor_that_lacks_an_edge_is_refused_before_the_start(desk: Desk) -> None:
    del desk.sensor.readings["edge/blue"]
    with pytest.raises(SpecError, match="expected a sensor that publishes edge/blue"):
        TaskKeys(Stacking(), LACKING, PANDA, desk.sensor, desk.clock)


def test_a_cube_that_was_never_seen_is_refused_until_it_is(desk: Desk) -> None:
    unseen = desk.sensor.readings.pop("pose/red")
    with pytest.raises(ObservationError, match=r"pose/red: .* found it never seen"):
        desk.seeing.observe()
    desk.sensor.readings["pose/red"] = unseen
    desk.seeing.observe()


def test_the_checklist_tells_each_bodys_size_and_place_and_marks_faults(
    desk: Desk,
) -> None:
    now_ns = desk.clock.now_ns()
    for name, numbers in (("pose/red", [0.45, 0.1, 0.025, 1, 0, 0, 0]), ("edge/red", [0.05])):
        desk.sensor.readings[name] = SensorReading(np.array(numbers), now_ns)
    desk.sensor.readings["edge/blue"] = SensorReading(np.array([0.057]), now_ns)
    del desk.sensor.readings["pose/blue"]
    keys = TaskKeys(Stacking(), LACKING, PANDA, desk.sensor, desk.clock)
    sensor, red, blue = keys.facts(now_ns + 60 * MS)
    assert sensor == Fact("sensor", "tcp://127.0.0.1:5560, 60 ms old")
    assert red == Fact("pose/red", "edge 50 mm, at 0.450, 0.100, 0.025 m, seen 0.1 s ago")
    assert (blue.name, blue.value) == ("pose/blue", "edge 57 mm, never seen")
    assert "expected an edge of 42 to 56 mm" in blue.attention

    desk.sensor.publish(now_ns)
    keys = TaskKeys(Stacking(), LACKING, PANDA, desk.sensor, desk.clock)
    sensor, red, blue = keys.facts(now_ns + 3_100 * MS)
    assert "expected at most 200 ms" in sensor.attention
    assert (
        red.attention == blue.attention == ("expected at most 3 s: bring it into a camera's sight")
    )


def test_an_arm_without_a_hand_is_refused(desk: Desk, spec: PolicySpec) -> None:
    with pytest.raises(SpecError, match="the robot lacks 'arm/joint_position'"):
        TaskKeys(Stacking(), LACKING, spec, desk.sensor, desk.clock)


@pytest.mark.parametrize("numbers", [[0.0] * 7, [0.0] * 6])
def test_a_pose_without_a_turn_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ObservationError, match="expected x, y, z and a quaternion"):
        pose_of("pose/red", SensorReading(np.array(numbers), 0))


def test_a_quaternion_of_another_length_is_scaled() -> None:
    half = np.pi / 8
    numbers = np.array([0, 0, 0, 3 * np.cos(half), 0, 0, 3 * np.sin(half)])
    rotation = pose_of("pose/red", SensorReading(numbers, 0)).rotation
    np.testing.assert_allclose(rotation[:, 0], [np.cos(2 * half), np.sin(2 * half), 0], atol=1e-12)
    np.testing.assert_allclose(rotation_of(np.array([1.0, 0, 0, 0])), np.eye(3))
