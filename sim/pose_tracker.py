"""Poses of bodies now, from poses that a camera measured a while ago.

A body rests in the world, or moves with the tool while the hand is closed around it. So the time
that a picture takes matters only while a body starts or stops moving.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gatort.runtime.errors import ObservationError
from gatort.sim.simulators.simulator import ArmState, Array, Pose

LONGEST_UNSEEN_NS: Final = 3_000_000_000
"""Time for which a resting body need not be seen: the hand hides it when it reaches for it."""
REACHED_M: Final = 0.03
"""Distance of the tool from the centre of a body at which a closing hand takes it."""
CLOSED_M: Final = 0.003
"""The hand has closed around a body once it is this much wider than the body, or less."""
KEPT_MOMENTS: Final = 40
"""Number of the newest tool poses that are kept: two seconds at 20 Hz."""


@dataclass(frozen=True, slots=True)
class _ToolMoment:
    stamp_ns: int
    tool: Pose


@dataclass(slots=True)
class _Tracked:
    pose: Pose
    """Pose in W, or in the tool's frame while the hand holds the body."""
    stamp_ns: int
    """Instant of the newest picture that it comes from."""
    is_held: bool = False
    changed_ns: int = 0
    """Instant at which the hand took the body or let it go."""


class PoseTracker:
    """Follows bodies that a hand moves.

    Args:
        edges_m: width of each body by name, or nothing for one that no hand takes.
    """

    def __init__(self, edges_m: Mapping[str, float]) -> None:
        self._edges_m = dict(edges_m)
        self._tracked: dict[str, _Tracked] = {}
        self._moments: deque[_ToolMoment] = deque(maxlen=KEPT_MOMENTS)

    def measure(self, name: str, pose: Pose, stamp_ns: int) -> None:
        """Take the measured pose of a body in W.

        A measurement that is older than the last one is dropped. So is one from before the hand
        took the body or let it go.
        """
        tracked = self._tracked.get(name)
        if tracked is None:
            self._tracked[name] = _Tracked(pose, stamp_ns)
            return
        if stamp_ns <= max(tracked.stamp_ns, tracked.changed_ns):
            return
        tracked.pose = _relative(pose, self._tool_at(stamp_ns)) if tracked.is_held else pose
        tracked.stamp_ns = stamp_ns

    def move(self, arm: ArmState, stamp_ns: int) -> None:
        """Take the state of the arm. Bodies that the hand holds move with it."""
        tool = Pose(arm.tool_position.copy(), arm.tool_rotation.copy())
        self._moments.append(_ToolMoment(stamp_ns, tool))
        for name, tracked in self._tracked.items():
            edge_m = self._edges_m.get(name)
            if edge_m is None:
                continue
            is_closed = arm.width_m < edge_m + CLOSED_M
            if tracked.is_held and not is_closed:
                tracked.pose = _absolute(tracked.pose, tool)
            elif not tracked.is_held and is_closed and _is_within(tracked.pose, tool):
                tracked.pose = _relative(tracked.pose, tool)
            else:
                continue
            tracked.is_held = not tracked.is_held
            tracked.changed_ns = stamp_ns

    def poses(self, now_ns: int) -> dict[str, Pose]:
        """Return the pose of each body in W at the instant of the last `move`.

        Raises:
            ObservationError: a resting body was not seen for too long.
        """
        return {name: self._pose(name, each, now_ns) for name, each in self._tracked.items()}

    def _pose(self, name: str, tracked: _Tracked, now_ns: int) -> Pose:
        if tracked.is_held:
            return _absolute(tracked.pose, self._moments[-1].tool)
        unseen_ns = now_ns - max(tracked.stamp_ns, tracked.changed_ns)
        if unseen_ns > LONGEST_UNSEEN_NS:
            raise ObservationError(
                f"pose/{name}: expected to see it at least once in "
                f"{LONGEST_UNSEEN_NS * 1e-9:g} s, found it unseen for {unseen_ns * 1e-9:.1f} s"
            )
        return tracked.pose

    def _tool_at(self, stamp_ns: int) -> Pose:
        """Return the tool's pose at an instant, on the line between its neighbours."""
        moments = list(self._moments)
        later = next((i for i, each in enumerate(moments) if each.stamp_ns >= stamp_ns), -1)
        after = moments[later]
        if later <= 0:
            return after.tool
        before = moments[later - 1]
        share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
        nearer = after if share > 0.5 else before
        position = before.tool.position + share * (after.tool.position - before.tool.position)
        return Pose(position, nearer.tool.rotation)


def _is_within(body: Pose, tool: Pose) -> bool:
    return bool(np.linalg.norm(tool.position - body.position) < REACHED_M)


def _relative(body: Pose, tool: Pose) -> Pose:
    """Return a body's pose in the tool's frame."""
    inverse: Array = tool.rotation.T
    return Pose(inverse @ (body.position - tool.position), inverse @ body.rotation)


def _absolute(held: Pose, tool: Pose) -> Pose:
    """Return the pose in W of a body whose pose in the tool's frame is known."""
    return Pose(tool.position + tool.rotation @ held.position, tool.rotation @ held.rotation)
