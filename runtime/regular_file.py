"""Input files that anybody may have named: regular ones, opened once, no larger than expected.

A pipe would make a reader wait for ever and a device may have no end, so both are refused. Code
that reads by name alone, such as a library, is given `by_descriptor`. It reads the file that was
opened, whatever now lies under the name.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO

from .errors import GatortError


def open_regular(
    path: Path, what: str, error: type[GatortError], *, follow_links: bool = True
) -> BufferedReader:
    """Open a regular file for reading, without waiting.

    Args:
        path: path of the file.
        what: noun for the content, such as `a recording`, for the error's sentence.
        error: type of the error to raise.
        follow_links: false to refuse a link.

    Raises:
        GatortError: the file cannot be read or is no regular file. The error has the type `error`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as failure:  # ValueError: a name with a zero byte.
        raise error(f"{path}: expected {what}, found {_absence(failure)}") from failure

    found = _kind(os.fstat(descriptor).st_mode)
    if found is not None:
        os.close(descriptor)
        raise error(f"{path}: expected {what}, found {found}")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, what: str, error: type[GatortError], most_bytes: int) -> bytes:
    """Return the content of a regular file of at most `most_bytes`.

    Args:
        path: path of the file.
        what: noun for the content, for the error's sentence.
        error: type of the error to raise.
        most_bytes: largest size; no more memory is taken.

    Raises:
        GatortError: the file cannot be read, is no regular file, or is larger. The error has the
            type `error`.
    """
    with open_regular(path, what, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise error(
                f"{path}: expected {what} of at most {most_bytes} bytes, found {size} bytes"
            )
        try:
            return file.read(most_bytes)
        except OSError as failure:
            raise error(
                f"{path}: expected {what}, found one that cannot be read ({failure.strerror})"
            ) from failure


def by_descriptor(file: IO[bytes]) -> str:
    """Return a path of an open file that stays its own, even when another file takes its name."""
    return f"/proc/self/fd/{file.fileno()}"


def _absence(failure: OSError | ValueError) -> str:
    if isinstance(failure, ValueError):
        return f"none ({failure})"
    return "a link" if failure.errno == errno.ELOOP else f"none ({failure.strerror})"


def _kind(mode: int) -> str | None:
    """Return the noun of a file that is not regular; `None` for a regular one."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
