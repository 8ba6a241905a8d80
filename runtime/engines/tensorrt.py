"""TensorRT: the whole tick as one CUDA graph, tokens fed from pass to pass on the device.

Either package serves, `tensorrt_rtx` or `tensorrt`; both call the same things alike. Memory, streams and the graph
come from cuda-python, so that no PyTorch is needed on the robot's computer.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.context import (
    ALIGNMENT_BYTES,
    Block,
    Frame,
)
from gatort.runtime.errors import (
    DeviceError,
    EngineError,
    MissingDependency,
)
from gatort.runtime.spec import (
    ModelDims,
    PolicySpec,
)

from .engine import (
    Mark,
    no_mark,
)

Builder = Literal["tensorrt-rtx", "tensorrt"]
"""Package that builds an engine, and the only one that can load it again."""

_BLOCK_INPUTS = ("ids", "local", "cos", "sin", "mask", "write_index", "bias")
_CACHE_BYTES = 2
"""Of a value in the cache: every engine keeps its keys and values in float16."""


class TensorrtEngine:
    """A serialized engine on the GPU; see `Engine`.

    Two execution contexts share the weights, one for the shapes of the prefill and one for the decodes'. Each cache
    input and its output are the same memory. The graph is captured at the first tick over a frame, the warm-up's.
    """

    stepwise = False

    def __init__(self, plan: bytes, builder: Builder, spec: PolicySpec, dims: ModelDims) -> None:
        """Load the engine, and allocate the cache and both contexts.

        Raises:
            DeviceError: there is no GPU or no driver, or the GPU failed.
            EngineError: the engine was built for another GPU or another version, or is not the manifest's.
            MissingDependency: TensorRT or cuda-python is not installed.
        """
        self._cuda = _Cuda()
        self.name = builder
        self._trt = trt = import_builder(builder)
        self._said, self._logger = _make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{builder} {trt.__version__} cannot load the engine: {self._reason()}"
            )
        self._inputs = (*_BLOCK_INPUTS, "patches") if spec.image_tokens else _BLOCK_INPUTS
        shape = (1, dims.heads, spec.window_tokens, dims.head_size)
        names = [f"{kind}_{layer}" for layer in range(dims.layers) for kind in "kv"]
        self._check_tensors(names, shape)
        cache_bytes = prod(shape) * _CACHE_BYTES
        self._cache_bytes = cache_bytes * len(names)
        self._cache = self._cuda.allocate(self._cache_bytes)
        self._cache_at = {
            name: self._cache + index * cache_bytes for index, name in enumerate(names)
        }
        # One scratch block: the passes follow one another on one stream. Never null, which TensorRT refuses.
        scratch_bytes = max(int(self._engine.device_memory_size_v2), ALIGNMENT_BYTES)
        scratch = self._cuda.allocate(scratch_bytes)
        self._prefill, self._decode = (self._context(scratch, scratch_bytes) for _ in range(2))
        self._graphs: dict[int, tuple[Frame, Any]] = {}

    def _reason(self) -> str:
        """What TensorRT itself said last."""
        return " ".join(self._said[-1].split()) if self._said else "it gave no reason"

    def _check_tensors(self, caches: list[str], shape: tuple[int, ...]) -> None:
        """Refuse an engine whose tensors are not the manifest's, before an address is given to any."""
        engine = self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        outputs = [f"{name}_out" for name in caches]
        wanted = {*self._inputs, *caches, "logits", "token", *outputs}
        if found != wanted:
            raise EngineError(
                f"{self.name}: expected tensors {sorted(wanted)}, found {sorted(found)}"
            )
        for name, output in zip(caches, outputs, strict=True):
            if (its := tuple(engine.get_tensor_shape(name))) != shape:
                raise EngineError(f"{self.name}: expected {name} of shape {shape}, found {its}")
            if engine.get_tensor_dtype(name) != self._trt.DataType.HALF:
                raise EngineError(
                    f"{self.name}: expected {name} in float16, found {engine.get_tensor_dtype(name)}"
                )
            if engine.get_aliased_input_tensor(output) != name:
                raise EngineError(
                    f"{self.name}: expected {output} to be {name} updated in place; it is a copy"
                )

    def _context(self, scratch: int, scratch_bytes: int) -> Any:
        """An execution context that allocates nothing and whose kernels are final when its first run returns.

        A captured graph needs both; the builder was told so (`REQUIRE_USER_ALLOCATION`).
        """
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if hasattr(
            config, "dynamic_shapes_kernel_specialization_strategy"
        ):  # TensorRT-RTX compiles at run time
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
        context = self._engine.create_execution_context(config)
        if context is None:
            raise DeviceError(f"{self.name}: no execution context: {self._reason()}")
        context.set_device_memory(scratch, scratch_bytes)
        return context

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            DeviceError: the GPU failed; its context is lost, so the process has to end.
        """
        _, graph = self._graphs.get(id(frame)) or self._capture(frame)
        self._cuda.launch(graph)
        mark()

    def _capture(self, frame: Frame) -> tuple[Frame, Any]:
        """Run the tick once, so that every kernel is compiled and loaded, then record it; the frame is kept."""
        memory = self._cuda.allocate(frame.memory.size)
        self._cuda.pin(frame.memory)
        # A context is captured with the shapes of the run before; only addresses change from pass to pass.
        for context, block in zip((self._prefill, self._decode), frame.passes, strict=False):
            for name in self._inputs:
                if not context.set_input_shape(name, getattr(block, name).shape):
                    raise EngineError(
                        f"{self.name}: cannot take {name} of shape {getattr(block, name).shape}"
                    )
        self._run(frame, memory)
        self._cuda.synchronize()
        for context in (self._prefill, self._decode):
            # Only TensorRT-RTX has the question: its contexts may allocate while they run.
            capturable = getattr(context, "is_stream_capturable", lambda _: True)
            if not capturable(self._cuda.stream_handle):
                raise EngineError(
                    f"{self.name}: the tick cannot be captured as a CUDA graph: {self._reason()}"
                )
        captured = self._graphs[id(frame)] = (
            frame,
            self._cuda.capture(lambda: self._run(frame, memory)),
        )
        return captured

    def _run(self, frame: Frame, memory: int) -> None:
        """Enqueue one tick: inputs in, A passes, outputs out."""
        host, at, size = frame.memory.ctypes.data, frame.outputs_at, frame.memory.size
        self._cuda.copy_in(memory, host, at)
        for index, block in enumerate(frame.passes):
            context = self._decode if index else self._prefill
            self._bind(context, frame, block, index, memory)
            if not context.execute_async_v3(self._cuda.stream_handle):
                raise DeviceError(
                    f"{self.name}: pass {index} could not be enqueued: {self._reason()}"
                )
        self._cuda.copy_out(host + at, memory + at, size - at)

    def _bind(self, context: Any, frame: Frame, block: Block, index: int, memory: int) -> None:
        """Give a context the addresses of one pass; `memory` is laid out as the frame's."""
        arrays = [(name, getattr(block, name)) for name in self._inputs]
        arrays += [("logits", frame.logits[index]), ("token", frame.tokens[index : index + 1])]
        bound = [
            context.set_tensor_address(name, memory + frame.offset(array)) for name, array in arrays
        ]
        for name, address in self._cache_at.items():
            bound += [context.set_tensor_address(each, address) for each in (name, f"{name}_out")]
        if not all(bound):
            raise EngineError(
                f"{self.name}: cannot take an address of pass {index}: {self._reason()}"
            )

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, zeros keep runs alike to the bit."""
        self._cuda.zero(self._cache, self._cache_bytes)


def import_builder(builder: Builder) -> Any:
    """The package of a builder.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(builder.replace("-", "_"))
    except ImportError as error:
        hint = (
            "pip install 'gatort[tensorrt]'"
            if builder == "tensorrt-rtx"
            else "see NVIDIA's installation guide"
        )
        raise MissingDependency(f"{builder} is not installed: {hint}") from error


