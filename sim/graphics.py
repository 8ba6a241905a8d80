"""Which GL library draws pictures without a screen, and what to install where there is none.

MuJoCo reads MUJOCO_GL when it is imported and then keeps to it, and PyOpenGL does the same, so a library that fails
cannot be swapped for another inside one process: each candidate is tried in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

DEBIAN_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Candidates in the order they are tried, and the Debian package of each."""

INSTALL_HINT = "apt-get install libegl1 (or libosmesa6) gives pictures"

_PROBE = (
    "import mujoco; gl = mujoco.GLContext(16, 16); gl.make_current(); "
    "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_100)"
)


@cache
def choose_gl() -> str | None:
    """Find a GL library that draws, and set MUJOCO_GL to it; call this before MuJoCo is first imported.

    A MUJOCO_GL that is already set is tried alone and never replaced by another. Where it draws nothing it is taken
    back, because MuJoCo cannot even be imported with a library that is missing.

    Returns:
        The value of MUJOCO_GL that works, or none: then everything but pictures works.
    """
    asked = os.environ.get("MUJOCO_GL")
    for candidate in [asked] if asked else DEBIAN_PACKAGES:
        if _draws(candidate):
            os.environ["MUJOCO_GL"] = candidate
            return candidate
    os.environ.pop("MUJOCO_GL", None)
    return None


def _draws(candidate: str) -> bool:
    environment = os.environ | {"MUJOCO_GL": candidate}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0
