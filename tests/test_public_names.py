"""`import gatort` offers a dozen names, loads each when it is used, and hides everything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gatort


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
    assert dir(gatort) == gatort.__all__


@pytest.mark.parametrize("name", gatort.__all__)
def test_every_public_name_resolves_to_an_object_of_that_name(name: str) -> None:
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
