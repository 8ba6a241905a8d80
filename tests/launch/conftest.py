"""A small bundle with random weights, exported once a session, and one recorded run of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from gatort.launch import cli
from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.episode import Episode
from gatort.runtime.robots.sensors.sockets import SensorPublisher
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, PolicySpec
from gatort.sim.graphics import INSTALL_HINT, choose_gl
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, STACK_SPEC


def write_random_bundle(directory: Path, spec: PolicySpec = STACK_SPEC) -> Path:
    import torch

    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.model import Gato
    from gatort.policies.presets import preset

    torch.manual_seed(0)
    model = Gato(spec, preset("tiny").model_copy(update={"first_token_id": FIRST_CONTINUOUS_ID}))
    with torch.no_grad():
        # Only bins of small torques are ever the likeliest, so the arm stays within its sensors'
        # speed.
        small = model.bins_at + CONTINUOUS_BINS // 2
        model.tokens.weight[model.bins_at : small - 8] *= 0.01
        model.tokens.weight[small + 8 : model.bins_at + CONTINUOUS_BINS] *= 0.01
    training = TrainingRecord(
        recipe="random weights",
        demonstrations="none",
        training_seeds=((1_000_000, 1_000_099),),
        validation_seeds=((900_000, 900_019),),
        parameters=model.parameters_total,
        steps=0,
    )
    write_bundle(directory, "random", model, training, task="stacking")
    return directory


@contextmanager
def published(values: dict[str, list[float]]) -> Iterator[str]:
    """Publish values of a sensor every 10 ms; yield the address."""
    publisher, ended = SensorPublisher("tcp://127.0.0.1:0"), Event()

    def publish() -> None:
        while not ended.wait(0.01):
            publisher.publish(MonotonicClock().now_ns(), values)

    thread = Thread(target=publish)
    thread.start()
    try:
        yield publisher.address
    finally:
        ended.set()
        thread.join()
        publisher.close()


class SlowClock(VirtualClock):
    """A clock whose readings take 30 ms each, longer than the action delay of 25 ms."""

    def now_ns(self) -> int:
        self.advance_ns(30_000_000)
        return super().now_ns()


@pytest.fixture
def slow_clock() -> type[VirtualClock]:
    return SlowClock


@pytest.fixture(scope="session")
def pristine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "random")


@pytest.fixture(scope="session")
def camera_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with two cameras, for tests that leave it as it is."""
    if choose_gl() is None:
        pytest.skip(INSTALL_HINT)
    return write_random_bundle(tmp_path_factory.mktemp("cameras") / "random", CAMERA_SPEC)


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A copy of its own, so that a test may damage it."""
    return shutil.copytree(pristine_bundle, tmp_path / "random")


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    """A demonstration of three ticks in the middle of every key's range."""
    ticks = 3
    observations = tuple(
        np.tile(((np.array(key.low) + key.high) / 2 if key.low else np.zeros(key.size)), (ticks, 1))
        .reshape(ticks, *key.shape)
        .astype(key.dtype)
        for key in STACK_SPEC.observations
    )
    actions = np.zeros((ticks, len(STACK_SPEC.actuators)), np.float32)
    path = tmp_path / "prompt.npz"
    Episode(0, True, observations, actions, actions).save(path, STACK_SPEC)
    return path


@pytest.fixture(scope="session")
def pristine_run(pristine_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of one run of 40 ticks in virtual time: run.mcap and r.json."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gatort.launch.commands.run.MonotonicClock", VirtualClock)
        patched.chdir(directory)
        flags = ["--seconds", "2", "--threads", "1", "--record", "run.mcap", "--json", "r.json"]
        assert cli.main(["run", "--bundle", str(pristine_bundle), *flags]) == 0
    return directory


@pytest.fixture
def run_file(pristine_run: Path, tmp_path: Path) -> Path:
    """A copy of the recording in this test's directory, run.mcap."""
    return shutil.copy(pristine_run / "run.mcap", tmp_path / "run.mcap")
