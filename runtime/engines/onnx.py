"""ONNX Runtime: one session, every buffer bound once, the cache updated in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from gatort.runtime.bundle import (
    ONNX_FILE,
    Manifest,
)
from gatort.runtime.context import (
    Block,
    Frame,
)
from gatort.runtime.errors import (
    EngineError,
    MissingDependency,
)
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    Precision,
    Strict,
)

from .engine import (
    Mark,
    no_mark,
)
from .float_environment import FloatEnvironment

Provider = Literal["cpu", "cuda", "tensorrt"]
_PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_BLOCK_INPUTS = ("ids", "local", "cos", "sin", "mask", "write_index", "bias")


class OnnxConfig(Strict):
    """How ONNX Runtime runs the model."""

    threads: PositiveInt = 2
    """Threads of one pass."""
    spinning: bool = False
    """Keep threads spinning between passes: about 25 % faster for a whole core."""
    provider: Provider = "cpu"


class _Pass(NamedTuple):
    """What one pass is bound to."""

    binding: Any
    renewed: list[tuple[Any, NDArray[Any]]]
    """Device copies and the arrays that each pass copies into them; empty on the CPU, which reads the block itself."""


class _Bound(NamedTuple):
    """What a frame is bound to."""

    frame: Frame
    """Kept so that its id stays taken."""
    passes: list[_Pass]


class OnnxEngine:
    """The bundle's `policy.onnx`; see `Engine`.

    One session serves prefill and decode: two would fight over the cores. Each layer's cache input and output are the
    same memory, without which ONNX Runtime copies the cache in every pass.
    """

    def __init__(self, directory: Path, manifest: Manifest, config: OnnxConfig) -> None:
        """Load the model and allocate the cache.

        Raises:
            EngineError: the provider is absent, or the model cannot be loaded or does not match the manifest.
            MissingDependency: ONNX Runtime is not installed.
        """
        self._runtime = runtime = _import_onnxruntime()
        self.name = f"onnx {config.provider}"
        self.stepwise = True
        self._device = "cpu" if config.provider == "cpu" else "cuda"
        self._ordinary = FloatEnvironment()
        self._session = _open_session(runtime, directory / ONNX_FILE, manifest.precision, config)
        self._denormals_off = FloatEnvironment()
        self._ordinary.put_on()
        shape = (1, manifest.model.heads, manifest.spec.window_tokens, manifest.model.head_size)
        names = [f"{kind}_{layer}" for layer in range(manifest.model.layers) for kind in "kv"]
        self._read = [*_BLOCK_INPUTS, "patches"] if manifest.spec.image_tokens else [*_BLOCK_INPUTS]
        self._check_graph(dict.fromkeys(names, shape))
        self._cache = {name: self._ort(np.zeros(shape, np.float32)) for name in names}
        self._bound: dict[int, _Bound] = {}

    def _check_graph(self, caches: dict[str, tuple[int, ...]]) -> None:
        """Refuse a graph whose names or cache shapes are not those of the manifest, before anything is bound."""
        inputs = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        outputs = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        if inputs.keys() != {*self._read, *caches}:
            raise EngineError(
                f"{ONNX_FILE}: expected inputs {[*self._read, *caches]}, found {list(inputs)}"
            )
        for name, shape in caches.items():
            if inputs[name] != shape:
                raise EngineError(
                    f"{ONNX_FILE}: expected input {name} of shape {shape}, found {inputs[name]}"
                )
        if outputs.get("logits") != (CONTINUOUS_BINS,) or not outputs.keys() >= {
            "token",
            *(f"{name}_out" for name in caches),
        }:
            raise EngineError(
                f"{ONNX_FILE}: expected outputs logits ({CONTINUOUS_BINS},), token and each cache's NAME_out, "
                f"found {outputs}"
            )

    def _ort(self, array: NDArray[Any]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        bound = self._bound.get(id(frame)) or self._bind(frame)
        self._denormals_off.put_on()
        try:
            for one in bound.passes:
                for value, array in one.renewed:
                    value.update_inplace(array)
                self._session.run_with_iobinding(one.binding)
                mark()
        except (
            Exception
        ) as error:  # ONNX Runtime raises types of its own that derive from Exception alone
            raise EngineError(f"{self.name}: the pass failed: {error}") from error
        finally:
            self._ordinary.put_on()

    def _bind(self, frame: Frame) -> _Bound:
        """Bind a frame's memory once; a pass writes its token where the next one reads its ids."""
        passes = [
            self._bind_pass(
                block, frame.logits[index], frame.tokens[index : index + 1].reshape(1, 1)
            )
            for index, block in enumerate(frame.passes)
        ]
        bound = self._bound[id(frame)] = _Bound(frame, passes)
        return bound

    def _bind_pass(
        self, block: Block, logits: NDArray[np.float32], token: NDArray[np.int64]
    ) -> _Pass:
        binding = self._session.io_binding()
        renewed = []
        for name in self._read:
            array = getattr(block, name)
            value = self._ort(array)
            binding.bind_ortvalue_input(name, value)
            if self._device != "cpu":
                renewed.append((value, array))
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(f"{name}_out", value)
        for name, array in (("logits", logits), ("token", token)):
            binding.bind_ortvalue_output(name, self._runtime.OrtValue.ortvalue_from_numpy(array))
        return _Pass(binding, renewed)

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, zeros keep runs alike to the bit."""
        for value in self._cache.values():
            value.update_inplace(np.zeros(value.shape(), np.float32))


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("ONNX Runtime is not installed: pip install onnxruntime") from error
    return onnxruntime


def _rounded_products(precision: Precision) -> dict[str, str]:
    """Session entries that say how rounded weights are multiplied: in float32, so that no activation is rounded.

    ONNX Runtime fuses DequantizeLinear and MatMul into MatMulNBits, whose accuracy level 4, its default, rounds
    activations and 1 does not. At level 1 its kernel for int8 takes eight times as long as a product in float32, so
    there the weights are restored once, when the graph is loaded.
    """
    if precision == "int8":
        return {"session.disable_quant_qdq": "1"}
    return {"session.qdq_matmulnbits_accuracy_level": "1"}


def _open_session(runtime: Any, path: Path, precision: Precision, config: OnnxConfig) -> Any:
    wanted, available = _PROVIDERS[config.provider], runtime.get_available_providers()
    if wanted not in available:
        valid = [name for name, provider in _PROVIDERS.items() if provider in available]
        raise EngineError(
            f"provider {config.provider!r} is not in this ONNX Runtime; it has {valid}: "
            "pip install onnxruntime-gpu, in place of onnxruntime"
        )
    # TensorRT leaves what it cannot run to CUDA.
    providers = [wanted, _PROVIDERS["cuda"]] if config.provider == "tensorrt" else [wanted]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spinning)))
    for entry, value in _rounded_products(precision).items():
        options.add_session_config_entry(entry, value)
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except (
        Exception
    ) as error:  # ONNX Runtime raises types of its own that derive from Exception alone
        raise EngineError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    if wanted not in session.get_providers():
        raise EngineError(
            f"provider {config.provider!r} failed to start; the session got {session.get_providers()}"
        )
    return session
