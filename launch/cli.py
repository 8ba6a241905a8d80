"""The `gatort` command: one sub-command per file beside this one, and one way to fail.

An error that gatort raises on purpose, or a flag that is not valid, becomes one sentence on standard error and exit
status 2. Anything else is a fault of gatort and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError
from pydantic import ValidationError

from gatort.runtime.errors import GatortError

from .compile import compile_bundle
from .demos import demos
from .doctor import doctor
from .export import export
from .fault import fault, faults
from .info import info
from .keys import keys
from .options import describe
from .parity import parity
from .profile import profile
from .replay import replay
from .robot import robot
from .run import run
from .train import train
from .trials import trials

REFUSED = 2
INTERRUPTED = 130

app = App(
    name="gatort",
    help="Run a Gato-style policy on a robot arm in real time.",
    version=lambda: version("gatort"),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _command in (run, robot, keys, info, replay, trials, profile, demos, train, export, parity, fault, faults, doctor):
    app.command(_command)
app.command(compile_bundle, name="compile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: what follows `gatort` on the command line; the process's own when none.
    """
    try:
        status = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _refuse(_flag_sentence(error))
    except GatortError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _flag_sentence(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        flag = error.argument.name if error.argument is not None else ""
        return describe(error.__cause__, flag if flag.startswith("--") else "the flags")
    return str(error)


def _refuse(sentence: str) -> int:
    print(f"gatort: {' '.join(sentence.split())}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
