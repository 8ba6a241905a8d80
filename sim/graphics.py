"""Choice of the GL library that draws pictures without a screen.

MuJoCo and PyOpenGL read MUJOCO_GL when they are imported and then keep to it. A library that fails
cannot be replaced in the same process, so each candidate is tried in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

DEBIAN_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Candidates in the order of trial, and the Debian package of each."""

INSTALL_HINT = "apt-get install libegl1 (or libosmesa6) gives pictures"

_PROBE = (
    "import mujoco; gl = mujoco.GLContext(16, 16); gl.make_current(); "
    "model = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)"
)


@cache
def choose_gl() -> str | None:
    """Find a GL library that draws, and set MUJOCO_GL to it; call this before MuJoCo is first
    imported.

    A MUJOCO_GL that is already set is the only candidate. If it draws nothing, MUJOCO_GL is
    removed, because MuJoCo cannot even be imported with a library that is missing.

    Returns:
        The value of MUJOCO_GL that works. `None` if none does; then everything but pictures works.
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
            [sys.executable, "-P", "-c", _PROBE],
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0
