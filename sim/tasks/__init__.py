"""Tasks by name: those of `TASKS`, and those that other packages offer (gatort.tasks)."""

from typing import Final

from gatort.runtime.bundle import Manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.extensions import load, offered

from .reach.task import Reach
from .stacking.task import Stacking
from .task import Task

TASKS: Final[dict[str, Task]] = {task.name: task for task in (Stacking(), Reach())}
"""Every task, by its name. The first is the default."""


def task_names() -> list[str]:
    """Return the names of all tasks, those of other packages last."""
    return [*TASKS, *(name for name in offered("gatort.tasks") if name not in TASKS)]


def task_named(name: str) -> Task:
    """Return the task of this name.

    Raises:
        ConfigError: there is none, or the one that another package offers cannot be used.
    """
    if name in TASKS:
        return TASKS[name]
    if name not in (names := task_names()):
        raise ConfigError(f"expected a task, one of {', '.join(names)}; found {name!r}")

    found = load("gatort.tasks", name)
    task = found() if isinstance(found, type) else found
    if not isinstance(task, Task) or task.name != name:
        raise ConfigError(
            f"task {name!r}: expected a subclass of gatort.sim.tasks.task.Task with this name, "
            f"found {found!r}"
        )
    return task


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
            f"{called} names no task: give one with --task, one of {', '.join(task_names())}"
        )
    if stated is not None and asked is not None and stated != asked:
        raise ConfigError(f"--task {asked}: {called} is for task {stated!r}; leave --task out")
    return task_named(stated or asked or "")
