from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from gatort.export.bundle_writer import write_bundle
from gatort.export.to_onnx import OPSET
from gatort.policies.model import Gato
from gatort.runtime.bundle import ONNX_FILE, TrainingRecord, load_manifest


@pytest.fixture(scope="session")
def graph(camera_bundle: Path) -> onnx.GraphProto:
    return onnx.load(camera_bundle / ONNX_FILE).graph


def axes(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the sizes of a value's axes; `None` for a dynamic axis."""
    return [axis.dim_value or None for axis in value.type.tensor_type.shape.dim]


def test_only_the_axes_of_tokens_patches_and_choices_are_dynamic(
    graph: onnx.GraphProto, camera_bundle: Path
) -> None:
    manifest = load_manifest(camera_bundle)
    half, window = manifest.model.head_size // 2, manifest.spec.window_tokens
    ring = [1, manifest.model.heads, window, manifest.model.head_size]
    assert {value.name: axes(value) for value in graph.input} == {
        "ids": [1, None],
        "patches": [None, 3, 16, 16],
        "local": [None],
        "cos": [None, half],
        "sin": [None, half],
        "mask": [None, window],
        "write_index": [1],
        "bias": [None, 1024],
        **{f"{kind}_{layer}": ring for layer in range(manifest.model.layers) for kind in "kv"},
    }
    assert {value.name: axes(value) for value in graph.output} == {
        "logits": [None, 1024],
        "token": [1, None],
        **{f"{kind}_{layer}_out": ring for layer in range(manifest.model.layers) for kind in "kv"},
    }


def test_a_policy_without_images_has_no_patches_input(bundle: Path) -> None:
    assert "patches" not in {value.name for value in onnx.load(bundle / ONNX_FILE).graph.input}


def test_the_ring_is_written_by_linear_scatter_alone(graph: onnx.GraphProto) -> None:
    scatters = [node for node in graph.node if node.op_type == "TensorScatter"]
    assert [onnx.helper.get_node_attr_value(node, "mode") for node in scatters] == [b"linear"] * 4
    assert [node.input[0] for node in scatters] == ["k_0", "v_0", "k_1", "v_1"]


def test_attention_and_rotary_positions_are_single_operators_of_the_standard_opset(
    camera_bundle: Path, graph: onnx.GraphProto
) -> None:
    model = onnx.load(camera_bundle / ONNX_FILE)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    counts = Counter(node.op_type for node in graph.node)
    assert (counts["Attention"], counts["RotaryEmbedding"], counts["Softmax"]) == (2, 2, 0)
    assert not counts.keys() & {"Cast", "Expand", "Where", "Loop", "If", "ScatterND"}


def test_no_weight_is_stored_twice(graph: onnx.GraphProto, camera_bundle: Path) -> None:
    stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    weights = (camera_bundle / "model.safetensors").stat().st_size
    assert stored < 1.01 * weights


def test_the_file_says_nothing_about_the_machine_that_made_it(camera_bundle: Path) -> None:
    content = (camera_bundle / ONNX_FILE).read_bytes()
    assert not [
        word
        for word in (b"site-packages", b".py", str(Path.home()).encode() + b"/")
        if word in content
    ]


def test_the_same_weights_give_the_same_bytes(
    bundle: Path, tmp_path: Path, make_model: Callable[..., Gato], training: TrainingRecord
) -> None:
    write_bundle(tmp_path / "again", "plain", make_model(), training)
    assert (tmp_path / "again" / ONNX_FILE).read_bytes() == (bundle / ONNX_FILE).read_bytes()
