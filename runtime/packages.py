"""Installed packages, looked up without importing any of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from .errors import MissingDependency


def installed_version(package: str) -> str | None:
    """Return the installed version of a distribution, or `None` when it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
        raise MissingDependency(f"{purpose} needs {names}: pip install 'gatort[{extra}]'")


def require_torch(purpose: str) -> None:
    """Check that PyTorch and the packages that export a model are installed.

    Raises:
        MissingDependency: a package is absent; the sentence carries the install line.
    """
    require_packages(purpose, "train", "torch", "onnx", "onnxscript", "safetensors")
