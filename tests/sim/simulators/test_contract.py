"""The contract of simulators. Add a new one to `SIMULATORS`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.errors import RobotError
from gatort.runtime.robots.panda import HOME_RAD
from gatort.sim.simulators.bullet import BulletSimulator
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.simulators.simulator import Cube, Scene, Simulator
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import VALIDATION_SEEDS

SIMULATORS = (MujocoSimulator, BulletSimulator)
SCENE_XML = """
<mujoco>
  <include file="panda.xml"/>
  <worldbody>
    <body name="low"><freejoint/><geom name="low" type="box" size="0.02 0.02 0.02"/></body>
    <body name="high"><freejoint/><geom name="high" type="box" size="0.02 0.02 0.02"/></body>
    <body name="ghost" mocap="true">
      <geom type="sphere" size="0.02" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
</mujoco>
"""
EDGE_M = 0.05
LOW = Cube("low", (0.5, 0.1, EDGE_M / 2), 0.3, EDGE_M, mass_kg=0.1, friction=0.8)
HIGH = Cube("high", (0.5, 0.1, 3 * EDGE_M / 2), 0.3, EDGE_M, mass_kg=0.1, friction=0.8)
APART = Cube("high", (0.5, -0.1, EDGE_M / 2), 0.0, EDGE_M, mass_kg=0.1, friction=0.8)
NO_TORQUE = np.zeros(7)
STACKING = task_named("stacking")
LEAST_PIXELS = 8
"""A cube that shows fewer pixels is at a border or hidden."""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    xml = tmp_path / "scene.xml"
    xml.write_text(SCENE_XML)
    return Scene(xml, cubes=("low", "high"), targets=("ghost",))


@pytest.fixture(params=SIMULATORS)
def simulator(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Simulator]:
    made: Simulator = request.param(scene)
    made.place_arm(HOME_RAD)
    made.place_cubes([LOW, HIGH])
    yield made
    made.close()


def run(simulator: Simulator, steps: int, width_m: float | None = None) -> None:
    for _ in range(steps):
        simulator.step(NO_TORQUE, width_m)
    simulator.settle()


def test_the_arm_starts_at_rest_where_it_is_placed(simulator: Simulator) -> None:
    arm = simulator.arm()
    np.testing.assert_allclose(arm.joint_position, HOME_RAD, atol=1e-12)  # rad; rounding
    assert not arm.joint_velocity.any()
    assert arm.width_m == pytest.approx(0.08)
    assert arm.tool_rotation[2, 2] < -0.99  # The tool points down.


def test_without_torque_the_arm_holds_still_against_gravity(simulator: Simulator) -> None:
    run(simulator, 500)
    np.testing.assert_allclose(simulator.arm().joint_position, HOME_RAD, atol=0.01)  # rad


def test_a_torque_turns_its_joint(simulator: Simulator) -> None:
    simulator.step(np.array([10.0, 0, 0, 0, 0, 0, 0]), None)
    assert simulator.arm().joint_velocity[0] > 1e-3  # rad/s after a millisecond


def test_the_gripper_goes_to_its_width_and_keeps_it(simulator: Simulator) -> None:
    run(simulator, 300, width_m=0.03)
    run(simulator, 100, width_m=None)
    assert simulator.arm().width_m == pytest.approx(0.03, abs=2e-3)  # m; the fingers' spring


def test_cubes_start_where_they_are_placed_and_touch_where_they_meet(simulator: Simulator) -> None:
    for cube in (LOW, HIGH):
        pose = simulator.bodies()[cube.name]
        np.testing.assert_allclose(pose.position, cube.position, atol=1e-9)  # m; rounding
        assert pose.rotation[0, 0] == pytest.approx(np.cos(cube.yaw_rad))
    run(simulator, 200)
    assert simulator.touching("low", "high")
    assert simulator.touching("high", "low")
    assert simulator.bodies()["high"].position[2] == pytest.approx(3 * EDGE_M / 2, abs=2e-3)  # m


def test_cubes_that_lie_apart_do_not_touch(simulator: Simulator) -> None:
    simulator.place_cubes([LOW, APART])
    run(simulator, 200)
    assert not simulator.touching("low", "high")


def test_cubes_can_be_placed_anew_while_the_arm_stays(simulator: Simulator) -> None:
    run(simulator, 100)
    before = simulator.positions[:9]
    simulator.place_cubes([LOW, APART])
    np.testing.assert_array_equal(simulator.positions[:9], before)
    np.testing.assert_allclose(simulator.bodies()["high"].position, APART.position, atol=1e-9)


def test_a_target_is_where_it_was_moved_and_stops_nothing(simulator: Simulator) -> None:
    inside = np.array(LOW.position)
    simulator.move_target("ghost", inside)
    run(simulator, 200)
    np.testing.assert_array_equal(simulator.bodies()["ghost"].position, inside)
    np.testing.assert_allclose(simulator.bodies()["low"].position, inside, atol=2e-3)  # m


def test_positions_are_arm_fingers_cubes_and_targets_in_the_scenes_order(
    simulator: Simulator,
) -> None:
    ghost = np.array([0.4, 0.2, 0.3])
    simulator.move_target("ghost", ghost)
    positions = simulator.positions
    np.testing.assert_array_equal(positions[:7], simulator.arm().joint_position)
    assert positions[7:9].sum() == pytest.approx(simulator.arm().width_m)
    bodies = positions[9:].reshape(3, 7)
    np.testing.assert_allclose(bodies[:, :3], [LOW.position, HIGH.position, ghost], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(bodies[:, 3:], axis=1), 1.0)
    assert bodies[0, 3] == pytest.approx(np.cos(LOW.yaw_rad / 2))


def test_the_models_jacobian_is_how_the_tool_moves(simulator: Simulator) -> None:
    jacobian = simulator.arm_model().jacobian.copy()
    step_rad = 1e-3  # Bullet gives a link's place in single precision.
    for joint in range(7):
        ends = []
        for sign in (-1, 1):
            simulator.place_arm(HOME_RAD + sign * step_rad * np.eye(7)[joint])
            simulator.place_cubes([LOW, HIGH])
            ends.append(simulator.arm().tool_position.copy())
        moved = (ends[1] - ends[0]) / (2 * step_rad)
        np.testing.assert_allclose(jacobian[:3, joint], moved, atol=2e-4)  # m/rad


def test_the_models_mass_matrix_is_symmetric_and_positive(simulator: Simulator) -> None:
    mass_matrix = simulator.arm_model().mass_matrix
    np.testing.assert_allclose(mass_matrix, mass_matrix.T, atol=1e-9)
    assert np.linalg.eigvalsh(mass_matrix).min() > 0.05  # kg·m²; half of a rotor's inertia


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128), (128, 96)])
def test_a_camera_draws_pictures_of_its_size(simulator: Simulator, height: int, width: int) -> None:
    simulator.add_camera("front", height, width)
    picture = simulator.draw("front")
    assert (picture.shape, picture.dtype) == ((height, width, 3), np.uint8)
    assert picture.std() > 10  # Levels: neither black nor white all over.
    assert picture.flags.c_contiguous


def test_an_unchanged_scene_gives_the_same_picture_again(simulator: Simulator) -> None:
    simulator.add_camera("wrist", 64, 64)
    first = simulator.draw("wrist")
    kept = first.copy()
    np.testing.assert_array_equal(simulator.draw("wrist"), kept)

    simulator.place_arm(HOME_RAD + 0.3)
    simulator.place_cubes([LOW, HIGH])
    assert (simulator.draw("wrist") != kept).any()
    np.testing.assert_array_equal(first, kept)  # A picture belongs to its caller.


def test_a_target_is_drawn_where_it_was_moved(simulator: Simulator) -> None:
    simulator.add_camera("front", 64, 64)
    simulator.move_target("ghost", np.array([0.5, 0.2, 0.3]))
    simulator.step(NO_TORQUE, None)
    simulator.settle()
    before = simulator.draw("front").astype(int)
    simulator.move_target("ghost", np.array([0.5, -0.2, 0.3]))
    simulator.step(NO_TORQUE, None)
    simulator.settle()
    changed = np.abs(simulator.draw("front").astype(int) - before).sum(axis=2) > 30
    columns = np.nonzero(changed)[1]
    assert columns.min() < 20  # The place that it left, and its new one.
    assert columns.max() > 44


@pytest.mark.parametrize("camera", ["front", "wrist"])
@pytest.mark.parametrize("pixels", [(64, 64), (96, 128)])
def test_cubes_have_their_colours_at_the_same_pixels_in_every_simulator(
    camera: str, pixels: tuple[int, int]
) -> None:
    scene = STACKING.scene
    simulators = [kind(scene) for kind in SIMULATORS]
    for simulator in simulators:
        simulator.add_camera(camera, *pixels)
    seen = 0
    for seed in range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + 6):
        views = [cubes_in(picture_of_trial(simulator, camera, seed)) for simulator in simulators]
        for first, second in zip(*views, strict=True):
            if min(len(first), len(second)) < LEAST_PIXELS:
                continue  # Outside the picture, or behind an arm.
            # Pixels: a face's edge falls on one side or the other of a pixel's centre.
            np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=0.6)
            seen += 1
    assert seen >= 14  # Three cubes in six trials; a few are hidden.
    for simulator in simulators:
        simulator.close()


def picture_of_trial(simulator: Simulator, camera: str, seed: int) -> NDArray[np.uint8]:
    layout = STACKING.layout(seed)
    simulator.place_arm(np.array(layout.joints_rad))
    simulator.place_cubes(layout.cubes)
    simulator.settle()
    return simulator.draw(camera)


def cubes_in(picture: NDArray[np.uint8]) -> list[NDArray[np.intp]]:
    """Return row and column of the pixels of the red, the green and the blue cube."""
    channels = np.moveaxis(picture.astype(float), 2, 0)
    return [
        np.argwhere(channels[colour] > 1.6 * np.delete(channels, colour, axis=0).max(axis=0))
        for colour in range(3)
    ]


def test_physics_that_diverges_is_an_error(simulator: Simulator) -> None:
    simulator.step(np.full(7, np.nan), None)
    with pytest.raises(RobotError, match="the simulation diverged"):
        run(simulator, 5)
