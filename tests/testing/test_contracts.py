"""The shipped contracts test a driver from outside, and find one that breaks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DRIVER = """
import numpy as np
from gatort import Actuator, Driver, Interface, ObservationKey
from gatort.testing import RobotContract

INTERFACE = Interface(
    observations=(
        ObservationKey(name="x", shape=(2,), dtype="float32", unit="m", encoding="mu_law"),
    ),
    actuators=(Actuator(name="v", unit="m/s", low=-1.0, high=1.0, safe=0.0),),
    control_hz=50,
    action_delay_ms=10,
)

class Arm(Driver):
    def __init__(self, clock):
        super().__init__(INTERFACE, clock)
        self.stepped_ns = clock.now_ns()

    def _advance(self, now_ns):
        while self.stepped_ns + 1_000_000 <= now_ns:
            self.stepped_ns += 1_000_000
            self._in_effect(self.stepped_ns)

    def _read(self):
        return self._clock.now_ns(), [np.zeros(2, np.DTYPE)]

    def close(self):
        pass

class TestArm(RobotContract):
    def make_robot(self, clock):
        return Arm(clock)
"""


def run_contract(directory: Path, dtype: str) -> subprocess.CompletedProcess[str]:
    path = directory / "test_arm.py"
    path.write_text(DRIVER.replace("DTYPE", dtype), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_a_driver_of_two_methods_passes_at_fifty_hertz(tmp_path: Path) -> None:
    done = run_contract(tmp_path, "float32")
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout


def test_a_driver_with_another_dtype_than_its_interface_fails_and_shows_both(
    tmp_path: Path,
) -> None:
    done = run_contract(tmp_path, "float64")
    assert done.returncode == 1
    assert "dtype('float64')" in done.stdout
    assert "dtype('float32')" in done.stdout


def test_without_pytest_the_import_fails_with_the_install_line() -> None:
    program = "import sys; sys.modules['pytest'] = None; import gatort.testing"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "MissingDependency" in done.stderr
    assert "pip install 'gatort[testing]'" in done.stderr
