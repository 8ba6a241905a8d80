"""Compilation of a C file of this package when it is needed, for the machine that runs it.

GCC takes a second or two. The result lies in a private folder that is deleted at once: no compiled
file can later be found, trusted or out of date.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import GatortError, MissingDependency

COMPILER = "gcc"
_TRIES = 100
_underway: dict[str, subprocess.Popen[str] | None] = {}
"""Compiler of each folder, `None` before and after it runs."""


@contextmanager
def compiled(
    source: Path, options: Sequence[str], purpose: str, failure: type[GatortError]
) -> Iterator[Path]:
    """Compile a C file, and yield the result until the block ends.

    Args:
        source: the file. Its folder and the one of this module are searched for headers.
        options: options of GCC.
        purpose: subject of the sentences of failure, such as `--engine native`.
        failure: type of the errors below.

    Raises:
        MissingDependency: GCC is not installed.
        GatortError: the compiler refused the file, or the result cannot be written or loaded. Its
            type is `failure`.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingDependency(
            f"{purpose} needs {COMPILER}: on Debian, apt-get install gcc libc6-dev"
        )
    headers = [f"-I{folder}" for folder in (source.parent, Path(__file__).parent)]
    try:
        with tempfile.TemporaryDirectory(prefix="gatort-") as folder:
            _underway[folder] = None
            target = Path(folder) / source.stem
            command = [compiler, *options, *headers, str(source), "-o", str(target), "-lm"]
            try:
                if complaint := _run(command, folder):
                    raise failure(
                        f"{purpose}: {COMPILER} cannot compile {source.name}:\n{complaint}"
                    )
                yield target
            finally:
                del _underway[folder]
    except OSError as error:
        raise failure(
            f"{purpose}: {error}; set TMPDIR to a folder that allows writing and executing"
        ) from error


def abandon() -> None:
    """End every compiler and remove its folder, in a process that is about to end at once."""
    for folder, compiler in list(_underway.items()):
        if compiler is not None:
            with suppress(ProcessLookupError):
                os.killpg(compiler.pid, signal.SIGKILL)
        for _ in range(_TRIES):  # The last of its processes may still be making a file.
            shutil.rmtree(folder, ignore_errors=True)
            if not Path(folder).exists():
                break


def _run(command: Sequence[str], folder: str) -> str:
    """Run the compiler, its own files in a folder too. Return its complaint, empty after success.

    GCC starts processes of its own. When this one is interrupted, it ends all of them first. None
    writes into the folder any more, so the folder can be deleted.
    """
    environment = {**os.environ, "TMPDIR": folder}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    ) as compiler:
        _underway[folder] = compiler
        try:
            _, complaint = compiler.communicate()
        except BaseException:
            os.killpg(compiler.pid, signal.SIGKILL)
            compiler.communicate()  # Ends when the last of them has closed its standard error.
            raise
        finally:
            _underway[folder] = None
    return (complaint or f"status {compiler.returncode}") if compiler.returncode else ""
