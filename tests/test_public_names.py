"""`import gatort` offers a dozen names, loads each when it is used, and hides everything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gatort
from gatort.runtime.errors import MissingDependency

SIMULATORS = {"MujocoRobot": "mujoco", "BulletRobot": "pybullet"}


def test_the_public_surface_is_these_names_and_no_more() -> None:
    assert gatort.__all__ == [
        "Actuator",
        "BulletRobot",
        "Decision",
        "Driver",
        "Episode",
        "GatortError",
        "Interface",
        "MonotonicClock",
        "MujocoRobot",
        "ObservationKey",
        "Policy",
        "PolicyOptions",
        "PolicySpec",
        "Recording",
        "RemoteRobot",
        "VirtualClock",
        "load_policy",
    ]
    assert dir(gatort) == sorted([*gatort.__all__, "__version__"])


@pytest.mark.parametrize("name", gatort.__all__)
def test_every_public_name_resolves_to_an_object_of_that_name(name: str) -> None:
    if name in SIMULATORS:
        pytest.importorskip(SIMULATORS[name])
    assert getattr(gatort, name).__name__ == name


def test_importing_gatort_loads_no_package_but_its_own() -> None:
    program = (
        "import sys; before = set(sys.modules); import gatort; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "['gatort']"


def test_a_misspelt_name_is_answered_with_the_closest_one() -> None:
    with pytest.raises(
        AttributeError, match="no attribute 'load_polcy'; did you mean 'load_policy'"
    ):
        getattr(gatort, "load_polcy")  # noqa: B009
    with pytest.raises(AttributeError, match="it has Actuator, BulletRobot"):
        getattr(gatort, "xyzzy")  # noqa: B009


def test_a_simulator_that_is_absent_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(vars(gatort), "BulletRobot", raising=False)
    monkeypatch.delitem(sys.modules, "gatort.sim.simulators.bullet", raising=False)
    monkeypatch.delitem(sys.modules, "pybullet", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingDependency, match=r"pip install 'gatort\[pybullet\]'"):
        getattr(gatort, "BulletRobot")  # noqa: B009


class Absent:
    """An importer that finds no PyBullet."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pybullet":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
