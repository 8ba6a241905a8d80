"""Any graph of a policy through ONNX Runtime's plain call, whatever the graph's precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Mark, no_mark
from gatort.runtime.errors import EngineError

_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class GraphEngine:
    """An `Engine` for comparisons: slow, but it runs float16 graphs and rounded weights on a
    CPU.
    """

    name = "onnx graph"
    stepwise = True

    def __init__(self, graph: Path) -> None:
        """Load the graph and allocate its caches.

        Raises:
            EngineError: ONNX Runtime cannot load the graph.
        """
        self._session = _open_session(graph)
        self._names = [output.name for output in self._session.get_outputs()]
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._caches = [name for name in self._inputs if f"{name}_out" in self._names]
        self.reset()

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._past = {
            name: np.zeros(self._inputs[name].shape, _FLOAT_TYPES[self._inputs[name].type])
            for name in self._caches
        }

    def see(self, frame: Frame) -> None:
        """See `Engine.see`. A prefill stays whole."""

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        read = self._inputs.keys() - self._past.keys()
        for index, block in enumerate(frame.passes):
            feeds = {name: getattr(block, name) for name in read} | self._past
            outputs = dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
            self._past = {name: outputs[f"{name}_out"] for name in self._caches}

            frame.tokens[index] = outputs["token"].item()
            frame.logits[index] = outputs["logits"][0]
            mark()


def _open_session(graph: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # ONNX Runtime would else round activations to int8 too (MatMulNBits, accuracy level 4), which
    # no GPU engine does.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types derive from Exception alone.
        raise EngineError(f"ONNX Runtime cannot load {graph}: {error}") from error
