"""franka-sim in a process of its own, with Franka's limits in force.

`python -m gatort.faults.franka.simulator` runs it until Ctrl-C, to try gatort without an arm.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, RobotError
from gatort.runtime.process_name import name_process
from gatort.runtime.robots.franka.fci import PORT

ADDRESS: Final = "127.0.0.1"
SIMULATORS: Final = Path(__file__).parents[2] / "sim" / "simulators"
LISTENS: Final = f"0100007F:{PORT:04X} 00000000:0000 0A"
"""Part of the line of /proc/net/tcp on a socket that listens at this address and port."""
SERVE: Final = Path(__file__).with_name("serve_loopback.py")
DEFAULT_PYTHON: Final = Path(".venv-franka-sim", "bin", "python")
"""Python of franka-sim's environment, which `make .venv-franka-sim/.installed` makes."""
START_S: Final = 30.0
LOOK_NS: Final = 50_000_000
SCENE: Final = SIMULATORS / "panda.xml"
LINK_0: Final = '<body name="link0">'
LINK_0_INERTIA: Final = '<inertial mass="2.8" pos="-0.04 0 0.05" diaginertia="0.01 0.01 0.01"/>'
"""Inertia of the base, which franka-sim asks for and which never moves."""


def require_python(python: Path) -> None:
    """Check that franka-sim's environment is there.

    Raises:
        ConfigError: it is not.
    """
    if not python.is_file():
        raise ConfigError(
            f"expected the Python of franka-sim's environment at {python}, found none: "
            "run `make .venv-franka-sim/.installed`, or name it with --franka-sim"
        )


class FrankaSimulator:
    """A running franka-sim. Its ports are fixed, so a machine has room for one."""

    def __init__(self, python: Path, folder: Path, options: Sequence[str] = ()) -> None:
        """Start it and wait until it listens.

        Args:
            python: Python of an environment with franka-sim.
            folder: directory for its scene and its log.
            options: more options of franka-sim.

        Raises:
            ConfigError: there is no such Python.
            RobotError: it ended, or it does not listen in time.
        """
        require_python(python)
        scene = SCENE.read_text(encoding="utf-8")
        arm = folder / "arm.xml"
        arm.write_text(scene.replace(LINK_0, LINK_0 + LINK_0_INERTIA), encoding="utf-8")
        self.log = folder / "franka-sim.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(python),
                    str(SERVE),
                    ADDRESS,
                    "--enforce-comm-constraints",
                    "--enforce-motion-limits",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "FR3_MJCF": str(arm), "MUJOCO_GL": "disable"},
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        clock = MonotonicClock()
        until_ns = clock.now_ns() + round(START_S * 1e9)
        while clock.now_ns() < until_ns:
            if self.process.poll() is not None:
                said = self.log.read_text(errors="replace").strip()[-400:]
                raise RobotError(f"franka-sim ended: {said}")
            if LISTENS in Path("/proc/net/tcp").read_text():
                return
            clock.sleep_until_ns(clock.now_ns() + LOOK_NS)
        raise RobotError(f"expected franka-sim to listen within {START_S:g} s, found it silent")

    def close(self) -> None:
        """End it. A second call does nothing."""
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Run franka-sim until Ctrl-C."""
    require_python(DEFAULT_PYTHON)
    name_process("sim")
    with (
        tempfile.TemporaryDirectory() as folder,
        suppress(KeyboardInterrupt),
        closing(FrankaSimulator(DEFAULT_PYTHON, Path(folder))) as simulator,
    ):
        print(f"franka-sim at {ADDRESS}; Ctrl-C ends it")
        simulator.process.wait()


if __name__ == "__main__":
    main()
