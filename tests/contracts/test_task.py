"""Every task of the registry keeps the contract of `gatort.testing`."""

from __future__ import annotations

import pytest

from gatort.sim.tasks import TASKS
from gatort.sim.tasks.task import Task
from gatort.testing import TaskContract


class TestTask(TaskContract):
    @pytest.fixture(params=TASKS.values(), ids=TASKS)
    def task(self, request: pytest.FixtureRequest) -> Task:
        made: Task = request.param
        return made
