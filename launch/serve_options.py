"""Options of `gatort serve`: the policy, the robots that it drives, and its scheduling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from gatort.policies.loading import EngineName, PolicyOptions, quickest_cpu_engine
from gatort.runtime.engines.onnx import Threads

from .tag_options import known_address


class ServeOptions(PolicyOptions):
    """One policy for several robots."""

    robots: tuple[Annotated[str, AfterValidator(known_address)], ...] = ()
    """Address of each `gatort robot`, tcp://HOST:PORT. Give the flag once for each robot."""
    keys: Path | None = None
    """Directory with controller.key and robot.pub; needed for robots beyond this machine, which
    then share robot.key."""
    engine: EngineName = Field(default_factory=quickest_cpu_engine)
    """Engine that computes the passes. Default: `native` where it compiles, else `onnx`."""
    threads: Threads = 1
    """CPU threads of one pass. Ticks of several robots run at once on the other cores."""
    seconds: Annotated[FiniteFloat, Field(gt=0, le=1e8)] | None = None
    """Duration, in seconds. Default: until Ctrl-C."""