def _unpin(runtime: Any, memory: NDArray[np.uint8]) -> None:
    runtime.cudaHostUnregister(memory.ctypes.data)


def _make_logger(trt: Any) -> tuple[deque[str], Any]:
    """What the package says of errors and warnings, the newest last, and the logger that collects it."""
    said: deque[str] = deque(maxlen=16)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                said.append(message)

    return said, Logger()


class _Cuda:
    """The few calls of the CUDA runtime that a tick needs, on a stream of their own; every error is fatal."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingDependency(
                "cuda-python is not installed: pip install 'gatort[tensorrt]'"
            ) from error
        self._runtime = runtime
        code, devices = runtime.cudaGetDeviceCount()
        if not devices:
            raise DeviceError(f"expected an NVIDIA GPU and its driver, found none ({code.name})")
        self._stream = self._checked(
            runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking
        )
        self.stream_handle = int(self._stream)

    def _checked(self, call: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """Call, and return what came beside the error code.

        Raises:
            DeviceError: the code is not success.
        """
        code, *found = call(*arguments)
        if code != self._runtime.cudaError_t.cudaSuccess:
            raise DeviceError(
                f"{call.__name__}: {code.name}; a GPU whose context is lost needs a new process"
            )
        return found[0] if found else None

    def allocate(self, size: int) -> int:
        """Zeroed memory on the device, freed with this object."""
        address = int(self._checked(self._runtime.cudaMalloc, size))
        weakref.finalize(self, self._runtime.cudaFree, address)
        self.zero(address, size)
        return address

    def zero(self, address: int, size: int) -> None:
        """Set memory to zero, after what is on the stream, and wait for it."""
        self._checked(self._runtime.cudaMemsetAsync, address, 0, size, self._stream)
        self.synchronize()

    def pin(self, memory: NDArray[np.uint8]) -> None:
        """Make host memory one that the device copies from and to by itself, for as long as this object lives."""
        flags = self._runtime.cudaHostRegisterDefault
        self._checked(self._runtime.cudaHostRegister, memory.ctypes.data, memory.size, flags)
        # The finalizer holds the array: pages that are freed while they are registered would be anyone's.
        weakref.finalize(self, _unpin, self._runtime, memory)

    def copy_in(self, to_device: int, from_host: int, size: int) -> None:
        """Enqueue a copy to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self._runtime.cudaMemcpyAsync, to_device, from_host, size, kind, self._stream)

    def copy_out(self, to_host: int, from_device: int, size: int) -> None:
        """Enqueue a copy from the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(self._runtime.cudaMemcpyAsync, to_host, from_device, size, kind, self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """Record what `enqueue` puts on the stream as a graph that can be launched."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._checked(self._runtime.cudaStreamBeginCapture, self._stream, mode)
        enqueue()
        graph = self._checked(self._runtime.cudaStreamEndCapture, self._stream)
        return self._checked(self._runtime.cudaGraphInstantiate, graph, 0)

    def launch(self, graph: Any) -> None:
        """Run a graph and wait for its end."""
        self._checked(self._runtime.cudaGraphLaunch, graph, self._stream)
        self.synchronize()

    def synchronize(self) -> None:
        """Wait until the stream is idle."""
        self._checked(self._runtime.cudaStreamSynchronize, self._stream)
