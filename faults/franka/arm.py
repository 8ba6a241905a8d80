"""A Franka arm in the process of `gatort robot franka`, whose cycles are written to a file.

`python -m gatort.faults.franka.arm FOLDER ADDRESS HAND` serves it until a signal ends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import GatortError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.printable import printable
from gatort.runtime.process_name import name_process
from gatort.runtime.remote.serve import ServeConfig, serve
from gatort.runtime.robots.franka.robot import FrankaConfig, FrankaRobot

from .cycles import CYCLES_FILE


def main() -> int:
    """Serve the arm until a signal ends it."""
    name_process("robot")
    folder, clock = Path(sys.argv[1]), MonotonicClock()
    config = FrankaConfig.model_validate(
        {"address": sys.argv[2], "hand": sys.argv[3], "require_realtime_kernel": False}
    )
    with (folder / CYCLES_FILE).open("wb") as trace:
        try:
            arm = FrankaRobot(config, clock, trace=trace.fileno())
            served = ServeConfig(bind="tcp://127.0.0.1:0", realtime=True)
            return serve("franka", arm, clock, served, simulated=False)
        except GatortError as error:
            print(f"gatort: {printable(str(error))}", file=sys.stderr)
            return ExitStatus.REFUSED


if __name__ == "__main__":
    sys.exit(main())
