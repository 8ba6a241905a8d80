"""Contracts that every robot, engine and task keeps, as pytest classes to inherit from.

A driver that is kept elsewhere is tested in six lines:

    from gatort.testing import RobotContract


    class TestMyArm(RobotContract):
        def make_robot(self, clock):
            return MyArm(clock)
"""

from __future__ import annotations

from gatort.runtime.errors import MissingDependency

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingDependency("gatort.testing needs pytest: pip install 'gatort[testing]'") from error

# Failed comparisons in the contracts show their values only if pytest rewrites these modules.
pytest.register_assert_rewrite(
    "gatort.testing.engines", "gatort.testing.robots", "gatort.testing.tasks"
)

from .engines import EngineContract, ModelEngineContract  # noqa: E402  # after the line above
from .policies import scripted_policy  # noqa: E402  # as above
from .robots import RobotContract  # noqa: E402  # as above
from .tasks import TaskContract  # noqa: E402  # as above

__all__ = [
    "EngineContract",
    "ModelEngineContract",
    "RobotContract",
    "TaskContract",
    "scripted_policy",
]
