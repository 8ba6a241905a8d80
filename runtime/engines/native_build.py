"""Compilation of `native.c` for this machine's CPU, with a model's dimensions as constants."""

from __future__ import annotations

import ctypes
import platform
import shutil
from functools import cache
from pathlib import Path

from gatort.runtime.compiler import COMPILER, compiled
from gatort.runtime.errors import EngineError

SOURCE = Path(__file__).with_name("native.c")
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
        constants: definitions as the compiler takes them, for example `-DLAYERS=6`. The compiler
            is GCC, whose vector extensions the file uses.

    Raises:
        EngineError: the compiler refused the file, or the library cannot be written or loaded.
        MissingDependency: GCC is not installed.
    """
    options = (*_OPTIONS, *constants)
    with compiled(source, options, "--engine native", EngineError) as target:
        return _declared(ctypes.CDLL(str(target)))


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the functions that Python calls."""
    library.start.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.start.restype = ctypes.c_void_p
    library.tick.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    library.tick.restype = None
    library.stop.argtypes = [ctypes.c_void_p]
    library.stop.restype = None
    return library
