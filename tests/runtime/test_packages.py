"""Install lines, on processors with and without wheels."""

from __future__ import annotations

import platform
import tomllib
from pathlib import Path

import pytest

from gatort.runtime.errors import MissingDependency
from gatort.runtime.packages import WHEELS_FOR_X86_64, install_hint, require_packages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", WHEELS_FOR_X86_64)
def test_a_package_without_a_wheel_for_this_processor_has_a_way_out_and_no_install_line(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    hint = install_hint(package, "extra")
    assert hint == f"{package} has no wheel for aarch64: {WHEELS_FOR_X86_64[package]}"
    assert install_hint("numpy", "sim") == "pip install 'gatort[sim]'"
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert install_hint(package, "extra") == "pip install 'gatort[extra]'"


def test_a_missing_package_is_refused_with_the_way_out_of_this_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr("gatort.runtime.packages.installed_version", lambda _: None)
    with pytest.raises(MissingDependency, match="pybullet has no wheel for aarch64: simulate"):
        require_packages("the second simulator", "pybullet", "pybullet")


def test_extras_leave_out_every_package_without_a_wheel_for_aarch64() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [line for extra in extras for line in extra]
    for package in WHEELS_FOR_X86_64:
        lines = [line for line in wanted if line.startswith(package)]
        assert lines, package
        assert all("platform_machine == 'x86_64'" in line for line in lines), lines


def test_no_base_dependency_is_one_without_a_wheel_for_aarch64() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "hdrhistogram" not in str(project["dependencies"])
    assert not any(package in str(project["dependencies"]) for package in WHEELS_FOR_X86_64)
