"""Specifications that many tests share: small enough to read, with every encoding somewhere."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from gatort.runtime.bundle import MANIFEST_FILE, Manifest, TrainingRecord, sha256_of
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, Actuator, ModelDims, ObservationKey, PolicySpec

if TYPE_CHECKING:
    from gatort.policies.model import Gato

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
COMPILES = shutil.which("gcc") is not None and platform.machine() == "x86_64"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of a GPU or of the native engine's compiler on a machine without one."""
    lacking = {
        "gpu": None if NVIDIA_DRIVER.exists() else f"no NVIDIA GPU: {NVIDIA_DRIVER} is absent",
        "native": None if COMPILES else "no gcc for x86-64",
    }
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


TORQUE = {"unit": "N·m", "low": -30.0, "high": 30.0, "safe": 0.0, "rate_per_s": 1000.0}


def observation_key(name: str, size: int, encoding: str = "unit") -> ObservationKey:
    ends = {"low": (-3.0,) * size, "high": (3.0,) * size} if encoding == "unit" else {}
    return ObservationKey(
        name=name, shape=(size,), dtype="float32", unit="rad", encoding=encoding, **ends
    )


@pytest.fixture(scope="session")
def spec() -> PolicySpec:
    """Three joints: O = 5, A = 3, T = 9, n = 3, W = 27, 20 Hz, 25 ms delay."""
    return PolicySpec(
        observations=(
            observation_key("arm/velocity", 2, "mu_law"),
            observation_key("arm/position", 3),
        ),
        actuators=tuple(Actuator(name=f"joint_{index}", **TORQUE) for index in range(3)),
        control_hz=20,
        action_delay_ms=25,
        window_frames=3,
    )


@pytest.fixture(scope="session")
def every_encoding_spec(spec: PolicySpec) -> PolicySpec:
    """Text, two images, discrete, mu-law and unit keys, given out of order."""
    keys = (
        observation_key("z", 2),
        ObservationKey(name="b", shape=(2, 2), dtype="int32", unit="1", encoding="discrete"),
        observation_key("a", 3, "mu_law"),
        ObservationKey(name="right", shape=(16, 32, 3), dtype="uint8", unit="1", encoding="image"),
        ObservationKey(name="left", shape=(32, 16, 3), dtype="uint8", unit="1", encoding="image"),
        ObservationKey(name="task", shape=(4,), dtype="int32", unit="1", encoding="text"),
    )
    return PolicySpec(**{**spec.model_dump(exclude={"observations"}), "observations": keys})


@pytest.fixture(scope="session")
def dims() -> ModelDims:
    """A model that runs in a millisecond, takes none of the low ids, and has heads for which
    TensorRT has a kernel."""
    return ModelDims(
        layers=2,
        heads=4,
        head_size=32,
        width=32,
        ff_half_width=48,
        first_token_id=FIRST_CONTINUOUS_ID,
        local_positions=32,
    )


def vouching(manifest: Manifest, directory: Path) -> Manifest:
    """Return a manifest that vouches for every file that now lies in a folder."""
    files = {path.name: sha256_of(path) for path in directory.iterdir() if path.is_file()}
    files.pop(MANIFEST_FILE, None)
    return manifest.model_copy(update={"files": files})


class Exported(NamedTuple):
    """One model twice: the PyTorch module and the bundle written from it."""

    model: Gato
    bundle: Path


@pytest.fixture(scope="session")
def exported(
    spec: PolicySpec, dims: ModelDims, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """A seeded, untrained model and its bundle, made once for the whole session."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.model import Gato

    torch.manual_seed(0)
    model = Gato(spec, dims)
    with torch.no_grad():
        for parameter in model.parameters():
            # Untrained weights give nearly equal logits. Larger weights make the attention visible.
            parameter.mul_(3.0)
    directory = tmp_path_factory.mktemp("exported") / "bundle"
    record = TrainingRecord(
        recipe="none", demonstrations="none", parameters=model.parameters_total, steps=0
    )
    write_bundle(directory, "untrained", model, record)
    return Exported(model, directory)
