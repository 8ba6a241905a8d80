"""One bench for all faults, so that an arm and a policy are started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("mujoco")

from gatort.launch.faults.bench import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench
