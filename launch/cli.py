"""The `gatort` command: one sub-command per file beside this one, and one way to fail.

An error that gatort raises on purpose, or a flag that is not valid, becomes one sentence on standard error and exit
status 2. Anything else is a fault of gatort and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, get_args

from cyclopts import App, Argument, CycloptsError, Parameter, Token, UnknownCommandError, convert
from pydantic import ValidationError

from gatort.launch.commands.compile import compile_bundle
from gatort.launch.commands.demos import demos
from gatort.launch.commands.doctor import doctor
from gatort.launch.commands.export import export
from gatort.launch.commands.fault import (
    fault,
    faults,
)
from gatort.launch.commands.info import info
from gatort.launch.commands.keys import keys
from gatort.launch.commands.parity import parity
from gatort.launch.commands.profile import profile
from gatort.launch.commands.replay import replay
from gatort.launch.commands.robot import robot
from gatort.launch.commands.run import run
from gatort.launch.commands.trials import trials
from gatort.runtime.errors import GatortError

from .options import (
    finding,
    unknown,
)

REFUSED = 2
INTERRUPTED = 130


def _read(kind: Any, tokens: Sequence[Token]) -> Any:
    """What cyclopts makes of a value, but for whole numbers with a fraction, which it would round."""
    if int in (kind, *get_args(kind)):
        for token in tokens:
            if "." in token.value:
                raise ValueError(f"expected a whole number, found {token.value!r}")
    return convert(kind, tokens)


app = App(
    name="gatort",
    help="Run a Gato-style policy on a robot arm in real time.",
    version=lambda: version("gatort"),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(converter=_read, negative_iterable=()),
)
for _command in (
    run,
    robot,
    keys,
    info,
    replay,
    trials,
    profile,
    demos,
    export,
    parity,
    fault,
    faults,
    doctor,
):
    app.command(_command)
app.command(compile_bundle, name="compile")
app.command("gatort.launch.commands.train:train", name="train")  # imports PyTorch


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
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        commands = [name for name in app if not name.startswith("-")]
        return f"{unknown('command', error.unused_tokens[0], commands)}; valid commands are {', '.join(commands)}"
    if isinstance(error.__cause__, ValidationError) and error.argument is not None:
        found = error.__cause__.errors()
        return "; ".join(
            f"{_flag(error.argument, details['loc'])}: {finding(details)}" for details in found
        )
    return str(error)


def _flag(argument: Argument, location: tuple[int | str, ...]) -> str:
    """Which flag sets what pydantic found fault with; of a flag's many values, each has a number of its own there."""
    keys = tuple(part for part in location if isinstance(part, str))
    return next(
        (each.name for each in (argument, *argument.children_recursive) if each.keys == keys),
        "the flags",
    )


def _refuse(sentence: str) -> int:
    print(f"gatort: {' '.join(sentence.split())}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
