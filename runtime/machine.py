"""The computer of a measurement: processor, memory, kernel, interpreter and versions."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

from .grant import read_grant
from .packages import installed_version
from .wording import counted

MEASURED_PACKAGES = (
    "gatort", "numpy", "onnxruntime", "onnxruntime-gpu", "mujoco-core", "torch",
    "tensorrt-rtx", "tensorrt", "cuda-python",
)  # fmt: skip
"""Packages whose version changes a figure."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Description of one computer, for reports."""

    cpu: str
    """Model of the processor."""
    cores: int
    """Number of cores that this process may use; the machine may have more."""
    quota_cores: float | None
    """CPU time that a quota allows in each second, in cores; `None` without a quota."""
    memory_gib: float
    """Size of the memory, or of the part that a control group allows."""
    system: str
    """Operating system and release of its kernel."""
    python: str
    """Version of the interpreter."""
    versions: dict[str, str]
    """Version of each installed package of `MEASURED_PACKAGES`."""

    @property
    def hardware(self) -> str:
        """Processor and memory in words."""
        quota = "" if self.quota_cores is None else f" with a CPU quota of {self.quota_cores:g}"
        memory = f"{self.memory_gib:.3g}" if self.memory_gib < 10 else f"{self.memory_gib:.0f}"
        return f"{self.cpu}, {counted(self.cores, 'core')}{quota}, {memory} GiB"

    def __str__(self) -> str:
        """Return one line for a table's caption."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.hardware}, {self.system}, Python {self.python}; {versions}"


def this_machine() -> Machine:
    """Describe the computer that this process runs on."""
    found = {name: installed_version(name) for name in MEASURED_PACKAGES}
    grant = read_grant()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_model(),
        cores=grant.cores,
        quota_cores=grant.quota_cores,
        memory_gib=round(min(memory_bytes, grant.memory_limit_bytes or memory_bytes) / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: number for name, number in found.items() if number is not None},
    )


def peak_memory_bytes() -> int:
    """Return the largest memory that this process has held, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
