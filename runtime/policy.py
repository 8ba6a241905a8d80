"""A bundle made ready to act: tokenizer, context, engine and sampler, warmed up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.engines.engine import Engine
from gatort.runtime.engines.onnx import (
    OnnxConfig,
    OnnxEngine,
)

from .bundle import (
    Manifest,
    verify,
)
from .clock import Clock
from .context import Context
from .decoding import (
    Decoder,
    Sampler,
)
from .guard import Guard
from .loop import ControlLoop
from .pacer import Pacer
from .robot import Robot
from .spec import (
    ModelDims,
    PolicySpec,
    require_same_interface,
)
from .telemetry import Telemetry
from .tokenizer import Tokenizer


@dataclass(slots=True)
class Policy:
    """From an observation's arrays to an action; one context, so one robot at a time."""

    spec: PolicySpec
    tokenizer: Tokenizer
    decoder: Decoder
    manifest: Manifest | None = None
    """Where it came from, when it was loaded from a bundle."""

    @classmethod
    def load(
        cls, directory: Path, config: OnnxConfig | None = None, sampler: Sampler | None = None
    ) -> Self:
        """Check a bundle and run it with ONNX Runtime.

        Raises:
            BundleError: the bundle is incomplete, changed or of the wrong shape.
            EngineError: ONNX Runtime refuses the model or the provider.
        """
        manifest = verify(directory)
        engine = OnnxEngine(directory, manifest, config or OnnxConfig())
        policy = cls.of(manifest.spec, manifest.model, engine, sampler)
        policy.manifest = manifest
        return policy

    @classmethod
    def of(
        cls, spec: PolicySpec, dims: ModelDims, engine: Engine, sampler: Sampler | None = None
    ) -> Self:
        """Assemble around an engine that exists, for example the PyTorch model's, and warm it up."""
        policy = cls(
            spec, Tokenizer(spec), Decoder(engine, Context(spec, dims), sampler or Sampler())
        )
        policy.warm_up()
        return policy

    def warm_up(self, frames: int = 2) -> None:
        """Run frames that are forgotten, so that the first tick is not the slow one."""
        for _ in range(frames):
            self.decoder.context.begin_frame()
            self.decoder.context.end_frame(int(self.decoder.decode()[-1]))
        self.reset()

    def reset(self) -> None:
        """Forget every frame and start the sampler's seed again."""
        self.decoder.context.reset()
        self.decoder.engine.reset()
        self.decoder.sampler.reset()

    def control(
        self,
        robot: Robot,
        clock: Clock,
        *,
        telemetry: Telemetry | None = None,
        collect_garbage: bool = False,
    ) -> ControlLoop:
        """A control loop that drives `robot` with this policy.

        Raises:
            SpecError: the robot's keys or actuators are not the policy's.
        """
        require_same_interface(self.spec, robot.interface)
        return ControlLoop(
            robot=robot,
            tokenizer=Tokenizer(self.spec, robot.interface.observations),
            decoder=self.decoder,
            guard=Guard(self.spec, clock, robot.interface.observations),
            pacer=Pacer(clock, self.spec.period_ns, collect_garbage),
            telemetry=telemetry or Telemetry(self.spec, stepwise=self.decoder.engine.stepwise),
        )

    def act(self, values: tuple[NDArray[Any], ...]) -> NDArray[np.float64]:
        """Action (A,) for an observation's values, without a robot, guard or pace.

        Raises:
            ObservationError: a value is refused; the context is as before.
            EngineError: a pass failed; the context is as before.
        """
        context = self.decoder.context
        context.begin_frame()
        self.tokenizer.encode(values, context.observation_ids, context.patches)
        tokens = self.decoder.decode()
        action = self.tokenizer.decode_action(tokens)
        context.end_frame(int(tokens[-1]))
        return action
