"""Drawing of pictures, which a signal ends at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

from gatort.runtime.interruption import EndingAtOnce

Rest = ParamSpec("Rest")


def announced(
    draw: Callable[Concatenate[Path, Rest], None],
) -> Callable[Concatenate[Path, Rest], None]:
    """Say that a picture is being drawn, and let signals end the process at once meanwhile.

    The figures were printed and written before. Importing and drawing take matplotlib seconds on a
    small computer, and an interruption in its C++ code can abort the interpreter.
    """

    @wraps(draw)
    def announce(path: Path, /, *args: Rest.args, **kwargs: Rest.kwargs) -> None:
        print(f"drawing {path} …", file=sys.stderr)
        with EndingAtOnce():
            draw(path, *args, **kwargs)

    return announce
