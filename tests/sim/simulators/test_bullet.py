"""PyBullet's Panda: the same arm, tool and cubes as MuJoCo's, with physics of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pybullet
import pytest
from numpy.typing import ArrayLike

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError, MissingDependency, RobotError
from gatort.runtime.robots.panda import HOME_RAD, JOINT_DAMPING_NMS_RAD
from gatort.runtime.safety import Command
from gatort.sim.make import BulletRobot, MujocoRobot, make_robot
from gatort.sim.randomisation import Randomisation
from gatort.sim.robot import SimulatedRobot
from gatort.sim.simulators.bullet import BulletSimulator
from gatort.sim.simulators.simulator import FINGER_FORCE_N
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import VALIDATION_SEEDS
from gatort.sim.tasks.stacking.layout import draw_layout
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC

SEED = VALIDATION_SEEDS.start
GRAVITY_M_S2 = 9.81
POSTURES_RAD = [
    HOME_RAD,
    [0.9, 0.3, -0.7, -1.5, 0.6, 2.4, -0.5],
    [-1.1, -0.8, 1.2, -2.8, -1.0, 1.4, 2.0],
]


@pytest.fixture
def robot(clock: VirtualClock) -> Iterator[SimulatedRobot]:
    made = BulletRobot(clock, SEED)
    yield made
    made.close()


@pytest.fixture
def simulator(robot: SimulatedRobot) -> BulletSimulator:
    """The physics of `robot`."""
    assert isinstance(robot.simulator, BulletSimulator)
    return robot.simulator


def turn_joints(
    simulator: BulletSimulator, position: ArrayLike, velocity: ArrayLike = (0.0,) * 7
) -> None:
    for joint, (angle, speed) in enumerate(zip(position, velocity, strict=True)):
        simulator._bullet.resetJointState(simulator._arm, joint, angle, speed)


def mass_matrix_of(simulator: BulletSimulator) -> np.ndarray:
    """Return the mass matrix (7, 7) of the arm, whose fingers are held by their motors."""
    positions, _ = simulator._joints()
    return np.array(simulator._bullet.calculateMassMatrix(simulator._arm, positions))[:7, :7]


def order(robot: SimulatedRobot, values: list[float], sequence: int = 1) -> None:
    """Put values into effect at the next step, for longer than the test lasts."""
    now_ns = robot._clock.now_ns()
    robot.command(Command(sequence, sequence, now_ns, 200_000_000, np.array(values)))


@pytest.mark.parametrize("posture", POSTURES_RAD)
def test_the_tool_is_where_mujocos_is(
    simulator: BulletSimulator, clock: VirtualClock, posture: np.ndarray
) -> None:
    turn_joints(simulator, posture)
    other = MujocoRobot(clock, SEED).simulator
    other.place_arm(np.array(posture))
    other.settle()
    mine, theirs = simulator.arm(), other.arm()
    np.testing.assert_allclose(
        mine.tool_position, theirs.tool_position, atol=1e-6
    )  # m; the URDF's π/2 has 12 digits
    np.testing.assert_allclose(mine.tool_rotation, theirs.tool_rotation, atol=1e-6)


@pytest.mark.parametrize("posture", POSTURES_RAD)
def test_the_jacobian_is_the_tools_own(simulator: BulletSimulator, posture: np.ndarray) -> None:
    turn_joints(simulator, posture)
    jacobian = simulator.arm_model().jacobian
    step_rad = 1e-3  # Bullet tells where a link is in single precision.
    for joint in range(7):
        ends = []
        for sign in (-1, 1):
            turn_joints(simulator, np.array(posture) + sign * step_rad * np.eye(7)[joint])
            ends.append(simulator.arm())
        moved = (ends[1].tool_position - ends[0].tool_position) / (2 * step_rad)
        np.testing.assert_allclose(
            jacobian[:3, joint], moved, atol=2e-4
        )  # m/rad; 30 nm over 2 mrad, and more
        spin = (
            (ends[1].tool_rotation - ends[0].tool_rotation)
            @ ends[0].tool_rotation.T
            / (2 * step_rad)
        )
        np.testing.assert_allclose(
            jacobian[3:, joint], [spin[2, 1], spin[0, 2], spin[1, 0]], atol=1e-3
        )


def test_a_torque_accelerates_the_arm_as_its_mass_matrix_says(simulator: BulletSimulator) -> None:
    mass_matrix = mass_matrix_of(simulator)
    torque = [8.0, -6.0, 5.0, -4.0, 0.3, -0.2, 0.02]
    simulator.step(np.array(torque), None)
    expected = np.linalg.solve(mass_matrix, torque) * 1e-3
    np.testing.assert_allclose(
        simulator._joints()[1][:7], expected, rtol=1e-3, atol=1e-4
    )  # rad/s; the fingers give way


def test_joints_are_damped_and_nothing_else_holds_them(simulator: BulletSimulator) -> None:
    velocity = np.array([0.4, -0.3, 0.3, 0.2, -0.3, 0.4, 0.5])
    turn_joints(simulator, HOME_RAD, velocity)
    mass_matrix = mass_matrix_of(simulator)
    simulator.step(np.zeros(7), None)
    slowed = np.linalg.solve(mass_matrix, -JOINT_DAMPING_NMS_RAD * velocity) * 1e-3
    np.testing.assert_allclose(
        simulator._joints()[1][:7], velocity + slowed, rtol=1e-3, atol=1e-4
    )  # rad/s; as above


def test_the_cubes_are_those_of_the_layout(simulator: BulletSimulator) -> None:
    for cube in draw_layout(SEED).cubes:
        body = simulator._cubes[cube.name]
        mass_kg, friction = simulator._bullet.getDynamicsInfo(body, -1)[:2]
        size = simulator._bullet.getCollisionShapeData(body, -1)[0][3]
        assert (mass_kg, friction) == (pytest.approx(cube.mass_kg), pytest.approx(cube.friction))
        assert size == pytest.approx([cube.edge_m] * 3)


@pytest.mark.parametrize(("share", "slides"), [(0.9, False), (1.15, True)])
def test_a_cube_slides_once_the_push_exceeds_its_friction(
    simulator: BulletSimulator, share: float, slides: bool
) -> None:
    cube = draw_layout(SEED).cubes[0]
    body = simulator._cubes[cube.name]
    push_n = share * cube.friction * cube.mass_kg * GRAVITY_M_S2
    start = simulator.bodies()[cube.name].position
    for _ in range(300):
        x, y, _ = simulator.bodies()[cube.name].position
        low = [x, y, 0.0]  # where it touches, so that it does not tip
        simulator._bullet.applyExternalForce(body, -1, [push_n, 0, 0], low, pybullet.WORLD_FRAME)
        simulator.step(np.zeros(7), None)
    moved_m = np.linalg.norm(simulator.bodies()[cube.name].position - start)
    assert (moved_m > 0.01) == slides


def test_the_fingers_close_no_harder_than_they_may_and_stay_together(
    simulator: BulletSimulator,
) -> None:
    bullet, arm = simulator._bullet, simulator._arm
    red = simulator._cubes["red"]
    hand = bullet.getLinkState(arm, 8, computeForwardKinematics=1)
    bullet.resetBasePositionAndOrientation(red, simulator.arm().tool_position, hand[5])
    for _ in range(400):
        simulator.step(np.zeros(7), 0.0)
    pressed_n = [
        sum(point[9] for point in bullet.getContactPoints(arm, red, finger)) for finger in (9, 10)
    ]
    left, right = simulator._joints()[0][7:]
    assert left == pytest.approx(right, abs=1e-3)  # m; the gear between them gives way
    edge_m = draw_layout(SEED).cubes[0].edge_m
    assert left + right == pytest.approx(edge_m, abs=0.003)  # m; the expert's slack for a held cube
    assert pressed_n == pytest.approx(
        [FINGER_FORCE_N] * 2, abs=1.0
    )  # N; the block's weight tilts it


def test_two_robots_in_one_process_do_not_touch(robot: SimulatedRobot, clock: VirtualClock) -> None:
    other = BulletRobot(clock, SEED)
    before = other.positions
    robot.arm()
    order(robot, [20.0, 0, 0, 0, 0, 0, 0, 0.0])
    clock.advance_ns(40_000_000)
    robot.observe()
    np.testing.assert_array_equal(other.positions, before)
    other.close()
    robot.observe()  # It outlives the other.


def test_a_state_that_is_not_finite_is_an_error_and_the_next_trial_is_healthy(
    robot: SimulatedRobot, simulator: BulletSimulator, clock: VirtualClock
) -> None:
    simulator._bullet.setJointMotorControlArray(
        simulator._arm, [0], pybullet.TORQUE_CONTROL, forces=[np.nan]
    )
    simulator._bullet.stepSimulation()
    clock.advance_ns(1_000_000)
    with pytest.raises(RobotError, match="diverged: PyBullet's state is not finite"):
        robot.observe()
    robot.reset(SEED)
    clock.advance_ns(5_000_000)
    assert all(np.isfinite(value).all() for value in robot.observe().values)


def test_it_starts_without_a_word() -> None:
    code = (
        "from gatort.runtime.clock import VirtualClock; from gatort.sim.make import BulletRobot; "
        "BulletRobot(VirtualClock()); print('made')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("made\n", "")


def test_a_failed_start_says_what_bullet_said(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatort.sim.simulators.bullet.PANDA_URDF", "no such arm.urdf")
    with pytest.raises(pybullet.error, match="Cannot load URDF"):
        BulletRobot(clock, SEED)
    assert "no such arm.urdf" in capsys.readouterr().err


def test_cameras_change_no_bit_of_the_physics(clock: VirtualClock) -> None:
    trails = []
    for cameras in (False, True):
        simulator = BulletSimulator(task_named("stacking").scene)
        if cameras:
            simulator.add_camera("wrist", 64, 64)
        layout = draw_layout(SEED)
        simulator.place_arm(np.array(layout.joints_rad))
        simulator.place_cubes(layout.cubes)
        trail = []
        for step in range(300):
            simulator.step(np.array([4.0, 10.0, -3.0, 8.0, 1.0, 1.0, 0.5]), 0.0)
            trail.append(simulator.positions)
            if cameras and step % 50 == 0:
                simulator.draw("wrist")
        trails.append(np.array(trail))
        simulator.close()
    np.testing.assert_array_equal(*trails)


def test_a_policy_with_cameras_sees_pybullets_pictures(clock: VirtualClock) -> None:
    robot = BulletRobot(clock, SEED, spec=CAMERA_SPEC)
    observation = robot.observe()
    for key, value in zip(CAMERA_SPEC.observations, observation.values, strict=True):
        assert value.shape == key.shape
    pictures = observation.values[:2]
    robot.reset(SEED + 1)
    assert (robot.observe().values[0] != pictures[0]).any()
    robot.reset(SEED)
    for picture, again in zip(pictures, robot.observe().values, strict=False):
        np.testing.assert_array_equal(picture, again)
    robot.close()


def test_an_unknown_camera_is_refused_with_the_names_of_the_others(
    simulator: BulletSimulator,
) -> None:
    with pytest.raises(ConfigError, match="one of front, view, wrist; found 'ceiling'"):
        simulator.add_camera("ceiling", 64, 64)


def test_a_target_has_its_own_colour(clock: VirtualClock) -> None:
    simulator = BulletRobot(clock, SEED, task="reach").simulator
    simulator.add_camera("front", 64, 64)
    picture = simulator.draw("front").astype(int)
    orange = (picture[..., 0] > 180) & (picture[..., 2] < 60)
    assert orange.sum() >= 3  # A ball of 4 cm, a metre away.
    simulator.close()


def test_randomised_physics_is_refused(clock: VirtualClock) -> None:
    with pytest.raises(ConfigError, match="PyBullet simulates nominal physics only; use mujoco"):
        make_robot("pybullet", "stacking", clock, randomisation=Randomisation())


def test_without_pybullet_the_line_that_installs_it_is_given(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.sim.make.installed_version", lambda _: None)
    with pytest.raises(MissingDependency, match=r"PyBullet: pip install 'gatort\[pybullet\]'"):
        make_robot("pybullet", "stacking", clock)
