"""Text in TOML of a file that anybody may have written."""

from __future__ import annotations

import tomllib
from typing import Any, Final

MOST_LINE: Final = 1000
"""Longest line, in characters. The time and the memory of a dotted key grow with the square of its
length."""


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the keys of a TOML file. A byte-order mark is read over.

    Raises:
        ValueError: it is not UTF-8 (`UnicodeDecodeError`), not TOML (`TOMLDecodeError`), or a line
            is too long.
        RecursionError: lists or tables are nested too deep.
    """
    text = content.decode("utf-8-sig")
    if max(map(len, text.splitlines()), default=0) > MOST_LINE:
        raise ValueError(f"expected lines of at most {MOST_LINE} characters")
    return tomllib.loads(text)
