"""gatort: a real-time robot control runtime for Gato-style policies.

The names below are the public ones. Each loads its module when it is first used, so that
`import gatort` takes no time and needs no simulator.

    import gatort

    policy = gatort.load_policy()
    clock = gatort.VirtualClock()
    robot = gatort.MujocoRobot(clock)
    policy.control(robot, clock).run(ticks=400)
"""

from __future__ import annotations

import os

# ONNX Runtime would report each session, and keep a database of its reports open in the process
# that controls the robot. It reads this once, before its first import; child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TYPE_CHECKING = False  # The command line imports this module before it hears signals, so quickly.
if TYPE_CHECKING:  # Type checkers need the names; the program loads them in `__getattr__`.
    from typing import Any

    from gatort.policies.loading import PolicyOptions, load_policy
    from gatort.runtime.clock import MonotonicClock, VirtualClock
    from gatort.runtime.decoding import Decision
    from gatort.runtime.episode import Episode
    from gatort.runtime.errors import GatortError
    from gatort.runtime.policy import Policy
    from gatort.runtime.recording.reader import Recording
    from gatort.runtime.remote.client import RemoteRobot
    from gatort.runtime.robots.driver import Driver
    from gatort.runtime.spec import Actuator, Interface, ObservationKey, PolicySpec
    from gatort.sim.make import BulletRobot, MujocoRobot

__all__ = [
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
_HOMES = {
    "Actuator": "gatort.runtime.spec",
    "BulletRobot": "gatort.sim.make",
    "Decision": "gatort.runtime.decoding",
    "Driver": "gatort.runtime.robots.driver",
    "Episode": "gatort.runtime.episode",
    "GatortError": "gatort.runtime.errors",
    "Interface": "gatort.runtime.spec",
    "MonotonicClock": "gatort.runtime.clock",
    "MujocoRobot": "gatort.sim.make",
    "ObservationKey": "gatort.runtime.spec",
    "Policy": "gatort.runtime.policy",
    "PolicyOptions": "gatort.policies.loading",
    "PolicySpec": "gatort.runtime.spec",
    "Recording": "gatort.runtime.recording.reader",
    "RemoteRobot": "gatort.runtime.remote.client",
    "VirtualClock": "gatort.runtime.clock",
    "load_policy": "gatort.policies.loading",
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562).

    Raises:
        AttributeError: gatort has no such name.
    """
    from importlib import import_module

    if name not in _HOMES:
        from difflib import get_close_matches

        closest = get_close_matches(name, __all__, n=1)
        hint = f"did you mean {closest[0]!r}?" if closest else f"it has {', '.join(__all__)}"
        raise AttributeError(f"module 'gatort' has no attribute {name!r}; {hint}", name=name)

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
