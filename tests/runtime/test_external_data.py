"""Files that a graph would make a library read are known, and refused, before any library sees
it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatort.runtime.bundle import (
    ONNX_FILE,
    Manifest,
    TrainingRecord,
    sha256_of,
    verify,
    write_manifest,
)
from gatort.runtime.errors import BundleError
from gatort.runtime.external_data import external_locations
from gatort.runtime.spec import ModelDims, PolicySpec

onnx = pytest.importorskip("onnx")


def outside(location: str) -> object:
    """Return a tensor whose values lie in the file called `location`."""
    tensor = onnx.TensorProto(
        name="w", dims=[4], data_type=1, data_location=onnx.TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(location: str) -> object:
    inside = onnx.TensorProto(name="v", dims=[1000], data_type=1, raw_data=bytes(range(200)) * 20)
    return onnx.helper.make_graph([], "g", [], [], [inside, outside(location)])


def in_constant(location: str) -> object:
    return onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=outside(location))], "g", [], []
    )


def in_branch(location: str) -> object:
    branch = in_constant(location)
    return onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch)], "g", [], []
    )


def in_sparse(location: str) -> object:
    graph = onnx.GraphProto()
    graph.sparse_initializer.add().values.CopyFrom(outside(location))
    return graph


PLACES = (in_initializer, in_constant, in_branch, in_sparse)


def locations_in(path: Path) -> set[str]:
    with path.open("rb") as file:
        return external_locations(path, file)


def save(path: Path, graph: object) -> None:
    path.write_bytes(onnx.ModelProto(ir_version=10, graph=graph).SerializeToString())


@pytest.fixture
def make_bundle(spec: PolicySpec, dims: ModelDims, tmp_path: Path) -> Callable[[object], Path]:
    """Write a bundle of a graph; its manifest vouches for the graph and for `policy.onnx.data`."""

    def make(graph: object) -> Path:
        save(tmp_path / ONNX_FILE, graph)
        (tmp_path / "model.safetensors").write_bytes(bytes(dims.least_weights_bytes))
        (tmp_path / "policy.onnx.data").write_bytes(bytes(16))
        files = {path.name: sha256_of(path) for path in tmp_path.iterdir()}
        training = TrainingRecord(recipe="none", demonstrations="none", parameters=1, steps=0)
        write_manifest(
            tmp_path, Manifest(name="test", spec=spec, model=dims, files=files, training=training)
        )
        return tmp_path

    return make


@pytest.mark.parametrize("place", PLACES)
def test_a_location_is_found_wherever_onnx_allows_one(
    place: Callable[[str], object], tmp_path: Path
) -> None:
    save(tmp_path / "g.onnx", place("policy.onnx.data"))
    assert locations_in(tmp_path / "g.onnx") == {"policy.onnx.data"}


def test_a_location_in_a_function_is_found(tmp_path: Path) -> None:
    model = onnx.ModelProto(ir_version=10)
    model.functions.add(name="f").node.add().attribute.add(name="value").t.CopyFrom(
        outside("hidden")
    )
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    assert locations_in(tmp_path / "g.onnx") == {"hidden"}


def test_weights_in_a_file_that_the_manifest_names_are_accepted(
    make_bundle: Callable[[object], Path],
) -> None:
    assert "policy.onnx.data" in verify(make_bundle(in_initializer("policy.onnx.data"))).files


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret",
        "sub/../policy.onnx.data",
        "./policy.onnx.data",
        "unnamed",
        "",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_weights_in_any_other_file_are_refused(
    make_bundle: Callable[[object], Path], place: Callable[[str], object], location: str
) -> None:
    bundle = make_bundle(place(location))
    (bundle / "unnamed").write_bytes(bytes(16))
    with pytest.raises(
        BundleError, match=r"policy\.onnx: expected weights in files that the manifest names"
    ):
        verify(bundle)


def test_a_second_location_of_the_same_tensor_does_not_hide_the_first(
    make_bundle: Callable[[object], Path],
) -> None:
    graph = in_initializer("policy.onnx.data")
    graph.initializer[1].external_data.add(key="location", value="../secret")
    with pytest.raises(BundleError, match=r"found \.\./secret"):
        verify(make_bundle(graph))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"graph", "wire type 7"),
        (b"\x3a\x7fcut", "a field of 127 bytes"),
        (b"\xff" * 20, "a number without an end"),
        (b"\x08", "out of range"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=f"expected an ONNX graph: .*{why}"):
        locations_in(tmp_path / "g.onnx")


def test_graphs_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(40):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # a graph in an attribute in a node
            size = len(content)
            content = tag + bytes((size & 0x7F | 0x80, size >> 7)) + content
    size = len(content)
    (tmp_path / "g.onnx").write_bytes(b"\x3a" + bytes((size & 0x7F | 0x80, size >> 7)) + content)
    with pytest.raises(BundleError, match="within each other"):
        locations_in(tmp_path / "g.onnx")
