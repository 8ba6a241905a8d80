"""The benchmark's own blocks, compiled from `benchmarks/peers`, agree with PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from gatort.export.parity import LOGIT_TOLERANCE, compare
from gatort.policies.weights import write_weights
from gatort.runtime.bundle import WEIGHTS_FILE, Manifest, TrainingRecord, sha256_of

pytestmark = pytest.mark.native
PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
MODULES = ("work", "llama", "engine_gatort")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Modules of the benchmark, which are scripts' and so not in a package."""
    monkeypatch.syspath_prepend(PEERS)
    yield {name: import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_native_engine_runs_llama_blocks_as_pytorch_does(
    peers: dict[str, ModuleType], tmp_path: Path
) -> None:
    size = peers["work"].Size(layers=2, heads=1, head_size=32, ff_width=48)
    model = peers["llama"].random_llama(size, prefill=60)
    training = TrainingRecord(recipe="none", demonstrations="none", parameters=0, steps=0)
    write_weights(model, tmp_path / WEIGHTS_FILE)
    files = {WEIGHTS_FILE: sha256_of(tmp_path / WEIGHTS_FILE)}
    manifest = Manifest(
        name="llama", spec=model.spec, model=model.dims, files=files, training=training
    )

    engine = peers["engine_gatort"].LlamaEngine(tmp_path, manifest, threads=2)
    report = compare(model, engine, wraps=1)
    assert report.largest_logit > 0.5, report  # Otherwise the tolerance proves nothing.
    assert report.largest_difference < LOGIT_TOLERANCE, report
    assert report.argmax_agreement == 1.0, report
