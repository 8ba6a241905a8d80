"""A secret of this user on this machine, with which what he alone wrote is told from what others could have."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from .errors import EngineError

KEY_BYTES = 32


def user_key(path: Path) -> bytes:
    """The local user's key, made when there is none.

    Raises:
        EngineError: others may read it, or it is someone else's, a link or cut short.
    """
    with suppress(FileExistsError):
        _make_key(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError(
            f"{path}: expected this user's key, found none that can be read ({error.strerror})"
        ) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise EngineError(
                f"{path}: expected a key that is user {os.geteuid()}'s alone (mode 600), "
                f"found user {status.st_uid}'s with mode {stat.S_IMODE(status.st_mode):o}"
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise EngineError(f"{path}: expected a key of {KEY_BYTES} bytes, found {len(key)}")
    return key


def _make_key(path: Path) -> None:
    """Draw a key unless there is one; a link to a finished file, so that nobody reads half of it.

    Raises:
        FileExistsError: there is one.
    """
    if path.is_symlink() or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    drawn = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        os.link(drawn, path)
    finally:
        drawn.unlink()
