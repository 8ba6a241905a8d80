"""`gatort keys`: the keys without which robot and controller do not speak beyond one machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatort.launch.report import screen
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.remote.keys import add_controller, make_keys


def keys(directory: Path, /, *, add: str | None = None) -> int:
    """Make one key pair for a robot and one for a controller.

    The robot's host needs robot.key and controller.pub. The controller's host needs controller.key
    and robot.pub. A robot admits every controller*.pub that is in its directory when it starts.

    Parameters
    ----------
    directory
        Directory of the four key files; made when it does not exist.
    add
        Name of a further controller: make its keys beside those that are there. It gets a
        directory of its own for its host.
    """
    if add is None:
        robot_key, robot, controller_key, controller = make_keys(directory)
        _print("the robot's host", (robot_key, controller))
        _print("the controller's host", (controller_key, robot))
    else:
        shown, *own = add_controller(directory, add)
        _print("the robot's host, beside robot.key; start the robot again", (shown,))
        _print("the host of the new controller, for its --keys", own)
    screen().print("move secret keys, and copy public ones; keep no secret key on another host")
    return ExitStatus.DONE


def _print(host: str, paths: Sequence[Path]) -> None:
    console = screen()
    console.print(f"for {host}:")
    for path in paths:
        console.print(f"  {path}{' (secret)' if path.suffix == '.key' else ''}", soft_wrap=True)
