"""Files that hold a secret: nobody but their owner may read them, from the moment at which they exist."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import IO

from .errors import GatortError

LONGEST_SECRET_BYTES = 256


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that has its mode from the first moment; a link to a finished one, so nobody reads half of it.

    Raises:
        FileExistsError: there is one, which stays as it is.
    """
    if path.is_symlink() or path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    drawn = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)  # Whatever the umask takes away or leaves.
            file.write(content)
        os.link(drawn, path)
    finally:
        drawn.unlink()


def read_private(path: Path, what: str, error: type[GatortError]) -> bytes:
    """What stands in a file of this user's that nobody else may read.

    Args:
        path: no link.
        what: it holds, for the sentence.
        error: to raise.

    Raises:
        GatortError: of that type; there is no such file, others may read it, or it is someone else's or a link.
    """
    with open_unlinked(path, what, error) as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise error(
                f"{path}: expected a key that is user {os.geteuid()}'s alone (mode 600), "
                f"found user {status.st_uid}'s with mode {stat.S_IMODE(status.st_mode):o}"
            )
        return file.read(LONGEST_SECRET_BYTES)


def open_unlinked(path: Path, what: str, error: type[GatortError]) -> IO[bytes]:
    """A regular file that is no link, open for reading; what would keep a reader waiting, such as a pipe, does not.

    Raises:
        GatortError: of type `error`; there is none that can be read, or it is a link or no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as failure:
        found = (
            "a link"
            if failure.errno == errno.ELOOP
            else f"none that can be read ({failure.strerror})"
        )
        raise error(f"{path}: expected {what}, found {found}") from failure
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise error(f"{path}: expected {what}, found no regular file")
    return os.fdopen(handle, "rb")
