"""Text of strangers for a terminal: without the characters that a terminal obeys."""

from __future__ import annotations

_SHOWN = "�"


def printable(text: str) -> str:
    """Return a text with every character replaced that is no letter, mark, space or line's end.

    An escape sequence in a recording, a manifest, a file's name or a robot's reason could
    otherwise move the cursor or hide a line.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else _SHOWN for each in text)
