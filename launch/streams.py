"""Standard streams that never end a command: any character, a full disk, a reader that went away.

Standard error gets the text that standard output cannot take. The rest is dropped after a reader
that ended (`| head`), and when standard error cannot take it either.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, TextIO, cast

from gatort.runtime.printable import printable


def complain(sentence: str) -> None:
    """Print a sentence on standard error, wrapped at words on a terminal, else in one line."""
    text = f"gatort: {printable(' '.join(sentence.split()))}"
    if sys.stderr.isatty():
        width = get_terminal_size().columns
        text = fill(text, width, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)


class _Spared:
    """A text stream that moves to another one at its first failure.

    Args:
        stream: the stream.
        name: name for the sentence on its failure.
        other: stream that gets the rest, or `None` to drop it.
    """

    def __init__(self, stream: TextIO, name: str, other: TextIO | None) -> None:
        self._stream = stream
        self._name = name
        self._other = other
        self._unsure = ""

    def write(self, text: str) -> int:
        """Write a text; the stream may keep it until `flush`."""
        self._unsure += text
        try:
            self._stream.write(text)
        except OSError as error:
            self._move(error)
        if text.endswith("\n") and len(self._unsure) > io.DEFAULT_BUFFER_SIZE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Hand everything to the operating system, or move to the other stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._move(error)
        self._unsure = ""

    def _move(self, error: OSError) -> None:
        """Give the other stream the text that may be lost, and all that comes."""
        _discard(self._stream)
        unsure = self._unsure
        self._unsure = ""
        if self._other is None or isinstance(error, BrokenPipeError):
            return
        self._stream = self._other
        self._other = None
        self.write(f"gatort: cannot write {self._name}: {error.strerror}; it continues here\n")
        self.write(unsure)
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _discard(stream: TextIO) -> None:
    """Let a stream's file descriptor lead nowhere, so that its last flush cannot fail."""
    with suppress(OSError, ValueError):  # A stream of a test has no descriptor.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def spared_streams() -> Iterator[None]:
    """Replace the process's standard streams until the end of the context."""
    before = sys.stdout, sys.stderr
    error = _opened(sys.stderr, 2)
    spared_error = cast("TextIO", _Spared(error, "standard error", None))
    spared_output = cast("TextIO", _Spared(_opened(sys.stdout, 1), "standard output", spared_error))
    sys.stdout, sys.stderr = spared_output, spared_error
    try:
        yield
    finally:
        spared_output.flush()
        spared_error.flush()
        sys.stdout, sys.stderr = before


def _opened(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that replaces characters which its encoding lacks."""
    if stream is None:  # The program was started without it. No other file may take its number.
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="replace")
    return stream
