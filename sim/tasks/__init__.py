"""Tasks by name. To add one, enter it in `TASKS`."""

from typing import Final

from gatort.runtime.bundle import Manifest
from gatort.runtime.errors import ConfigError

from .reach.task import Reach
from .stacking.task import Stacking
from .task import Task

TASKS: Final[dict[str, Task]] = {task.name: task for task in (Stacking(), Reach())}
"""Every task, by its name. The first is the default."""


def task_named(name: str) -> Task:
    """Return the task of this name.

    Raises:
        ConfigError: there is none. Lists the valid names.
    """
    if name not in TASKS:
        raise ConfigError(f"expected a task, one of {', '.join(TASKS)}; found {name!r}")
    return TASKS[name]


def task_of(manifest: Manifest | None, asked: str | None = None) -> Task:
    """Return the task of a policy.

    Args:
        manifest: the policy's manifest, which usually names the task.
        asked: the task that the user named.

    Raises:
        ConfigError: neither names a task, they name different ones, or there is no such task.
    """
    stated = manifest.task if manifest is not None else None
    called = f"policy {manifest.name!r}" if manifest is not None else "the policy"
    if stated is None and asked is None:
        raise ConfigError(
            f"{called} names no task: give one with --task, one of {', '.join(TASKS)}"
        )
    if stated is not None and asked is not None and stated != asked:
        raise ConfigError(f"--task {asked}: {called} is for task {stated!r}; leave --task out")
    return task_named(stated or asked or "")
