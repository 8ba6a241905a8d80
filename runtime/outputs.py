"""Files and folders that a program writes: checked before the work, by one writer, whole or not
at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .errors import OutputError

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a file's largest size that is used up."""
MARK: Final = "written by gatort"
"""Text in every picture and film of gatort. Only files with it are written anew."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to. Its file takes the place of `path` at the end.

    After an error the older file stays, and the new one is removed.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = _partial(path)
    try:
        try:
            yield partial
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink()
    except OSError as error:
        raise OutputError(unwritable(path, error)) from error


def require_place(path: Path) -> None:
    """Check by trying it that a file can be made in the directory of `path`.

    Raises:
        OutputError: `path` is a directory, its directory is missing, or no file can be made in it.
    """
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: expected a file, found a directory")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no directory {path.parent}")
        _partial(path).exists()  # Raises an error when the name is too long.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(unwritable(path, error)) from error


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder and its parents at the end, if they are new and empty."""
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        for each in absent:
            with suppress(OSError):
                each.rmdir()


def require_folder(folder: Path, remedy: str = "name another") -> None:
    """Check by trying it that files can be made in a folder, or that the folder can be made.

    Folders that had to be made for this are removed again.

    Args:
        folder: the folder.
        remedy: clause on the way to another one.

    Raises:
        OutputError: a file has that name, or nothing can be written there.
    """
    try:
        with removed_if_empty(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: expected a folder, or to make one here "
            f"({error.strerror}); {remedy}"
        ) from error


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Hold an existing file or folder alone until the end of the context or of this process.

    Raises:
        OutputError: another process holds it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(
            f"{path}: expected to write here alone, found another process that does; "
            "wait until it has ended, or name another place"
        ) from error
    except OSError:
        pass  # Some network file systems have no locks.
    try:
        yield
    finally:
        os.close(handle)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def unwritable(path: Path, error: OSError) -> str:
    """Return the sentence on a file that cannot be written."""
    return f"cannot write {path}: {error.strerror or error}"
