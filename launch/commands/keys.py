"""`gatort keys`: the keys without which robot and controller do not speak beyond one machine."""

from __future__ import annotations

from pathlib import Path

from gatort.launch.report import screen
from gatort.runtime.remote.keys import make_keys


def keys(directory: Path, /) -> None:
    """Make a pair of keys for a robot and one for a controller.

    The robot's host needs robot.key and controller.pub, the controller's host controller.key and robot.pub. A robot
    lets in every controller*.pub in its directory.

    Parameters
    ----------
    directory
        Where they go; made when there is none.
    """
    for path in make_keys(directory):
        screen().print(
            f"{path}{' (secret: it stays on its own host)' if path.suffix == '.key' else ''}"
        )
