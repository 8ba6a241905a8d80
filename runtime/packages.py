"""Installed packages, looked up without importing any of them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from .errors import MissingDependency

X86_64: Final = "x86_64"
WHEELS_FOR_X86_64: Final = {
    "pybullet": "simulate with mujoco, or build pybullet from its source",
    "pylibfranka": "build it beside libfranka from its source",
    "tensorrt-rtx": "use the tensorrt package that NVIDIA ships for this machine",
    "pyrealsense2": "build librealsense, or serve the camera as a stream",
}
"""Packages whose wheels are for x86-64 alone, each with the way out on another processor."""


def installed_version(package: str) -> str | None:
    """Return the installed version of a distribution, or `None` when it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def install_hint(package: str, extra: str) -> str:
    """Return the line that installs a package here, or the way out where it has no wheel.

    Args:
        package: name of the distribution.
        extra: name of gatort's extra that installs it.
    """
    processor = platform.machine()
    if package in WHEELS_FOR_X86_64 and processor != X86_64:
        return f"{package} has no wheel for {processor}: {WHEELS_FOR_X86_64[package]}"
    return f"pip install 'gatort[{extra}]'"


def require_packages(purpose: str, extra: str, *packages: str) -> None:
    """Check that all packages of an optional part of gatort are installed.

    Args:
        purpose: the activity that needs the packages, for the error's sentence.
        extra: name of gatort's extra that installs them.
        packages: names of the distributions.

    Raises:
        MissingDependency: a package is absent; the sentence carries the install line.
    """
    missing = [package for package in packages if installed_version(package) is None]
    if missing:
        names = ", ".join(missing)
        raise MissingDependency(f"{purpose} needs {names}: {install_hint(missing[0], extra)}")


def require_torch(purpose: str) -> None:
    """Check that PyTorch and the packages that export a model are installed.

    Raises:
        MissingDependency: a package is absent; the sentence carries the install line.
    """
    require_packages(purpose, "train", "torch", "onnx", "onnxscript", "safetensors")
