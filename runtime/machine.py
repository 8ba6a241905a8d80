"""What a figure was measured on: processor, memory, kernel, interpreter and the versions that matter."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MEASURED_PACKAGES = (
    "gatort", "numpy", "onnxruntime", "onnxruntime-gpu", "mujoco-core", "torch",
    "tensorrt-rtx", "tensorrt", "cuda-python",
)  # fmt: skip
"""Packages whose version moves a figure."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One computer, as a report names it."""

    cpu: str
    cores: int
    """Cores that this process may use, not those that the machine has."""
    memory_gib: float
    system: str
    python: str
    versions: dict[str, str]
    """Installed packages of `MEASURED_PACKAGES`; an absent one is left out."""

    def __str__(self) -> str:
        """One line for a table's caption."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        hardware = f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB"
        return f"{hardware}, {self.system}, Python {self.python}; {versions}"


def this_machine() -> Machine:
    """Describe the computer that this process runs on."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={
            name: number
            for name in MEASURED_PACKAGES
            if (number := installed_version(name)) is not None
        },
    )


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once, files that it mapped included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, none when it is absent; nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
