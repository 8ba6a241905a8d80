"""The `gatort` command: one sub-command per file in `commands/`, and one way to fail.

A command's module is imported when that command runs. `gatort --help` therefore starts at once, and
each module has its imports at its top. An error that gatort raises on purpose, an invalid flag and
an absent optional package become one sentence on standard error and exit status 2. Any other
exception is a fault of gatort and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, Argument, CycloptsError, Parameter, Token, UnknownCommandError, convert
from pydantic import ValidationError

from gatort.runtime.errors import GatortError
from gatort.runtime.outputs import NO_SPACE, unwritable

from .refusals import finding, unknown
from .streams import spared_streams

REFUSED = 2
INTERRUPTED = 130

COMMANDS = {
    "run": "Drive the robot with a policy in real time, 20 ticks a second.",
    "robot": "Let a controller drive an arm over a wire.",
    "keys": "Make one key pair for a robot and one for a controller.",
    "info": "Show the contents of a recording, and whether it is complete.",
    "replay": "Feed a recording's observations through an engine and compare every action token.",
    "trials": "Try a policy on seeded layouts in lockstep and report its success rate.",
    "robustness": (
        "Measure a policy's success as cameras, light, lens and latency leave their nominal values."
    ),
    "profile": "Time every stage of the control loop and say whether the budget holds.",
    "demos": (
        "Let a task's scripted expert drive, and store its observations and actions as episodes."
    ),
    "train": "Train a policy on demonstrations and on its own rollouts, and write it as a bundle.",
    "export": "Export a model to ONNX and write it as a bundle of manifest, weights and graph.",
    "compile": "Compile a bundle into an engine for a GPU and store it in this user's cache.",
    "parity": (
        "Run a bundle on random observations through three paths that must give the same tokens."
    ),
    "fault": "Inject one fault into a simulated arm and its controller, and time the reaction.",
    "faults": (
        "Inject every fault that gatort must survive, and compare the reactions with their bounds."
    ),
    "cameras": (
        "List the connected cameras, or measure sources and compare them with the simulated scene."
    ),
    "doctor": "List the parts of this machine, and how to install the missing ones.",
}
"""Line of each command in `gatort --help`: the first sentence of its function's docstring."""

FUNCTIONS = {"compile": "compile:compile_engine", "faults": "fault:faults"}
"""Functions under `gatort.launch.commands` that are not called as their command and module are."""

EXTRAS = {
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "mujoco": "sim",
    "pybullet": "pybullet",
    "matplotlib": "trials",
    "onnx_ir": "tensorrt",
    "tensorrt_rtx": "tensorrt",
    "cuda": "tensorrt",
    "pylibfranka": "franka",
    "cv2": "cameras",
}
"""Optional package by import name, and the extra of gatort that installs it."""


def _read(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert a flag's value as cyclopts does, but refuse a fraction where cyclopts would round
    it.
    """
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
for _name, _line in COMMANDS.items():
    _function = FUNCTIONS.get(_name, f"{_name}:{_name}")
    app.command(f"gatort.launch.commands.{_function}", name=_name, help=_line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: command line after `gatort`; the process's own by default.
    """
    given = _attach_hyphens(sys.argv[1:] if arguments is None else arguments)
    with spared_streams():
        return _run(given)


def _run(given: list[str]) -> int:
    try:
        _use_docstring_as_help(given)
        status = app(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _refuse(_flag_sentence(error))
    except GatortError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return _refuse(unwritable(Path(error.filename or "a file"), error))
    except ImportError as error:
        if (package := _absent_package(error)) is None:
            raise
        return _refuse(
            f"{given[0]} needs {package}, which is not installed: "
            f"pip install 'gatort[{EXTRAS[package]}]'"
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _attach_hyphens(arguments: Sequence[str]) -> list[str]:
    """Write `--json -` as `--json=-`, because a hyphen alone looks like a flag."""
    given: list[str] = []
    for argument in arguments:
        if argument == "-" and given and given[-1].startswith("--"):
            given[-1] += "=-"
        else:
            given.append(argument)
    return given


def _use_docstring_as_help(arguments: list[str]) -> None:
    """Let the help page of a command show its whole docstring instead of its line in COMMANDS."""
    if arguments and arguments[0] in COMMANDS:
        app[arguments[0]].help = None


def _absent_package(error: ImportError) -> str | None:
    """Return the optional package whose absence caused the error, or `None` for another cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            package = (cause.name or "").partition(".")[0]
            return package if package in EXTRAS else None
        cause = cause.__cause__
    return None


def _flag_sentence(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        found = unknown("command", error.unused_tokens[0], list(COMMANDS))
        return f"{found}; valid commands are {', '.join(COMMANDS)}"

    if isinstance(error.__cause__, ValidationError) and error.argument is not None:
        argument = error.argument
        return "; ".join(
            f"{_flag(argument, details['loc'])}: {finding(details)}"
            for details in error.__cause__.errors()
        )
    return str(error)


def _flag(argument: Argument, location: tuple[int | str, ...]) -> str:
    """Return the flag at a location in pydantic's report; an index into a list of values is
    skipped.
    """
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
