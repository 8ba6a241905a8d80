"""Readable names of gatort's processes, for `top` and for the sentence on the processor."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

OWN: Final = "gatort"
"""Beginning of the name of each of gatort's processes."""
_NAME: Final = Path("/proc/self/comm")
"""Name of this process, of which the kernel keeps 15 bytes (proc(5))."""


def name_process(part: str = "") -> None:
    """Name this process `gatort-PART`, or `gatort` alone. Otherwise its name is `python`."""
    name = f"{OWN}-{part}" if part else OWN
    with suppress(OSError):  # A name is no reason to end a process.
        _NAME.write_bytes(os.fsencode(name))
