"""`gatort keys`: the keys without which robot and controller do not speak beyond one machine."""

from __future__ import annotations

from pathlib import Path

from gatort.launch.report import screen
from gatort.runtime.remote.keys import make_keys


def keys(directory: Path, /) -> None:
    """Make one key pair for a robot and one for a controller.

    The robot's host needs robot.key and controller.pub. The controller's host needs controller.key
    and robot.pub. A robot admits every controller*.pub in its directory.

    Parameters
    ----------
    directory
        Directory of the four key files; made when it does not exist.
    """
    for path in make_keys(directory):
        secret = " (secret: it stays on its own host)" if path.suffix == ".key" else ""
        screen().print(f"{path}{secret}")
