"""Files that hold a secret: from the moment they exist, only their owner may read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .errors import GatortError
from .regular_file import open_regular

LONGEST_SECRET_BYTES = 256


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a new file with its mode.

    The file is written under another name and then linked: nobody can read half of it.

    Raises:
        FileExistsError: the file exists; it stays as it is.
    """
    if path.is_symlink() or path.exists():
        raise FileExistsError(path)

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    drawn = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)  # The umask must not change the mode.
            file.write(content)
        os.link(drawn, path)
    finally:
        drawn.unlink()


def read_private(path: Path, what: str, error: type[GatortError]) -> bytes:
    """Return the content of a file that only this user may read.

    Args:
        path: path of the file, which must not be a link.
        what: noun for the content, for the error's sentence.
        error: type of the error to raise.

    Raises:
        GatortError: the file is absent, a link or another user's, or other users may read it. The
            error has the type `error`.
    """
    with open_regular(path, what, error, follow_links=False) as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise error(
                f"{path}: expected a key that only user {os.geteuid()} may read (mode 600), "
                f"found user {status.st_uid}'s with mode {stat.S_IMODE(status.st_mode):o}"
            )
        return file.read(LONGEST_SECRET_BYTES)
