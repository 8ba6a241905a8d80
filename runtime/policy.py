"""A policy ready to act: a warmed-up decoder, and the bundle that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .bundle import Manifest
from .clock import Clock
from .decoding import Decoder, Sampler
from .engines.engine import Engine
from .guard import Guard
from .loop import ControlLoop
from .pacer import Pacer
from .robot import Robot
from .spec import ModelDims, PolicySpec, select_keys
from .telemetry import Telemetry


class Policy(Decoder):
    """A decoder that drives robots; one context, hence one robot at a time."""

    manifest: Manifest | None = None
    """Manifest of the bundle that the policy was loaded from."""

    @classmethod
    def of(
        cls,
        spec: PolicySpec,
        dims: ModelDims,
        engine: Engine,
        sampler: Sampler | None = None,
        most_passes: int | None = None,
    ) -> Self:
        """Make a policy around an existing engine, and warm it up; arguments as for `Decoder`."""
        policy = cls(spec, dims, engine, sampler, most_passes)
        policy.warm_up()
        return policy

    def warm_up(self, frames: int = 2) -> None:
        """Run frames of zeros and forget them: the first tick must not be the slow one."""
        zeros = [np.zeros(key.shape, key.dtype) for key in self.spec.observations]
        for _ in range(frames):
            # A given action settles in two passes, so no bound on the passes refuses it.
            self.force(zeros, np.zeros(self.spec.action_tokens))
            self.commit()
        self.reset()

    def act(self, values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Decide, commit, and return the action (A,): a policy without robot, guard or pace.

        Raises:
            ObservationError: a value is refused; the context is as before.
            EngineError: a pass failed; the context is as before.
        """
        decision = self.decide(values)
        self.commit()
        return decision.action

    def control(
        self,
        robot: Robot,
        clock: Clock,
        *,
        telemetry: Telemetry | None = None,
        collect_garbage: bool = False,
    ) -> ControlLoop:
        """Make a control loop that drives `robot` with this policy.

        Args:
            robot: a robot that offers every key of the policy; it may offer more.
            clock: the loop's clock.
            telemetry: store of the ticks' durations; a new one by default.
            collect_garbage: see `Pacer`.

        Raises:
            SpecError: the robot's keys or actuators are not the policy's.
        """
        selection = select_keys(self.spec, robot.interface)
        return ControlLoop(
            robot=robot,
            decoder=self,
            selection=selection,
            guard=Guard(self.spec, clock, robot.interface.observations),
            pacer=Pacer(clock, self.spec.period_ns, collect_garbage),
            telemetry=telemetry or Telemetry(self.spec, stepwise=self.engine.stepwise),
        )
