"""A recorder on a virtual clock, a control loop to record, and helpers that several files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import Clock, VirtualClock
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.loop import ControlLoop
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.process import HEADER, METADATA_CHANNEL, MetadataRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec

MS = 1_000_000
TOKENS = [FIRST_CONTINUOUS_ID + index for index in (512, 700, 300)]
Read = Callable[[int], list[NDArray[Any]]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.mcap"


@pytest.fixture
def recorder(path: Path, spec: PolicySpec, clock: VirtualClock) -> Iterator[Recorder]:
    with Recorder(path, RunRecord.of("scripted", spec, "a machine", clock)) as made:
        yield made


def messages(path: Path, kind: type) -> list[Any]:
    return [each.message for each in Recording(path).messages() if isinstance(each.message, kind)]


def read_whole(path: Path) -> Recording:
    recording = Recording(path)
    for _ in recording.messages():
        pass
    return recording


def control(
    spec: PolicySpec, dims: ModelDims, clock: Clock, read: Read | None = None
) -> ControlLoop:
    policy = Policy.of(spec, dims, ScriptedEngine(TOKENS))
    return policy.control(ScriptedRobot(spec, clock, read), clock)


def random_values(spec: PolicySpec, seed: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(seed)
    return [
        random.normal(size=key.shape).astype(np.float32)
        if key.dtype == "float32"
        else random.integers(0, 256, key.shape, key.dtype)
        for key in spec.observations
    ]


def sync(recorder: Recorder) -> None:
    """Let the writing process end its chunk and sync it, as it does before it writes metadata."""
    data = msgspec.json.encode(MetadataRecord("mark", {}))
    recorder.flush()
    recorder._link.send(HEADER.pack(METADATA_CHANNEL, 0, 0, len(data)) + data)
