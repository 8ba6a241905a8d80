"""The arm's model at a posture agrees with differences of its own kinematics, and with MuJoCo."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.robots.computed_torque import computed_torque
from gatort.runtime.robots.dynamics import ArmPosture
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import HOME_RAD, JOINT_HIGH_RAD, JOINT_LOW_RAD, TORQUE_NM

POSTURES = np.random.default_rng(0).uniform(JOINT_LOW_RAD, JOINT_HIGH_RAD, (20, 7))


@pytest.mark.parametrize("joints_rad", POSTURES[:5])
def test_the_jacobian_is_the_change_of_the_tool_with_each_joint(joints_rad: np.ndarray) -> None:
    posture = ArmPosture.of(joints_rad)
    step = 1e-6
    for joint in range(7):
        ahead, behind = joints_rad.copy(), joints_rad.copy()
        ahead[joint] += step
        behind[joint] -= step
        (place, rotation), (place_before, before) = tool_pose(ahead), tool_pose(behind)
        spin = (rotation - before) / (2 * step) @ posture.tool_rotation.T
        expected = [*(place - place_before) / (2 * step), spin[2, 1], spin[0, 2], spin[1, 0]]
        # Central differences of 1 µrad are good to 1e-9.
        np.testing.assert_allclose(posture.jacobian[:, joint], expected, atol=1e-7)


def test_tool_jacobian_and_mass_matrix_are_those_of_the_simulated_arm() -> None:
    mujoco = pytest.importorskip("gatort.sim.simulators.mujoco")
    scene = pytest.importorskip("gatort.sim.simulators.simulator").Scene(mujoco.PANDA_XML)
    simulator = mujoco.MujocoSimulator(scene)
    above = [joints for joints in POSTURES if tool_pose(joints)[0][2] > 0.2]
    assert len(above) > 5
    for joints_rad in above:  # Those that touch the table are pushed away.
        simulator.place_arm(joints_rad)
        simulator.step(np.zeros(7), None)
        simulator.settle()
        # The mass matrix is that of the beginning of the step, in which no joint moved by 1 nrad.
        posture, model = ArmPosture.of(simulator.joints()[0]), simulator.arm_model()
        np.testing.assert_allclose(posture.tool_position, simulator.arm().tool_position, atol=1e-6)
        np.testing.assert_allclose(posture.jacobian, model.jacobian, atol=1e-6)
        # The fingers, 30 g, are lumped into the hand, which moves them by 2 cm at most.
        np.testing.assert_allclose(posture.mass_matrix, model.mass_matrix, atol=2e-4)
    simulator.close()


def test_no_torque_is_above_the_largest_that_a_policy_may_command() -> None:
    posture = ArmPosture.of(HOME_RAD)
    torque_nm = computed_torque(
        HOME_RAD,
        np.zeros(7),
        posture.jacobian,
        posture.mass_matrix,
        twist=np.array([3.0, 3.0, -3.0, 0, 0, 0]),
        velocity=np.zeros(6),
    )
    assert (np.abs(torque_nm) <= TORQUE_NM).all()
    assert (np.abs(torque_nm) == TORQUE_NM).any()
