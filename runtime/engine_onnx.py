"""ONNX Runtime: one session, every buffer bound once, the cache updated in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from .bundle import ONNX_FILE, Manifest
from .context import Block
from .errors import EngineError, MissingDependency
from .spec import CONTINUOUS_BINS, Strict

Provider = Literal["cpu", "cuda", "tensorrt"]
_PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxConfig(Strict):
    """How ONNX Runtime runs the model."""

    threads: PositiveInt = 2
    """Threads of one pass."""
    spinning: bool = False
    """Keep threads spinning between passes: about 25 % faster for a whole core."""
    provider: Provider = "cpu"


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
        self._device = "cpu" if config.provider == "cpu" else "cuda"
        self._session = _open_session(runtime, directory / ONNX_FILE, config)
        window = manifest.spec.window_tokens
        shape = (1, manifest.model.heads, window, manifest.model.head_size)
        self._inputs = {value.name: list(value.shape) for value in self._session.get_inputs()}
        names = [f"{kind}_{layer}" for layer in range(manifest.model.layers) for kind in "kv"]
        self._require_inputs(names, shape)
        self._cache = {name: self._ort(np.zeros(shape, np.float32)) for name in names}
        outputs = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        if (
            "logits" not in outputs
            or int(np.prod([s for s in outputs["logits"] if isinstance(s, int)])) != CONTINUOUS_BINS
        ):
            raise EngineError(f"expected an output logits of {CONTINUOUS_BINS} values, found outputs {outputs}")
        rank = len(outputs["logits"])
        self._logits_by_rank = np.zeros((1,) * (rank - 1) + (CONTINUOUS_BINS,), np.float32)
        self._logits = self._logits_by_rank.reshape(CONTINUOUS_BINS)
        self._logits_ort = runtime.OrtValue.ortvalue_from_numpy(self._logits_by_rank)
        self._bindings: dict[int, tuple[Block, Any, list[tuple[Any, NDArray[Any]]]]] = {}

    def _require_inputs(self, caches: list[str], shape: tuple[int, ...]) -> None:
        for name in caches:
            if self._inputs.get(name) != list(shape):
                raise EngineError(f"expected an input {name} of shape {shape}, found {self._inputs.get(name)}")

    def _ort(self, array: NDArray[Any]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def forward(self, block: Block) -> NDArray[np.float32]:
        """See `Engine.forward`."""
        bound = self._bindings.get(id(block)) or self._bind(block)
        for value, array in bound[2]:
            value.update_inplace(array)
        try:
            self._session.run_with_iobinding(bound[1])
        except Exception as error:  # ONNX Runtime raises types of its own that derive from Exception alone
            raise EngineError(f"{self.name}: the pass failed: {error}") from error
        return self._logits

    def _bind(self, block: Block) -> tuple[Block, Any, list[tuple[Any, NDArray[Any]]]]:
        """Bind a block's memory once; on a device, also list the copies that each pass must renew."""
        binding = self._session.io_binding()
        renewed = []
        for name in self._inputs.keys() - self._cache.keys():
            if (array := getattr(block, name)) is None:
                raise EngineError(f"the model has an input {name}, but the policy has none")
            value = self._ort(array)
            binding.bind_ortvalue_input(name, value)
            if self._device != "cpu":
                renewed.append((value, array))
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(f"{name}_out", value)
        binding.bind_ortvalue_output("logits", self._logits_ort)
        # The block is kept too: its id stays taken for as long as the binding is.
        bound = self._bindings[id(block)] = (block, binding, renewed)
        return bound

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


def _open_session(runtime: Any, path: Path, config: OnnxConfig) -> Any:
    wanted, available = _PROVIDERS[config.provider], runtime.get_available_providers()
    if wanted not in available:
        valid = [name for name, provider in _PROVIDERS.items() if provider in available]
        raise EngineError(f"provider {config.provider!r} is not in this ONNX Runtime; it has {valid}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spinning)))
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # ONNX Runtime raises types of its own that derive from Exception alone
        raise EngineError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    if wanted not in session.get_providers():
        raise EngineError(f"provider {config.provider!r} failed to start; the session got {session.get_providers()}")
    return session
