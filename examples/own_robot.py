"""Connect your own robot: a driver with two methods, driven by the loop, and its contract test.

    python examples/own_robot.py                # drive it
    python -m pytest examples/own_robot.py      # test it (pip install 'gatort[testing]')

This arm is one joint on a spring. Put your arm's control cycle into `_advance` and its sensors into
`_read`. `Driver` adds the watchdog, the limits and the fade to the safe command.
"""

import numpy as np

import gatort
from gatort.testing import RobotContract, scripted_policy

POSITION = gatort.ObservationKey(
    name="joint/position", shape=(1,), dtype="float32", unit="rad", encoding="mu_law"
)
TORQUE = gatort.Actuator(name="joint/torque", unit="N·m", low=-5.0, high=5.0, safe=0.0)
INTERFACE = gatort.Interface(
    observations=(POSITION,), actuators=(TORQUE,), control_hz=20, action_delay_ms=25
)
STEP_NS = 1_000_000


class SpringArm(gatort.Driver):
    """One joint with inertia 1 kg·m², a spring of 4 N·m/rad and damping of 2 N·m·s/rad."""

    def __init__(self, clock):
        super().__init__(INTERFACE, clock)
        self._stepped_ns = clock.now_ns()
        self._position_rad = 0.0
        self._velocity_rad_s = 0.0

    def _advance(self, now_ns):
        # One step per millisecond up to the present, each with the torque in effect at its time.
        while self._stepped_ns + STEP_NS <= now_ns:
            self._stepped_ns += STEP_NS
            (torque_nm,) = self._in_effect(self._stepped_ns)
            pull_nm = torque_nm - 4.0 * self._position_rad - 2.0 * self._velocity_rad_s
            self._velocity_rad_s += 0.001 * pull_nm
            self._position_rad += 0.001 * self._velocity_rad_s

    def _read(self):
        return self._stepped_ns, [np.array([self._position_rad], np.float32)]

    def close(self):
        """Release the hardware; there is none here."""


class TestSpringArm(RobotContract):
    def make_robot(self, clock):
        return SpringArm(clock)


if __name__ == "__main__":
    clock = gatort.VirtualClock()
    policy = scripted_policy(INTERFACE, actions=[[2.0]])  # A trained policy goes here.
    arm = SpringArm(clock)
    ticks = policy.control(arm, clock).run(ticks=100)
    print(f"{ticks} ticks, joint at {arm.observe().values[0].item():.3f} rad; 2 N·m hold 0.5 rad")
