"""ONNX Runtime: one session, every buffer bound once, the cache updated in place."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import ExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gatort.runtime.bundle import ONNX_FILE, Manifest, external_files, open_checked
from gatort.runtime.context import Block, Frame
from gatort.runtime.errors import EngineError
from gatort.runtime.grant import read_grant
from gatort.runtime.spec import CONTINUOUS_BINS, Precision, Strict

from .engine import Decoding, Mark, named, no_mark
from .float_environment import FloatEnvironment
from .graph import block_inputs, cache_names, cache_output, cache_shape
from .settle import run_guessed

Provider = Literal["cpu", "cuda", "tensorrt"]
_PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_SETTINGS: dict[str, dict[str, str]] = {
    # A tick alternates between many patches and none. With its other settings, cuDNN would search
    # for the best convolution again at each change: 31 ms a tick on an H100.
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "DEFAULT"},
}
"""Settings of a provider, under ONNX Runtime's names."""


Threads = Annotated[int, Field(ge=1, le=256)]
"""Number of threads of a pass."""


class OnnxConfig(Strict):
    """Settings of ONNX Runtime."""

    threads: Threads = min(2, read_grant().processors)
    """Number of threads of a pass. Default: 2, or 1 where only one core is granted."""
    spinning: bool = False
    """Keep threads spinning between passes: about 25 % faster for a whole core."""
    provider: Provider = "cpu"
    """Device and library that run the graph."""
    decoding: Decoding = "greedy"
    """Way to a tick's tokens."""


class _Pass(NamedTuple):
    """Binding of one pass."""

    binding: Any
    """Binding as ONNX Runtime takes it."""
    renewed: list[tuple[Any, NDArray[Any]]]
    """Device copies, each with the array that a pass copies into it; empty on the CPU."""


class _Bound(NamedTuple):
    """A frame and the bindings of its passes. Only greedy decoding has several."""

    frame: Frame
    """Frame, kept alive so that its id stays its own."""
    sight: _Pass | None
    """Binding of the pictures' pass; `None` where the prefill is not split."""
    unread: tuple[NDArray[np.float32], NDArray[np.int64]]
    """Logits and token of the pictures' pass, kept alive because the binding only has addresses."""
    passes: list[_Pass]
    """Bindings in the order of the passes that follow."""
    check: Callable[[], None] | None
    """Runs the check of an exact tick; `None` in any other."""


