"""The `gatort` command: one sub-command per file in `commands/`, and one way to fail.

A command's module is imported when that command runs. `gatort --help` therefore starts at once, and
each module has its imports at its top. A refused input, an absent optional package and a machine
that has no more to give become one sentence on standard error and exit status 2. Any other
exception is a fault of gatort: status 70, a sentence and a traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from cyclopts import App, Argument, CycloptsError, Group, Parameter, Token, convert
from pydantic import ValidationError

from gatort.runtime.errors import ConfigError, GatortError, MissingDependency
from gatort.runtime.exit_status import ExitStatus, ended_by
from gatort.runtime.interruption import Interruption
from gatort.runtime.invalid_values import first_error
from gatort.runtime.outputs import NO_SPACE, removed_if_empty, unwritable

from .command_help import READERS, show_whole
from .outputs import RUNS
from .refusals import flag_sentence, with_flag
from .streams import complain, spared_streams

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""Errors that say that the machine has no more of something."""

COMMANDS = {
    "run": "Drive the robot with a policy in real time, 20 ticks a second.",
    "robot": "Let a controller drive an arm over a wire.",
    "serve": "Drive several robots with one policy from one process.",
    "keys": "Make one key pair for a robot and one for a controller.",
    "info": "Show the contents of a recording, and whether it is complete.",
    "replay": "Feed a recording's observations through an engine and compare every action token.",
    "trials": "Try a policy on seeded layouts in lockstep and report its success rate.",
    "study": "Compare policies in a study that is planned and locked before its first trial.",
    "robustness": (
        "Measure a policy's success as cameras, light, lens and latency leave their nominal values."
    ),
    "profile": "Time every stage of the control loop and say whether the budget holds.",
    "compare": (
        "Compare two reports of trials, profiles or faults, and say whether the second is worse."
    ),
    "demos": (
        "Let a task's scripted expert drive, and store its observations and actions as episodes."
    ),
    "convert": (
        "Convert recordings or demonstrations to a LeRobotDataset, and data sets to demonstrations."
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
    "console": "Show finished runs in a browser.",
    "cameras": (
        "List the connected cameras, or measure sources and compare them with the simulated scene."
    ),
    "calibrate": "Measure the lens of a camera, or its place.",
    "poses": "Publish the poses of cubes with AprilTags for a policy.",
    "doctor": "List the parts of this machine, and how to install the missing ones.",
}
"""Line of each command in `gatort --help`: the first sentence of its function's docstring."""

FUNCTIONS = {"compile": "compile:compile_engine", "faults": "fault:faults"}
"""Functions under `gatort.launch.commands` that are not called as their command and module are."""

COMPLETION = "--install-completion"

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
    "scipy": "trials",
    "pyarrow": "convert",
    "av": "convert",
    "h5py": "convert",
    "starlette": "console",
    "uvicorn": "console",
    "websockets": "console",
    "ray": "cluster",
}
"""Optional package by import name, and the extra of gatort that installs it."""


