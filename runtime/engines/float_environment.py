"""The calling thread's floating-point environment: whether denormal numbers count as zero.

ONNX Runtime's `session.set_denormal_as_zero` switches the thread that makes a session for good, and no thread that
runs it later. That would change NumPy's and the simulator's arithmetic on the same thread behind their backs, so the
engine keeps the two environments apart and switches around each pass (0.6 µs each way).
"""

from __future__ import annotations

import ctypes

_LARGEST_FENV_T = 64  # fenv.h: 32 bytes on x86-64, 8 on AArch64


class FloatEnvironment:
    """The environment of the thread that makes this, to be put on again later; nothing where C has no fenv."""

    def __init__(self) -> None:
        self._saved = ctypes.create_string_buffer(_LARGEST_FENV_T)
        self._address = ctypes.addressof(self._saved)
        libc = ctypes.CDLL(None)
        self._set = None
        if hasattr(libc, "fegetenv") and hasattr(libc, "fesetenv"):
            libc.fegetenv(self._saved)
            self._set = libc.fesetenv
            self._set.argtypes = [ctypes.c_void_p]

    def put_on(self) -> None:
        """Make it the calling thread's environment."""
        if self._set is not None:
            self._set(self._address)
