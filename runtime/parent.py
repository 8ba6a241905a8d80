"""A process that ends with the one that started it, and before it when memory runs out."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

OOM_SCORE: Final = 500
"""Score by which the kernel ends a process before others when memory runs out (proc(5))."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends (prctl(2)).

    Args:
        parent: identity of the process that started this one. It may have ended already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_before_others() -> None:
    """Let the kernel end this process before others when memory runs out, if it grants that."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
