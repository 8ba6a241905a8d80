"""The contract of a task: its bodies, its keys, the layout of a seed, success, and an expert.

A task is stateless: everything it looks at comes in a `Moment`. To add one, write a subclass of
`Task` and a scene.xml in a folder of its own, and enter it in `gatort.sim.tasks.TASKS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gatort.runtime.errors import ConfigError, SpecError
from gatort.runtime.spec import Interface, PolicySpec, select_keys
from gatort.sim.simulators.simulator import ArmModel, ArmState, Array, Box, Cube, Pose, Scene

Touching = Callable[[str, str], bool]
"""Tells if two cubes, given by name, are in contact."""


def with_pictures(spec: PolicySpec, shapes: Mapping[str, tuple[int, ...]]) -> PolicySpec:
    """Return an interface whose pictures have the given shapes. A camera draws any size.

    Args:
        spec: an interface of a task.
        shapes: shape of each picture by its key; other keys stay as they are.
    """
    keys = tuple(
        key.model_copy(update={"shape": shapes[key.name]})
        if key.encoding == "image" and key.name in shapes
        else key
        for key in spec.observations
    )
    return spec.model_copy(update={"observations": keys})


class Target(ABC):
    """A body that touches nothing and moves along a path of its own."""

    name: str
    """Name of the body in the scene."""

    @abstractmethod
    def position_at(self, time_s: float) -> Array:
        """Return the centre in W, (3,) m, a time after the start of the trial."""

    @abstractmethod
    def velocity_at(self, time_s: float) -> Array:
        """Return the velocity in W, (3,) m/s, a time after the start of the trial."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything random in one trial. It is a function of the trial's seed alone."""

    joints_rad: tuple[float, ...]
    """Arm joints at the start, (7,)."""
    cubes: tuple[Cube, ...] = ()
    """The scene's cubes, in its order."""
    targets: tuple[Target, ...] = ()
    """The scene's targets, in its order."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant of a trial, as a task sees it."""

    layout: Layout
    time_s: float
    """Time since the bodies were laid out."""
    arm: ArmState
    bodies: Mapping[str, Pose]
    """Pose of each cube and target, by name."""


class Task(ABC):
    """A task on the simulated arm. Subclasses set the attributes and implement the methods."""

    name: str
    """Name in the registry, in manifests and on the command line."""
    interfaces: ClassVar[Mapping[str, PolicySpec]]
    """Sets of keys that a policy may be trained on, by name. The first is the default."""
    seconds: float
    """Duration of a trial."""
    hold_s: float
    """A trial has succeeded once `holds` has been true for this long without a break."""
    scene: Scene
    """Bodies beside arm and table."""
    seen: tuple[str, ...]
    """Bodies whose poses are observed. Randomised readings add an error to them."""
    stages: tuple[str, ...] = ()
    """Stages on the way to success, in their order. Trials count how many of them came so far."""
    cube_edges_m: tuple[float, float] | None = None
    """Smallest and largest edge of its cubes: the task's policies met no others."""

    @property
    def interface(self) -> PolicySpec:
        """The default interface."""
        return next(iter(self.interfaces.values()))

    @property
    def interface_with_cameras(self) -> PolicySpec | None:
        """The first interface that has pictures, or `None`."""
        return next((spec for spec in self.interfaces.values() if spec.image_tokens), None)

    def unfit_edge(self, name: str, edge_m: float) -> str:
        """Return why a policy of this task is not for a cube of this size; empty if it is."""
        smallest_m, largest_m = self.cube_edges_m or (0.0, np.inf)
        if name not in self.seen or smallest_m <= edge_m <= largest_m:
            return ""
        return (
            f"{name}: expected an edge of {1e3 * smallest_m:g} to {1e3 * largest_m:g} mm, with "
            f"which policies of the task {self.name} were trained, found {1e3 * edge_m:g} mm"
        )

    def interface_named(self, name: str) -> PolicySpec:
        """Return the interface of this name.

        Raises:
            ConfigError: there is none. Lists the valid names.
        """
        if name not in self.interfaces:
            raise ConfigError(
                f"expected an interface of task {self.name!r}, one of "
                f"{', '.join(self.interfaces)}; found {name!r}"
            )
        return self.interfaces[name]

    def interface_for(self, policy: Interface) -> PolicySpec:
        """Return the first interface that has every key of a policy, and its actuators and rates.

        Its pictures have the policy's sizes.

        Raises:
            SpecError: there is none. Names the first difference from each interface.
        """
        shapes = {key.name: key.shape for key in policy.observations if key.encoding == "image"}
        differences = []
        for name, interface in self.interfaces.items():
            offered = with_pictures(interface, shapes)
            try:
                select_keys(policy, offered)
            except SpecError as error:
                differences.append(f"{name}: {error}")
            else:
                return offered
        raise SpecError(
            f"expected a policy for an interface of task {self.name!r}; " + "; ".join(differences)
        )

    @abstractmethod
    def layout(self, seed: int) -> Layout:
        """Draw the layout of one trial. The same seed gives the same layout."""

    @abstractmethod
    def read(self, key: str, moment: Moment) -> Array:
        """Return the value of one of the task's own observation keys.

        The robot itself reads joints, gripper and cameras.

        Raises:
            KeyError: the task has no such key.
        """

    def cubes_of(self, values: Mapping[str, Array], tool_m: Array) -> list[Box]:  # noqa: ARG002
        """Return the cubes whose places follow from observed values of this task's own keys.

        The boxes are large enough for any turn about the vertical.

        Args:
            values: an observation's values by key. Keys of this task may be missing.
            tool_m: place of the tool in W, (3,).
        """
        return []

    @abstractmethod
    def holds(self, moment: Moment, touching: Touching) -> bool:
        """Check if the condition for success holds at this instant."""

    def is_at(self, stage: str, moment: Moment, touching: Touching) -> bool:  # noqa: ARG002
        """Check if a stage is reached at this instant.

        Raises:
            KeyError: the task has no such stage.
        """
        raise KeyError(stage)

    @abstractmethod
    def expert_action(self, moment: Moment, model: ArmModel) -> Array:
        """Return the expert's action (8,).

        Seven joint torques in N·m beside gravity, and a gripper opening in m.
        """
