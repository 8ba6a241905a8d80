"""The calling thread's floating-point environment: whether denormal numbers count as zero.

ONNX Runtime's `session.set_denormal_as_zero` switches the thread that makes a session, for good. It
switches no thread that runs the session later. Left on, it would change NumPy's and the simulator's
arithmetic on the same thread. The engine keeps both environments and switches around each pass
(0.6 µs each way).
"""

from __future__ import annotations

import ctypes

_LARGEST_FENV_T = 64  # fenv.h: 32 bytes on x86-64, 8 on AArch64


class FloatEnvironment:
    """Environment of the thread that makes this object; empty if the C library has no fenv."""

    def __init__(self) -> None:
        self._saved = ctypes.create_string_buffer(_LARGEST_FENV_T)
        self._address = ctypes.addressof(self._saved)
        self._set = None

        libc = ctypes.CDLL(None)
        if hasattr(libc, "fegetenv") and hasattr(libc, "fesetenv"):
            libc.fegetenv(self._saved)
            self._set = libc.fesetenv
            self._set.argtypes = [ctypes.c_void_p]

    def put_on(self) -> None:
        """Make it the calling thread's environment."""
        if self._set is not None:
            self._set(self._address)
