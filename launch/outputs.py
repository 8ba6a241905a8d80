"""Files that a command is asked to write: checked before any work, and no older file is lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatort.runtime.errors import ConfigError, MissingDependency, OutputError, RobotError
from gatort.runtime.outputs import MARK, require_folder, require_place, unwritable, whole_file

from .streams import complain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS: Final = {
    "plot": (".png", ".svg", ".pdf"),
    "picture": (".png",),
    "print_board": (".png",),
    "print_tags": (".pdf",),
    "video": (".mp4",),
    "record": (".mcap",),
}
"""Endings of the names that a flag's file may have."""
NEW: Final = ("record", "write")
"""Flags whose file must be new."""
STREAMED: Final = ("json", "record")
"""Flags whose output may go to a device or a pipe."""
MARKED_BYTES: Final = 1 << 16
"""Size of the two ends of a picture or film in which its mark is looked for."""
RUNS: Final = Path("runs")
"""Default folder of outputs. A command that writes nothing into a new one leaves none."""
LARGEST_REPORT_BYTES: Final = 1 << 26
STANDARD_OUTPUT: Final = 1
"""Number of its file descriptor."""


def make_runs() -> None:
    """Make the default folder of outputs, unless it exists.

    Raises:
        ConfigError: a file has that name, or the directory cannot be made here.
    """
    try:
        RUNS.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {RUNS}: expected a directory, or to make one here "
            f"({error.strerror}); run in another directory or name the files yourself"
        ) from error


def require_writable(**outputs: Path | None) -> None:
    """Check before any computation that output files can be written and that none is lost by it.

    Args:
        **outputs: path by the name of its flag; `None` is skipped.

    Raises:
        ConfigError: a name has the wrong ending, two flags name one file, or a file is there that
            gatort did not write.
        OutputError: the file cannot be made there.
    """
    named: dict[Path, str] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if name != "json" and (str(path) == "-" or (path.is_file() and is_standard_output(path))):
            raise ConfigError(
                f"{flag} {path}: expected a file of its own, found standard output, "
                "where only --json may write"
            )
        if name in STREAMED and is_stream(path):
            continue
        if (endings := ENDINGS.get(name, ())) and path.suffix.lower() not in endings:
            raise ConfigError(
                f"{flag}: expected a name that ends in {' or '.join(endings)}, found {path}"
            )
        target = real_path(path)
        require_place(target if path.is_symlink() else path)
        if (other := named.setdefault(target, flag)) != flag:
            raise ConfigError(f"{flag} {path}: expected a file of its own, found that of {other}")
        if target.exists() and not _replaceable(name, target):
            raise ConfigError(
                f"{flag} {path}: expected a new file{'' if name in NEW else ' or one of gatort'}, "
                "found one that would be lost; move it away or choose another name"
            )


def require_own_folder(flag: str, folder: Path, mark: str | None = None) -> None:
    """Check before any computation that a folder can be written, and holds no foreign files.

    Args:
        flag: flag that names the folder.
        folder: new or empty folder, or one of an earlier call.
        mark: name of a file in each folder of an earlier call. Default: none is gone on with.

    Raises:
        ConfigError: there are files in the folder, and none of that name.
        OutputError: the folder cannot be made or written.
    """
    require_folder(folder)
    if mark is not None and (folder / mark).exists():
        return
    if folder.exists() and any(folder.iterdir()):
        begun = f", or one with {mark}" if mark is not None else ""
        raise ConfigError(
            f"{flag} {folder}: expected a new or empty folder{begun}, found one with files; "
            "choose another name, or remove it first"
        )


def _replaceable(name: str, path: Path) -> bool:
    """Return true for an empty file, and for one that gatort wrote and may write anew."""
    if name in NEW or not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        return False
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if name == "json":
            return not size or (size <= LARGEST_REPORT_BYTES and _is_report(path))
        file.seek(0)
        beginning = file.read(MARKED_BYTES)
        file.seek(max(0, size - MARKED_BYTES))
        return not size or MARK.encode() in beginning + file.read()


def _is_report(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    origin = found.get("report") if isinstance(found, dict) else None
    return isinstance(origin, dict) and "gatort" in origin


def save_figure(path: Path, figure: Figure, dpi: int) -> None:
    """Write a figure of matplotlib in the format that its name ends in.

    Raises:
        OutputError: the file cannot be written.
    """
    key = "Software" if path.suffix.lower() == ".png" else "Creator"
    with whole_file(real_path(path)) as partial:
        # Another command may have removed the default folder, which was empty, since the check.
        partial.parent.mkdir(exist_ok=True)
        partial.touch()  # From now on it is not empty, and stays.
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:].lower(), metadata={key: MARK})


def append(path: Path, data: bytes) -> None:
    """Write to a device or a pipe. A pipe that nobody reads is not waited for.

    Raises:
        OutputError: it takes nothing.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(data)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OutputError(f"cannot write {path}: nobody reads this pipe") from error
        raise OutputError(unwritable(path, error)) from error


@contextmanager
def spared(noun: str) -> Iterator[None]:
    """Spare a command that has its figures: an output that fails costs a sentence on stderr."""
    try:
        yield
    except (MissingDependency, OutputError, RobotError) as error:
        complain(f"no {noun}: {error}")


def is_stream(path: Path) -> bool:
    """Return true for standard output, a device or a pipe, beside which no other file belongs."""
    if is_standard_output(path):
        return True
    if not path.exists() or path.is_dir():
        return False
    # /dev/stderr may be a link to a file, and stays one.
    return not path.is_file() or path.absolute().parent in (Path("/dev"), Path("/dev/fd"))


def real_path(path: Path) -> Path:
    """Return the path of the file itself: a link stays, and the file that it names is replaced."""
    return Path(os.path.realpath(path))


def is_standard_output(path: Path | None) -> bool:
    """Return true for `-` and for every name of this process's standard output."""
    if path is None:
        return False
    try:
        return str(path) == "-" or os.path.samestat(path.stat(), os.fstat(STANDARD_OUTPUT))
    except OSError:
        return False
