"""PyBullet's Panda as a twin: the same arm, tool and blocks, and the physics that it is told to have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pybullet
import pytest
from numpy.typing import ArrayLike

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import (
    MissingDependency,
    RobotError,
    SpecError,
)
from gatort.runtime.robots.panda import JOINT_DAMPING_NMS_RAD
from gatort.runtime.safety import Command
from gatort.runtime.spec import select_keys
from gatort.sim.make import simulated_robot
from gatort.sim.robot import FINGER_FORCE_N
from gatort.sim.simulators.bullet import BulletRobot
from gatort.sim.simulators.mujoco import MujocoRobot
from gatort.sim.tasks.stacking import task

SEED = task.VALIDATION_SEEDS.start
RED = 0
GRAVITY_M_S2 = 9.81
POSTURES_RAD = [
    task.HOME_RAD,
    [0.9, 0.3, -0.7, -1.5, 0.6, 2.4, -0.5],
    [-1.1, -0.8, 1.2, -2.8, -1.0, 1.4, 2.0],
]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def robot(clock: VirtualClock) -> Iterator[BulletRobot]:
    made = BulletRobot(clock, SEED)
    yield made
    made.close()


def turn_joints(robot: BulletRobot, position: ArrayLike, velocity: ArrayLike = (0.0,) * 7) -> None:
    for joint, (angle, speed) in enumerate(zip(position, velocity, strict=True)):
        robot._bullet.resetJointState(robot._arm, joint, angle, speed)


def mass_matrix_of(robot: BulletRobot) -> np.ndarray:
    """Of the arm (7, 7) whose fingers are held by their motors."""
    return np.array(robot._bullet.calculateMassMatrix(robot._arm, robot._joints()[0]))[:7, :7]


def order(robot: BulletRobot, values: list[float], sequence: int = 1) -> None:
    """Put values into effect at the next step, and for longer than a test looks at them."""
    now_ns = robot._clock.now_ns()
    robot.command(Command(sequence, sequence, now_ns, 200_000_000, np.array(values)))


@pytest.mark.parametrize("posture", POSTURES_RAD)
def test_the_tool_is_where_mujocos_is(
    robot: BulletRobot, clock: VirtualClock, posture: np.ndarray
) -> None:
    turn_joints(robot, posture)
    other = MujocoRobot(clock, SEED)
    other.data.qpos[:7] = posture
    clock.advance_ns(0)
    other.observe()
    mine, theirs = robot._poses(), other._poses()
    np.testing.assert_allclose(
        mine.tool_position, theirs.tool_position, atol=1e-6
    )  # m; the URDF's π/2 has 12 digits
    np.testing.assert_allclose(mine.tool_rotation, theirs.tool_rotation, atol=1e-6)


@pytest.mark.parametrize("posture", POSTURES_RAD)
def test_the_jacobian_is_the_tools_own(robot: BulletRobot, posture: np.ndarray) -> None:
    turn_joints(robot, posture)
    jacobian, _ = robot._arm_model()
    step_rad = 1e-3  # Bullet tells where a link is in single precision.
    for joint in range(7):
        ends = []
        for sign in (-1, 1):
            turn_joints(robot, np.array(posture) + sign * step_rad * np.eye(7)[joint])
            ends.append(robot._poses())
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


def test_a_torque_accelerates_the_arm_as_its_mass_matrix_says(
    robot: BulletRobot, clock: VirtualClock
) -> None:
    mass_matrix = mass_matrix_of(robot)
    torque = [8.0, -6.0, 5.0, -4.0, 0.3, -0.2, 0.02]
    robot._step(np.array(torque), None)
    expected = np.linalg.solve(mass_matrix, torque) * 1e-3
    np.testing.assert_allclose(
        robot._joints()[1][:7], expected, rtol=1e-3, atol=1e-4
    )  # rad/s; the fingers give way


def test_joints_are_damped_and_nothing_else_holds_them(robot: BulletRobot) -> None:
    velocity = np.array([0.4, -0.3, 0.3, 0.2, -0.3, 0.4, 0.5])
    turn_joints(robot, task.HOME_RAD, velocity)
    mass_matrix = mass_matrix_of(robot)
    robot._step(np.zeros(7), None)
    slowed = np.linalg.solve(mass_matrix, -JOINT_DAMPING_NMS_RAD * velocity) * 1e-3
    np.testing.assert_allclose(
        robot._joints()[1][:7], velocity + slowed, rtol=1e-3, atol=1e-4
    )  # rad/s; as above


def test_the_blocks_are_those_of_the_layout(robot: BulletRobot) -> None:
    for body, block in zip(robot._blocks, task.draw_layout(SEED).blocks, strict=True):
        mass_kg, friction = robot._bullet.getDynamicsInfo(body, -1)[:2]
        size = robot._bullet.getCollisionShapeData(body, -1)[0][3]
        assert (mass_kg, friction) == (pytest.approx(block.mass_kg), pytest.approx(block.friction))
        assert size == pytest.approx([block.edge_m] * 3)


@pytest.mark.parametrize(("share", "slides"), [(0.9, False), (1.15, True)])
def test_a_block_slides_once_the_push_exceeds_its_friction(
    robot: BulletRobot, clock: VirtualClock, share: float, slides: bool
) -> None:
    body, block = robot._blocks[RED], task.draw_layout(SEED).blocks[RED]
    push_n = share * block.friction * block.mass_kg * GRAVITY_M_S2
    start = np.array(robot._bullet.getBasePositionAndOrientation(body)[0])
    for _ in range(300):
        place = robot._bullet.getBasePositionAndOrientation(body)[0]
        low = [place[0], place[1], 0.0]  # where it touches, so that it does not tip
        robot._bullet.applyExternalForce(body, -1, [push_n, 0, 0], low, pybullet.WORLD_FRAME)
        robot._step(np.zeros(7), None)
    moved_m = np.linalg.norm(np.array(robot._bullet.getBasePositionAndOrientation(body)[0]) - start)
    assert (moved_m > 0.01) == slides


def test_the_fingers_close_no_harder_than_they_may_and_stay_together(robot: BulletRobot) -> None:
    red = robot._blocks[RED]
    hand = robot._bullet.getLinkState(robot._arm, 8, computeForwardKinematics=1)
    robot._bullet.resetBasePositionAndOrientation(red, robot._poses().tool_position, hand[5])
    for _ in range(400):
        robot._step(np.zeros(7), 0.0)
    pressed_n = [
        sum(point[9] for point in robot._bullet.getContactPoints(robot._arm, red, finger))
        for finger in (9, 10)
    ]
    left, right = robot._joints()[0][7:]
    assert left == pytest.approx(right, abs=1e-3)  # m; what the gear between them gives
    assert left + right == pytest.approx(
        robot._edges_m[RED], abs=0.003
    )  # m; the expert's slack for a held block
    assert pressed_n == pytest.approx(
        [FINGER_FORCE_N] * 2, abs=1.0
    )  # N; the block's weight tilts it


def test_two_robots_in_one_process_do_not_touch(robot: BulletRobot, clock: VirtualClock) -> None:
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
    robot: BulletRobot, clock: VirtualClock
) -> None:
    robot._bullet.setJointMotorControlArray(
        robot._arm, [0], pybullet.TORQUE_CONTROL, forces=[np.nan]
    )
    robot._bullet.stepSimulation()
    clock.advance_ns(1_000_000)
    with pytest.raises(RobotError, match="diverged: PyBullet's state is not finite"):
        robot.observe()
    robot.reset(SEED)
    clock.advance_ns(5_000_000)
    assert all(np.isfinite(value).all() for value in robot.observe().values)


def test_it_starts_without_a_word() -> None:
    code = (
        "from gatort.runtime.clock import VirtualClock; from gatort.sim.simulators.bullet import BulletRobot; "
        "BulletRobot(VirtualClock()); print('made')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("made\n", "")


def test_a_failed_start_says_what_bullet_said(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatort.sim.simulators.bullet._URDF", "no such arm.urdf")
    with pytest.raises(pybullet.error, match="Cannot load URDF"):
        BulletRobot(clock, SEED)
    assert "no such arm.urdf" in capsys.readouterr().err


def test_a_policy_that_needs_cameras_is_refused_by_name(clock: VirtualClock) -> None:
    robot = simulated_robot("pybullet", task.CAMERA_SPEC, clock, SEED)
    with pytest.raises(SpecError, match="lacks observation key 'camera/front'"):
        select_keys(task.CAMERA_SPEC, robot.interface)
    robot.close()


def test_without_pybullet_the_line_that_installs_it_is_given(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.sim.make.installed_version", lambda _: None)
    with pytest.raises(MissingDependency, match=r"PyBullet: pip install 'gatort\[pybullet\]'"):
        simulated_robot("pybullet", task.STACK_SPEC, clock, SEED)
