"""Help of the command line: commands by reader, an example each, and the ranges of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from cyclopts import App
from cyclopts.help import DefaultFormatter, HelpPanel
from rich.console import Console, ConsoleOptions
from rich.text import Text

READERS = {
    "Operator": (
        "run",
        "console",
        "robot",
        "serve",
        "keys",
        "cameras",
        "calibrate",
        "poses",
        "doctor",
        "fault",
        "faults",
    ),
    "Engineer": ("profile", "compare", "info", "replay", "parity", "export", "compile"),
    "Researcher": ("trials", "study", "robustness", "demos", "convert", "train"),
}
"""Commands by the reader whom they serve."""

EXAMPLES = {
    "run": "run --seed 7 --seconds 30 --video trial.mp4",
    "console": "console runs",
    "robot": "robot mujoco --bind tcp://0.0.0.0:5555 --keys keys --realtime",
    "serve": "serve --robots tcp://127.0.0.1:5555 --robots tcp://127.0.0.1:5556 --arm",
    "keys": "keys keys",
    "cameras": "cameras --source front=v4l2:/dev/video0 --picture front.png",
    "calibrate": "calibrate front --profile cell.toml",
    "poses": "poses --profile cell.toml",
    "doctor": "doctor --json doctor.json",
    "fault": "fault controller kill",
    "faults": "faults --row 1 2 --json faults.json",
    "profile": "profile --ticks 400 --plot profile.png",
    "compare": "compare runs/before.json runs/after.json",
    "info": "info runs/FILE.mcap",
    "replay": "replay runs/FILE.mcap --engine native",
    "parity": "parity --engine torch --wraps 10",
    "export": "export policies/stack --precision int4 --out runs/int4",
    "compile": "compile policies/stack --precision int8",
    "trials": "trials --episodes 200 --json trials.json",
    "study": "study plan pick.toml",
    "robustness": "robustness --bundle policies/stack_camera --json robustness.json",
    "demos": "demos runs/demos --episodes 200",
    "convert": "convert runs/demos --out runs/lerobot",
    "train": "train runs/demos --out runs/stack",
}
"""Arguments of one example for each command."""

_BOUNDS = ("gt", "ge", "lt", "le")
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_TURNED_SIGNS = {"gt": "<", "ge": "≤"}


def show_whole(app: App, command: str) -> None:
    """Let a command's help show its whole docstring, the ranges of its numbers and its example."""
    page = app[command]
    page.help = None
    page.help_epilogue = f"Example: gatort {EXAMPLES[command]}"
    page.help_formatter = RangeFormatter(page)


class RangeFormatter(DefaultFormatter):
    """Formatter that adds the range of a number to its flag's line.

    Args:
        page: command whose flags are formatted.
    """

    def __init__(self, page: App) -> None:
        super().__init__()
        arguments = page.assemble_argument_collection(parse_docstring=False)
        self._ranges = {
            argument.name: text
            for argument in arguments
            if (text := range_of(argument.field_info.annotation))
        }

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        for entry in panel.entries:
            for name in entry.names:
                if (text := self._ranges.get(name)) is not None:
                    entry.description.append(Text(f"[{text}]", "dim"))
        super().__call__(console, options, panel)


def range_of(annotation: Any) -> str:
    """Return the range of a number's annotation, such as `0 < x ≤ 1`; empty without one."""
    bounds = {
        name: value
        for constraint in _constraints(annotation)
        for name in _BOUNDS
        if (value := getattr(constraint, name, None)) is not None
    }
    match sorted(bounds, key=_BOUNDS.index):
        case [lower, upper]:
            low, high = _number(bounds[lower]), _number(bounds[upper])
            return f"{low} {_TURNED_SIGNS[lower]} x {_SIGNS[upper]} {high}"
        case [bound]:
            return f"x {_SIGNS[bound]} {_number(bounds[bound])}"
    return ""


def _constraints(annotation: Any) -> Iterator[Any]:
    """Yield the metadata of an annotation, of pydantic's fields in it, and of its parts."""
    for constraint in getattr(annotation, "__metadata__", ()):
        yield from getattr(constraint, "metadata", (constraint,))
    for part in get_args(annotation):
        yield from _constraints(part)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