def _read(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert a flag's value as cyclopts does, but refuse a fraction where cyclopts would round
    it, and expand `~`, which a shell leaves in `--json=~/x`.
    """
    if int in (kind, *get_args(kind)):
        for token in tokens:
            if "." in token.value:
                raise ValueError(f"expected a whole number, found {token.value!r}")
    value = convert(kind, tokens)
    return value.expanduser() if str(value).startswith("~/") and isinstance(value, Path) else value


app = App(
    name="gatort",
    help="Run a Gato-style policy on a robot arm in real time.",
    version=lambda: version("gatort"),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    group_commands=Group("Everybody", sort_key=len(READERS)),
    default_parameter=Parameter(converter=_read, negative_iterable=(), consume_multiple=1),
)


def _install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> int:
    """Install completion of commands and flags, and let the shell's start file load it.

    Parameters
    ----------
    shell
        Shell to install it for. Default: the one in use.
    """
    print(f"installed: {app.install_completion(shell=shell)}; start a new shell to use it")
    return ExitStatus.DONE


app.command(_install_completion, name=COMPLETION)
for _place, (_reader, _names) in enumerate(READERS.items()):
    _group = Group(_reader, sort_key=_place)
    for _name in _names:
        app.command(
            f"gatort.launch.commands.{FUNCTIONS.get(_name, f'{_name}:{_name}')}",
            name=_name,
            help=COMMANDS[_name],
            group=_group,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: command line after `gatort`; the process's own by default.
    """
    given = _attach_hyphens(sys.argv[1:] if arguments is None else arguments)
    with spared_streams():
        return _run(given)


def _run(given: list[str]) -> int:
    interruption = Interruption()
    try:
        if given and given[0] in COMMANDS:
            show_whole(app, given[0])
        if given and given[0] == COMPLETION:
            _leave_out_absent_commands()
        _require_words(given)
        command, bound, _ = app.parse_args(given, exit_on_error=False, print_error=False)
        with interruption, removed_if_empty(RUNS):
            status = command(*bound.args, **bound.kwargs)
    except KeyboardInterrupt:
        status = ended_by(signal.SIGINT)
    except Exception as error:  # noqa: BLE001  # the one place that gives every error its status
        status = _fail(given, error, interrupted=interruption.status is not None)
    return interruption.status or (status if isinstance(status, int) else ExitStatus.DONE)


def _fail(given: list[str], error: Exception, *, interrupted: bool) -> int:
    """Print one sentence on an error, and return its exit status."""
    if (sentence := _sentence(given, error)) is not None:
        complain(sentence)
        return ExitStatus.REFUSED
    if interrupted:  # Whatever a library made of the interruption.
        return ExitStatus.DONE

    complain(
        f"internal error: {type(error).__name__}: {error}; please report it in the issues of "
        "gatort's repository with the lines below, unless they lead into code of your own"
    )
    traceback.print_exception(error)
    return ExitStatus.INTERNAL_ERROR


def _sentence(given: list[str], error: Exception) -> str | None:
    """Return the sentence on an error whose cause is outside gatort, or `None` for another one."""
    match error:
        case CycloptsError():
            return flag_sentence(error, given, list(COMMANDS), _arguments(given))
        case GatortError():
            return with_flag(str(error), _arguments(given))
        case ValidationError():
            return with_flag(first_error(error, error.title), _arguments(given))
        case ImportError() if (package := _absent_package(error)) is not None:
            return (
                f"{given[0]} needs {package}, which is not installed: "
                f"pip install 'gatort[{EXTRAS[package]}]'"
            )
        case MemoryError():
            return f"{given[0]}: expected more memory, found none left; end other programs"
        case OSError(errno=number) if number in NO_SPACE:
            return unwritable(Path(os.fsdecode(error.filename or "a file")), error)
        case OSError(filename=str() | bytes()):
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        case OSError(errno=number) if number in EXHAUSTED:
            return f"{given[0]}: {error.strerror}; free some and give the command again"
    return None


def _arguments(given: list[str]) -> Sequence[Argument]:
    """Return the arguments of the given command; none of one whose packages are absent."""
    if not given or given[0] not in COMMANDS:
        return ()
    try:
        return app[given[0]].assemble_argument_collection(parse_docstring=False)
    except (ImportError, GatortError):
        return ()


def _leave_out_absent_commands() -> None:
    """Remove the commands whose packages are not installed, whose flags cannot be completed."""
    for name in COMMANDS:
        try:
            app[name]
        except MissingDependency:
            del app[name]
        except ImportError as error:
            if _absent_package(error) is None:
                raise
            del app[name]


def _require_words(given: Sequence[str]) -> None:
    """Refuse an empty word, which would be a path to this folder, or no command at all.

    Raises:
        ConfigError: there is one.
    """
    for before, word in pairwise(["", *given]):
        flag, equals, value = word.partition("=")
        if not word.strip() and not before:
            raise ConfigError(
                f"expected a command, found an empty word; valid ones are {', '.join(COMMANDS)}"
            )
        if not word.strip():
            raise ConfigError(f"expected a word after {before!r}, found an empty one")
        if equals and flag.startswith("--") and not value.strip():
            raise ConfigError(f"{flag}: expected a value, found an empty one")


def _attach_hyphens(arguments: Sequence[str]) -> list[str]:
    """Write `--json -` as `--json=-`, because a hyphen alone looks like a flag."""
    given: list[str] = []
    for argument in arguments:
        if argument == "-" and given and given[-1].startswith("--"):
            given[-1] += "=-"
        else:
            given.append(argument)
    return given


def _absent_package(error: ImportError) -> str | None:
    """Return the optional package whose absence caused the error, or `None` for another cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            package = (cause.name or "").partition(".")[0]
            return package if package in EXTRAS else None
        cause = cause.__cause__
    return None
