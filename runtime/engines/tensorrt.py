"""TensorRT: the whole tick as one CUDA graph, tokens fed from pass to pass on the device.

Both packages serve, `tensorrt_rtx` and `tensorrt`; they have the same calls. Memory, streams and
the graph come from cuda-python: the robot's computer needs no PyTorch.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from math import prod
from typing import Any, Literal

from gatort.runtime.context import ALIGNMENT_BYTES, Block, Frame
from gatort.runtime.errors import DeviceError, EngineError, MissingDependency
from gatort.runtime.packages import install_hint
from gatort.runtime.spec import ModelDims, PolicySpec

from .cuda import Cuda
from .engine import Mark, no_mark
from .graph import block_inputs, cache_names, cache_output, cache_shape

Builder = Literal["tensorrt-rtx", "tensorrt"]
"""Package that builds an engine, and the only one that can load it again."""

_CACHE_BYTES = 2
"""Size of a value in the cache: every engine keeps its keys and values in float16."""


class TensorrtEngine:
    """A serialized engine on the GPU; see `Engine`.

    Two execution contexts share the weights: one has the shapes of the prefill, one those of the
    decodes. Each cache input and its output are the same memory. The first tick over a frame, which
    is the warm-up's, captures the graph.
    """

    stepwise = False

    def __init__(self, plan: bytes, builder: Builder, spec: PolicySpec, dims: ModelDims) -> None:
        """Load the engine, and allocate the cache and both contexts.

        Raises:
            DeviceError: the machine has no GPU or no driver, or the GPU failed.
            EngineError: the engine was built for another GPU or version, or does not match the
                manifest.
            MissingDependency: TensorRT or cuda-python is not installed.
        """
        self._cuda = Cuda()
        self.name = builder
        self._graphs: dict[int, tuple[Frame, Any]] = {}
        self._trt = import_builder(builder)
        self._said, self._logger = _make_logger(self._trt)
        self._engine = self._load(plan)

        self._inputs = block_inputs(spec)
        names = cache_names(dims.layers)
        shape = cache_shape(spec, dims)
        self._check_tensors(names)
        self._check_caches(names, shape)

        cache_bytes = prod(shape) * _CACHE_BYTES
        self._cache_bytes = cache_bytes * len(names)
        self._cache = self._cuda.allocate(self._cache_bytes)
        self._cache_at = {
            name: self._cache + index * cache_bytes for index, name in enumerate(names)
        }

        # The contexts share one scratch block, because the passes follow one another on one
        # stream. Its size is never 0: TensorRT refuses a null address.
        scratch_bytes = max(int(self._engine.device_memory_size_v2), ALIGNMENT_BYTES)
        scratch = self._cuda.allocate(scratch_bytes)
        self._prefill = self._context(scratch, scratch_bytes)
        self._decode = self._context(scratch, scratch_bytes)

    def _load(self, plan: bytes) -> Any:
        self._runtime = self._trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{self.name} {self._trt.__version__} cannot load the engine: {self._reason()}"
            )
        return engine

    def _reason(self) -> str:
        """Return TensorRT's own last message."""
        return " ".join(self._said[-1].split()) if self._said else "it gave no reason"

    def _check_tensors(self, caches: list[str]) -> None:
        """Check the names of the engine's tensors, before an address is given to any.

        Raises:
            EngineError: they are not the manifest's.
        """
        engine = self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        outputs = [cache_output(name) for name in caches]
        wanted = {*self._inputs, *caches, "logits", "token", *outputs}
        if found != wanted:
            raise EngineError(
                f"{self.name}: expected tensors {sorted(wanted)}, found {sorted(found)}"
            )

    def _check_caches(self, caches: list[str], shape: tuple[int, ...]) -> None:
        """Check that each cache has its shape, is float16 and is updated in place.

        Raises:
            EngineError: one does not.
        """
        engine = self._engine
        for name in caches:
            found_shape = tuple(engine.get_tensor_shape(name))
            if found_shape != shape:
                raise EngineError(
                    f"{self.name}: expected {name} of shape {shape}, found {found_shape}"
                )
            found_type = engine.get_tensor_dtype(name)
            if found_type != self._trt.DataType.HALF:
                raise EngineError(f"{self.name}: expected {name} in float16, found {found_type}")
            output = cache_output(name)
            if engine.get_aliased_input_tensor(output) != name:
                raise EngineError(
                    f"{self.name}: expected {output} to be {name} updated in place, found a copy"
                )

    def _context(self, scratch: int, scratch_bytes: int) -> Any:
        """Return an execution context that can be captured in a graph.

        It allocates nothing, and its kernels are final when its first run returns. The builder was
        told so (`REQUIRE_USER_ALLOCATION`).
        """
        trt = self._trt
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # Only TensorRT-RTX has this setting: it compiles kernels at run time.
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )

        context = self._engine.create_execution_context(config)
        if context is None:
            raise DeviceError(f"{self.name}: no execution context: {self._reason()}")
        context.set_device_memory(scratch, scratch_bytes)
        return context

    def see(self, frame: Frame) -> None:
        """See `Engine.see`. A tick is one graph, so a prefill stays whole."""

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            DeviceError: the GPU failed; its context is lost, so the process has to end.
        """
        _, graph = self._graphs.get(id(frame)) or self._capture(frame)
        self._cuda.launch(graph)
        mark()

    def _capture(self, frame: Frame) -> tuple[Frame, Any]:
        """Run the tick once, which compiles and loads every kernel, then record it.

        The frame is kept alive with its graph.
        """
        memory = self._cuda.allocate(frame.memory.size)
        self._cuda.pin(frame.memory)
        self._set_shapes(frame)
        self._run(frame, memory)
        self._cuda.synchronize()
        self._check_capturable()

        captured = (frame, self._cuda.capture(lambda: self._run(frame, memory)))
        self._graphs[id(frame)] = captured
        return captured

    def _set_shapes(self, frame: Frame) -> None:
        """Set the shapes of both contexts once; from pass to pass, only addresses change.

        Raises:
            EngineError: a context does not take a shape.
        """
        for context, block in zip((self._prefill, self._decode), frame.passes, strict=False):
            for name in self._inputs:
                shape = getattr(block, name).shape
                if not context.set_input_shape(name, shape):
                    raise EngineError(f"{self.name}: cannot take {name} of shape {shape}")

    def _check_capturable(self) -> None:
        """Check that the contexts allocate nothing while they run.

        Raises:
            EngineError: one does.
        """
        for context in (self._prefill, self._decode):
            # Only TensorRT-RTX has this call: its contexts may allocate while they run.
            capturable = getattr(context, "is_stream_capturable", lambda _: True)
            if not capturable(self._cuda.stream_handle):
                raise EngineError(
                    f"{self.name}: the tick cannot be captured as a CUDA graph: {self._reason()}"
                )

    def _run(self, frame: Frame, memory: int) -> None:
        """Enqueue one tick: copy the inputs in, run A passes, copy the outputs out."""
        host = frame.memory.ctypes.data
        at = frame.outputs_at
        self._cuda.copy_in(memory, host, at)

        for index, block in enumerate(frame.passes):
            context = self._decode if index else self._prefill
            self._bind(context, frame, block, index, memory)
            if not context.execute_async_v3(self._cuda.stream_handle):
                raise DeviceError(
                    f"{self.name}: pass {index} could not be enqueued: {self._reason()}"
                )

        self._cuda.copy_out(host + at, memory + at, frame.memory.size - at)

    def _bind(self, context: Any, frame: Frame, block: Block, index: int, memory: int) -> None:
        """Give a context the addresses of one pass; `memory` has the frame's layout."""
        arrays = [(name, getattr(block, name)) for name in self._inputs]
        row = slice(index, index + 1)
        arrays += [("logits", frame.logits[row]), ("token", frame.tokens[row])]
        bound = [
            context.set_tensor_address(name, memory + frame.offset(array)) for name, array in arrays
        ]
        for name, address in self._cache_at.items():
            bound.append(context.set_tensor_address(name, address))
            bound.append(context.set_tensor_address(cache_output(name), address))
        if not all(bound):
            raise EngineError(
                f"{self.name}: cannot take an address of pass {index}: {self._reason()}"
            )

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, and zeros keep runs equal to the bit."""
        self._cuda.zero(self._cache, self._cache_bytes)


def import_builder(builder: Builder) -> Any:
    """Import a builder's Python package and return it.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(builder.replace("-", "_"))
    except ImportError as error:
        hint = (
            install_hint(builder, "tensorrt")
            if builder == "tensorrt-rtx"
            else "see NVIDIA's installation guide"
        )
        raise MissingDependency(f"{builder} is not installed: {hint}") from error


def _make_logger(trt: Any) -> tuple[deque[str], Any]:
    """Return a logger and the errors that it collects, the newest last."""
    said: deque[str] = deque(maxlen=16)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                said.append(message)

    return said, Logger()
