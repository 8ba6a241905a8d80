"""Compilation of `native.c` for this machine's CPU, with a model's dimensions as constants.

GCC takes a second or two. The library is loaded from a private folder that is deleted at once: no
compiled file can later be found, trusted or out of date.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from gatort.runtime.errors import EngineError, MissingDependency

SOURCE = Path(__file__).with_name("native.c")
COMPILER = "gcc"
"""Compiler whose vector extensions `native.c` uses."""
_OPTIONS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-pthread",
    "-shared",
    "-fPIC",
    "-Wl,-Bsymbolic",
    f"-I{SOURCE.parent}",
)


def can_compile() -> bool:
    """Check if this machine has the processor and the compiler of `native.c`."""
    return platform.machine() == "x86_64" and shutil.which(COMPILER) is not None


@cache
def load_kernels(source: Path, constants: tuple[str, ...]) -> ctypes.CDLL:
    """Compile and load a C file, once per process for each set of constants.

    Args:
        source: `native.c`, or a file that includes it.
        constants: definitions as the compiler takes them, for example `-DLAYERS=6`.

    Raises:
        EngineError: the compiler refused the file, or the library cannot be written or loaded.
        MissingDependency: GCC is not installed.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingDependency(
            f"--engine native needs {COMPILER}: on Debian, apt-get install gcc libc6-dev"
        )

    try:
        with tempfile.TemporaryDirectory(prefix="gatort-") as folder:
            target = Path(folder) / "native.so"
            _compile([compiler, *_OPTIONS, *constants, str(source), "-o", str(target)], source)
            library = ctypes.CDLL(str(target))
    except OSError as error:
        raise EngineError(
            f"--engine native: {error}; set TMPDIR to a folder that allows writing and executing"
        ) from error
    return _declared(library)


def _compile(command: list[str], source: Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(
            f"--engine native: {command[0]} cannot compile {source.name}:\n{done.stderr}"
        )


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the functions that Python calls."""
    library.start.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.start.restype = ctypes.c_void_p
    library.tick.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    library.tick.restype = None
    library.stop.argtypes = [ctypes.c_void_p]
    library.stop.restype = None
    return library
