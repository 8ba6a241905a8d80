"""A secret of this user on this machine, which tells their own files from other people's."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from gatort.runtime.errors import EngineError
from gatort.runtime.private_file import read_private, write_new

KEY_BYTES = 32


def user_key(path: Path) -> bytes:
    """Return the local user's key; make it if there is none.

    Raises:
        EngineError: the file is a link, is cut short, is another user's, or others may read it.
    """
    with suppress(FileExistsError):
        write_new(path, secrets.token_bytes(KEY_BYTES), 0o600)
    key = read_private(path, "this user's key", EngineError)
    if len(key) != KEY_BYTES:
        raise EngineError(f"{path}: expected a key of {KEY_BYTES} bytes, found {len(key)}")
    return key
