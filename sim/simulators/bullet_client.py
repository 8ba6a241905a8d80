"""Bullet's functions, bound to one of the simulations that a process may hold."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from gatort.runtime.errors import RobotError


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back the output of Bullet's C code. If the block fails, write it to standard error."""
    flush = ctypes.CDLL(None).fflush
    with tempfile.TemporaryFile() as said:
        streams = [(number, os.dup(number)) for number in (1, 2)]
        sys.stdout.flush()
        for number, _ in streams:
            os.dup2(said.fileno(), number)
        try:
            yield
            flush(None)
            said.truncate(0)
        finally:
            flush(None)
            for number, kept in streams:
                os.dup2(kept, number)
                os.close(kept)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))


with quietly():  # It greets.
    import pybullet
    import pybullet_data

__all__ = ["PANDA_URDF", "BulletClient", "pybullet", "quietly"]

PANDA_URDF: Final = Path(pybullet_data.getDataPath(), "franka_panda", "panda.urdf")
"""PyBullet's own Panda. Its meshes lie beside it."""


class BulletClient:
    """A simulation. Every function of pybullet that works on one is an attribute.

    Raises:
        RobotError: this process holds too many simulations.
    """

    def __init__(self) -> None:
        with quietly():
            self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RobotError("PyBullet has no room for another simulation in this process")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(getattr(pybullet, name), physicsClientId=self._client)

    def close(self) -> None:
        """Leave the simulation. A second call does nothing."""
        if self.isConnected():
            self.disconnect()