class OnnxEngine:
    """The bundle's `policy.onnx`; see `Engine`.

    One session serves prefill and decode: two would compete for the cores. Each layer's cache input
    and output are the same memory; otherwise ONNX Runtime would copy the cache in every pass.
    """

    def __init__(self, directory: Path, manifest: Manifest, config: OnnxConfig) -> None:
        """Load the model and allocate the cache.

        Raises:
            BundleError: the graph or a file that it reads changed since the bundle was written.
            EngineError: the provider is absent, or the model cannot be loaded or does not match
                the manifest.
        """
        # Imported here, because the runtime must load without it.
        import onnxruntime

        self.name = named(f"onnx {config.provider}", config.decoding)
        self.decoding = config.decoding
        self.stepwise = config.decoding == "greedy"
        self._device = "cpu" if config.provider == "cpu" else "cuda"
        self._runtime: Any = onnxruntime

        self._ordinary = FloatEnvironment()
        self._session = _open_session(onnxruntime, directory, manifest, config)
        self._denormals_off = FloatEnvironment()
        self._ordinary.put_on()

        spec = manifest.spec
        self._inputs = block_inputs(spec)
        self._cache_names = cache_names(manifest.model.layers)
        self._cache_shape = cache_shape(spec, manifest.model)
        self._check_inputs(self._cache_names, self._cache_shape)
        self._check_outputs(self._cache_names)
        self._allocate()

    def another(self) -> OnnxEngine:
        """See `SharedEngine.another`. Both run in one session."""
        made = copy(self)
        made._allocate()  # noqa: SLF001  # of this class
        return made

    def _allocate(self) -> None:
        """Allocate the cache, to which no frame is bound yet."""
        shape = self._cache_shape
        self._cache = {name: self._ort(np.zeros(shape, np.float32)) for name in self._cache_names}
        self._bound: dict[int, _Bound] = {}

    def _check_inputs(self, caches: list[str], shape: tuple[int, ...]) -> None:
        """Check the names of the graph's inputs, and its cache shapes, before anything is bound.

        Raises:
            EngineError: they are not those of the manifest.
        """
        inputs = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        wanted = [*self._inputs, *caches]
        if inputs.keys() != set(wanted):
            raise EngineError(f"{ONNX_FILE}: expected inputs {wanted}, found {list(inputs)}")
        for name in caches:
            if inputs[name] != shape:
                raise EngineError(
                    f"{ONNX_FILE}: expected input {name} of shape {shape}, found {inputs[name]}"
                )

    def _check_outputs(self, caches: list[str]) -> None:
        outputs = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        wanted = {"token", *(cache_output(name) for name in caches)}
        logits = outputs.get("logits", ())
        if len(logits) != 2 or logits[1] != CONTINUOUS_BINS or not outputs.keys() >= wanted:
            raise EngineError(
                f"{ONNX_FILE}: expected outputs logits (d, {CONTINUOUS_BINS}), token and each "
                f"cache's NAME_out, found {outputs}; export the bundle again"
            )

    def _ort(self, array: NDArray[Any]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def see(self, frame: Frame) -> None:
        """See `Engine.see`. On a GPU a prefill stays whole: one more launch takes longer."""
        bound = self._bound.get(id(frame)) or self._bind(frame)
        if bound.sight is not None:
            self._run([bound.sight])

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        if not frame.seen:
            self.see(frame)
        bound = self._bound.get(id(frame)) or self._bind(frame)
        if self.decoding == "greedy":
            self._run(bound.passes, mark)
            return
        run_guessed(frame, partial(self._run, bound.passes), bound.check)
        mark()

    def _check(self, frame: Frame, check: _Pass) -> None:
        frame.check.ids[0] = frame.chosen[:-1]
        self._run([check])

    def _run(self, passes: list[_Pass], mark: Mark = no_mark) -> None:
        self._denormals_off.put_on()
        try:
            for one in passes:
                for value, array in one.renewed:
                    value.update_inplace(array)
                self._session.run_with_iobinding(one.binding)
                mark()
        # ONNX Runtime's own errors derive from Exception alone.
        except Exception as error:
            raise EngineError(f"{self.name}: the pass failed: {error}") from error
        finally:
            self._ordinary.put_on()

    def _bind(self, frame: Frame) -> _Bound:
        """Bind a frame's memory once; a pass writes its token into the ids of the next one."""
        ahead = frame.sight if self._device == "cpu" else None
        unread = np.empty((1, CONTINUOUS_BINS), np.float32), np.empty((1, 1), np.int64)
        sight = None if ahead is None else self._bind_pass(ahead, *unread)

        check = None
        if self.decoding == "greedy":
            first = frame.prefill if ahead is None else frame.rest
            passes = [
                self._bind_pass(block, frame.logits[i : i + 1], frame.tokens[i : i + 1, None])
                for i, block in enumerate((first, *frame.passes[1:]))
            ]
        else:
            first = frame.full if ahead is None else frame.full_rest
            passes = [self._bind_pass(first, frame.logits, frame.chosen[None])]
            if self.decoding == "exact":
                again = self._bind_pass(frame.check, frame.logits[1:], frame.chosen[None, 1:])
                check = partial(self._check, frame, again)
        bound = _Bound(frame, sight, unread, passes, check)
        self._bound[id(frame)] = bound
        return bound

    def _bind_pass(
        self, block: Block, logits: NDArray[np.float32], token: NDArray[np.int64]
    ) -> _Pass:
        binding = self._session.io_binding()
        renewed = []
        for name in self._inputs:
            array = getattr(block, name)
            value = self._ort(array)
            binding.bind_ortvalue_input(name, value)
            if self._device != "cpu":
                renewed.append((value, array))

        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(cache_output(name), value)

        for name, array in (("logits", logits), ("token", token)):
            binding.bind_ortvalue_output(name, self._runtime.OrtValue.ortvalue_from_numpy(array))
        return _Pass(binding, renewed)

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, and zeros keep runs equal to the bit."""
        for value in self._cache.values():
            value.update_inplace(np.zeros(value.shape(), np.float32))


def _rounded_products(precision: Precision) -> dict[str, str]:
    """Return session entries that multiply rounded weights in float32.

    No activation is rounded. ONNX Runtime fuses DequantizeLinear and MatMul into MatMulNBits. Its
    accuracy level 4, the default, rounds activations; level 1 does not. At level 1 the kernel for
    int8 takes eight times as long as a product in float32. For int8 the weights are therefore
    restored once, on loading.
    """
    if precision == "int8":
        return {"session.disable_quant_qdq": "1"}
    return {"session.qdq_matmulnbits_accuracy_level": "1"}


def _open_session(runtime: Any, directory: Path, manifest: Manifest, config: OnnxConfig) -> Any:
    """Load the graph of a bundle from the bytes that were hashed.

    ONNX Runtime itself opens no file: it would look the names up again.

    Raises:
        BundleError: the graph or a file that it reads changed since the bundle was written.
        EngineError: the provider is absent or fails, or the graph cannot be loaded.
    """
    providers = _providers(runtime, config.provider)
    options = _session_options(runtime, manifest.precision, config)
    with ExitStack() as stack:
        graph = stack.enter_context(open_checked(directory, manifest, ONNX_FILE))
        names = external_files(directory, manifest, graph)
        files = [stack.enter_context(open_checked(directory, manifest, name)) for name in names]
        try:
            mapped = [
                stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                for file in files
            ]
            if names:
                sizes = [len(each) for each in mapped]
                options.add_external_initializers_from_files_in_memory(names, mapped, sizes)
            settings = [_SETTINGS.get(name, {}) for name in providers]
            session = runtime.InferenceSession(
                graph.read(), options, providers=providers, provider_options=settings
            )
        # ONNX Runtime's own errors derive from Exception alone.
        except Exception as error:
            raise EngineError(
                f"{directory / ONNX_FILE}: ONNX Runtime cannot load it: {error}"
            ) from error

    if providers[0] not in session.get_providers():
        raise EngineError(
            f"provider {config.provider!r} failed to start; "
            f"the session got {session.get_providers()}"
        )
    return session


def _providers(runtime: Any, provider: Provider) -> list[str]:
    """Return a provider and its fallback under ONNX Runtime's names.

    Raises:
        EngineError: the installed ONNX Runtime does not have the provider.
    """
    wanted = _PROVIDERS[provider]
    available = runtime.get_available_providers()
    if wanted not in available:
        raise EngineError(
            f"--engine onnx-{provider}: this ONNX Runtime has no such provider: pip install "
            "onnxruntime-gpu, in place of onnxruntime, or use --engine onnx"
        )
    # TensorRT leaves the nodes that it cannot run to CUDA.
    return [wanted, _PROVIDERS["cuda"]] if provider == "tensorrt" else [wanted]


def _session_options(runtime: Any, precision: Precision, config: OnnxConfig) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3

    entries = {
        "session.set_denormal_as_zero": "1",
        "session.intra_op.allow_spinning": str(int(config.spinning)),
    }
    for entry, value in (entries | _rounded_products(precision)).items():
        options.add_session_config_entry(entry, value)
    return options
