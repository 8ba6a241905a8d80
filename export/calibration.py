"""What rounding has to keep: the inputs of each matrix over recorded trials, and the actions that follow from them.

A graph is driven over trials that were recorded beforehand, as the loop would drive it. Letters as in
`policies/model.py`; K inputs of a matrix, A action tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.context import (
    Frame,
)
from gatort.runtime.decoding import (
    Decoder,
)
from gatort.runtime.engines.engine import (
    Engine,
    Mark,
    no_mark,
)
from gatort.runtime.episode import Episode
from gatort.runtime.errors import (
    EngineError,
    MissingDependency,
)
from gatort.runtime.spec import (
    FIRST_CONTINUOUS_ID,
    ModelDims,
    PolicySpec,
)
from gatort.runtime.tokenizer import Tokenizer

from .precision import (
    Grams,
    import_ir,
    weights_of_products,
)

Values = Mapping[str, NDArray[Any]]
_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near one engine's actions are to another's, both given the same past at every token."""

    tokens: int
    """Action tokens compared."""
    same_argmax: float
    """Share of tokens where both pick the same bin."""
    error: tuple[float, ...]
    """(A,) mean absolute difference of each actuator's command, in its unit."""
    share_of_range: float
    """Mean over actuators and ticks of the absolute difference over the actuator's range."""


class GraphEngine:
    """Any graph of a policy through ONNX Runtime's plain call: slow, but whatever its precision; see `Engine`."""

    name = "onnx graph"
    stepwise = True

    def __init__(
        self,
        graph: Path | bytes,
        folder: Path | None = None,
        watch: Callable[[Values], None] | None = None,
    ):
        """Load the graph and allocate its caches.

        Args:
            graph: the file, or its contents.
            folder: where the weights of a graph given by its contents lie, if they lie outside of it.
            watch: is given each pass's outputs by name.

        Raises:
            EngineError: ONNX Runtime cannot load it.
        """
        self._session = _open_session(graph, folder)
        self._names = [output.name for output in self._session.get_outputs()]
        self._watch = watch
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._caches = [name for name in self._inputs if f"{name}_out" in self._names]
        self.reset()

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._past = {
            name: np.zeros(self._inputs[name].shape, _FLOAT_TYPES[self._inputs[name].type])
            for name in self._caches
        }

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        read = self._inputs.keys() - self._past.keys()
        for index, block in enumerate(frame.passes):
            feeds = {name: getattr(block, name) for name in read} | self._past
            outputs = dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
            frame.tokens[index] = outputs["token"].item()
            frame.logits[index] = outputs["logits"]
            self._past = {name: outputs[f"{name}_out"] for name in self._caches}
            if self._watch is not None:
                self._watch(outputs)
            mark()


def gram_matrices(
    graph: Path, spec: PolicySpec, dims: ModelDims, episodes: Sequence[Episode]
) -> Grams:
    """Sum x·xᵀ over every input x of every matrix while the graph's own policy meets recorded observations.

    Returns:
        Name of each MatMul's weight to its matrix (K, K), with rows that are alike for matrices with one input.

    Raises:
        EngineError: ONNX Runtime cannot run the graph.
        MissingDependency: onnx-ir is not installed.
    """
    ir = import_ir()
    model = ir.load(graph)
    inputs = {weight.name: node.inputs[0] for node, weight in weights_of_products(model)}
    sums = {value.name: np.zeros((value.shape[-1], value.shape[-1])) for value in inputs.values()}
    model.graph.outputs.extend({value.name: value for value in inputs.values()}.values())
    engine = GraphEngine(
        _serialised(model), graph.parent, lambda outputs: _add_products(sums, outputs)
    )
    for _ in drive(engine, spec, dims, episodes):
        pass
    return {name: sums[value.name] for name, value in inputs.items()}


def compare_actions(
    reference: Engine,
    candidate: Engine,
    spec: PolicySpec,
    dims: ModelDims,
    episodes: Sequence[Episode],
) -> Agreement:
    """Drive both over recorded observations; every token of the candidate follows the reference's own.

    Raises:
        EngineError: a pass failed.
    """
    tokenizer = Tokenizer(spec)
    ahead = list(drive(reference, spec, dims, episodes))
    tokens = np.array(ahead)  # (ticks, A)
    found = np.array(list(drive(candidate, spec, dims, episodes, iter(ahead))))  # (ticks, A)
    apart = np.abs(
        np.array([tokenizer.decode_action(row) for row in tokens])
        - np.array([tokenizer.decode_action(row) for row in found])
    )  # (ticks, A)
    ranges = np.array([actuator.high - actuator.low for actuator in spec.actuators])
    return Agreement(
        tokens=tokens.size,
        same_argmax=float((tokens == found).mean()),
        error=tuple(float(each) for each in apart.mean(axis=0)),
        share_of_range=float((apart / ranges).mean()),
    )


def drive(
    engine: Engine,
    spec: PolicySpec,
    dims: ModelDims,
    episodes: Sequence[Episode],
    forced: Iterator[NDArray[np.int64]] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Run every tick of the episodes and yield the engine's greedy tokens (A,) of each.

    Args:
        engine: what to run.
        spec: of the policy.
        dims: of the model.
        episodes: recorded observations; the context starts anew with each.
        forced: tokens (A,) of each tick that are fed instead of the engine's own.

    Raises:
        EngineError: a pass failed.
    """
    decoder = Decoder(spec, dims, engine)
    for episode in episodes:
        decoder.reset()
        for values in zip(*episode.observations, strict=True):
            if forced is None:
                decision = decoder.decide(values)
            else:
                action = decoder.tokenizer.decode_action(next(forced))
                decision = decoder.force(values, action)
            decoder.commit()
            yield decision.logits.argmax(axis=1) + FIRST_CONTINUOUS_ID


def _add_products(sums: dict[str, NDArray[np.float64]], outputs: Values) -> None:
    for name in sums:
        rows = outputs[name].reshape(-1, outputs[name].shape[-1])  # (t, K)
        sums[name] += rows.T @ rows


def _serialised(model: Any) -> bytes:
    """The graph's bytes; weights outside of it stay where they are."""
    from onnx_ir import save

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.onnx"
        save(model, path)
        return path.read_bytes()


def _open_session(graph: Path | bytes, folder: Path | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("ONNX Runtime is not installed: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # ONNX Runtime would else round activations to int8 too (MatMulNBits, accuracy level 4); no GPU engine does.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    try:
        return onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph),
            options,
            providers=["CPUExecutionProvider"],
        )
    except (
        Exception
    ) as error:  # ONNX Runtime raises types of its own that derive from Exception alone
        raise EngineError(f"ONNX Runtime cannot load the graph: {error}") from error
