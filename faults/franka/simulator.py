"""franka-sim in a process of its own, with Franka's limits in force.

`python -m gatort.faults.franka.simulator` runs it until Ctrl-C, to try gatort without an arm.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, GatortError, RobotError
from gatort.runtime.exit_status import ExitStatus, ended_by
from gatort.runtime.printable import printable
from gatort.runtime.process_name import name_process
from gatort.runtime.robots.franka.fci import PORT

ADDRESS: Final = "127.0.0.1"
SIMULATORS: Final = Path(__file__).parents[2] / "sim" / "simulators"
LISTENS: Final = f"0100007F:{PORT:04X} 00000000:0000 0A"
"""Part of the line of /proc/net/tcp on a socket that listens at this address and port."""
TCP: Final = Path("/proc/net/tcp")
SERVE: Final = Path(__file__).with_name("serve_loopback.py")
DEFAULT_PYTHON: Final = Path(".venv-franka-sim", "bin", "python")
"""Python of franka-sim's environment, which `make .venv-franka-sim/.installed` makes."""
START_S: Final = 30.0
LOOK_NS: Final = 50_000_000
LAST_LINES: Final = 3
"""Number of lines of the log that are shown when it ends by itself."""
SCENE: Final = SIMULATORS / "panda.xml"
LINK_0: Final = '<body name="link0">'
LINK_0_INERTIA: Final = '<inertial mass="2.8" pos="-0.04 0 0.05" diaginertia="0.01 0.01 0.01"/>'
"""Inertia of the base, which franka-sim asks for and which never moves."""


def require_python(python: Path) -> None:
    """Check that franka-sim's environment is there.

    Raises:
        ConfigError: it is not.
    """
    if not os.access(python, os.X_OK) or not python.is_file():
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
            RobotError: its port is taken, it ended, or it does not listen in time.
        """
        require_python(python)
        if LISTENS in TCP.read_text():
            raise RobotError(
                f"expected a free port {PORT} at {ADDRESS}, found another franka-sim: end it first"
            )
        scene = SCENE.read_text(encoding="utf-8")
        arm = folder / "arm.xml"
        arm.write_text(scene.replace(LINK_0, LINK_0 + LINK_0_INERTIA), encoding="utf-8")
        self.log = folder / "franka-sim.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(python.absolute()),
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
                raise self.ended()
            if LISTENS in TCP.read_text():
                return
            clock.sleep_until_ns(clock.now_ns() + LOOK_NS)
        raise RobotError(f"expected franka-sim to listen within {START_S:g} s, found it silent")

    def ended(self) -> RobotError:
        """Return an error on its end, with its exit status and its last words."""
        said = "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:])
        status = self.process.wait()
        return RobotError(f"franka-sim ended with status {status}: {said or 'it said nothing'}")

    def close(self) -> None:
        """End it. A second call does nothing."""
        self.process.kill()
        self.process.wait()


def main() -> int:
    """Run franka-sim until Ctrl-C. Return 2, after a sentence, if it ends by itself."""
    name_process("sim")
    try:
        require_python(DEFAULT_PYTHON)
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(FrankaSimulator(DEFAULT_PYTHON, Path(folder))) as simulator,
        ):
            print(f"franka-sim at {ADDRESS}; Ctrl-C ends it", flush=True)
            simulator.process.wait()
            raise simulator.ended()
    except KeyboardInterrupt:
        return ended_by(signal.SIGINT)
    except GatortError as error:
        print(f"gatort: {printable(str(error))}", file=sys.stderr)
        return ExitStatus.REFUSED


if __name__ == "__main__":
    sys.exit(main())
