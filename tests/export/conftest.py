"""Bundles of untrained policies, written once a session: one without images, one with two 64×64
cameras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gatort.export.bundle_writer import write_bundle
from gatort.export.parity import ParityReport, compare
from gatort.policies.model import Gato
from gatort.policies.presets import preset
from gatort.policies.weights import read_model
from gatort.runtime.bundle import TrainingRecord, load_manifest
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, Actuator, ModelDims, ObservationKey, PolicySpec

RANDOM = TrainingRecord(recipe="random weights", demonstrations="none", parameters=0, steps=0)


def tiny_spec(cameras: int) -> PolicySpec:
    """Three joints and as many 64×64 cameras: O = 5 + 16·cameras, A = 3, n = 3."""
    ends = {"low": (-3.0,) * 3, "high": (3.0,) * 3}
    return PolicySpec(
        observations=(
            ObservationKey(
                name="position", shape=(3,), dtype="float32", unit="rad", encoding="unit", **ends
            ),
            ObservationKey(
                name="velocity", shape=(2,), dtype="float32", unit="rad/s", encoding="mu_law"
            ),
            *(
                ObservationKey(
                    name=f"camera_{i}", shape=(64, 64, 3), dtype="uint8", unit="1", encoding="image"
                )
                for i in range(cameras)
            ),
        ),
        actuators=tuple(
            Actuator(name=f"joint_{i}", unit="N·m", low=-30.0, high=30.0, safe=0.0)
            for i in range(3)
        ),
        control_hz=20,
        action_delay_ms=25,
        window_frames=3,
    )


def tiny_dims() -> ModelDims:
    return preset("tiny").model_copy(update={"first_token_id": FIRST_CONTINUOUS_ID})


def tiny_model(cameras: int = 0, seed: int = 0) -> Gato:
    """Random weights, large enough that a wrong mask, angle or cache row moves the logits by 0.1 or
    more."""
    torch.manual_seed(seed)
    model = Gato(tiny_spec(cameras), tiny_dims())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Gato]:
    """`tiny_model`, for tests that need a model of their own."""
    return tiny_model


def onnx_engine(directory: Path) -> OnnxEngine:
    return OnnxEngine(directory, load_manifest(directory), OnnxConfig(threads=1))


def onnx_parity(directory: Path, seed: int = 0) -> ParityReport:
    precision = load_manifest(directory).precision
    return compare(read_model(directory), onnx_engine(directory), seed=seed, precision=precision)


@pytest.fixture(scope="session")
def training() -> TrainingRecord:
    return RANDOM


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain") / "bundle"
    write_bundle(directory, "plain", tiny_model(), RANDOM)
    return directory


@pytest.fixture(scope="session")
def camera_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cameras") / "bundle"
    write_bundle(directory, "cameras", tiny_model(cameras=2), RANDOM)
    return directory
