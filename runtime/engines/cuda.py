"""The few calls of the CUDA runtime that a tick needs, from cuda-python."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import DeviceError, MissingDependency


def cuda_runtime() -> Any:
    """Import cuda-python's bindings of the CUDA runtime and return them.

    Raises:
        MissingDependency: cuda-python is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingDependency(
            "cuda-python is not installed: pip install 'gatort[tensorrt]'"
        ) from error
    return runtime


def no_gpu(code: str) -> DeviceError:
    """Return the error for a machine on which CUDA finds no GPU.

    Args:
        code: name of CUDA's error.
    """
    found = code
    if code == "cudaErrorInsufficientDriver":  # So it is without any driver, too.
        found = "no driver, or one too old for the installed CUDA packages"
    return DeviceError(
        f"expected an NVIDIA GPU and its driver, found none ({found}); install a current driver, "
        "or do without a GPU: --engine native needs none"
    )


class Cuda:
    """Memory, copies and graphs on a stream of their own; every error is fatal."""

    def __init__(self) -> None:
        """Make a stream.

        Raises:
            DeviceError: the machine has no GPU or no driver.
            MissingDependency: cuda-python is not installed.
        """
        runtime = cuda_runtime()
        self._runtime = runtime
        code, devices = runtime.cudaGetDeviceCount()
        if not devices:
            raise no_gpu(code.name)
        self._stream = self._checked(
            runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking
        )
        self.stream_handle = int(self._stream)
        """Address of the stream, as TensorRT takes it."""

    def _checked(self, call: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """Call, and return the value beside the error code.

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
        """Return the address of zeroed memory on the device, freed with this object."""
        address = int(self._checked(self._runtime.cudaMalloc, size))
        weakref.finalize(self, self._runtime.cudaFree, address)
        self.zero(address, size)
        return address

    def zero(self, address: int, size: int) -> None:
        """Set memory to zero, after the work on the stream, and wait for it."""
        self._checked(self._runtime.cudaMemsetAsync, address, 0, size, self._stream)
        self.synchronize()

    def pin(self, memory: NDArray[np.uint8]) -> None:
        """Pin host memory, so that the device copies from and to it, while this object lives."""
        flags = self._runtime.cudaHostRegisterDefault
        self._checked(self._runtime.cudaHostRegister, memory.ctypes.data, memory.size, flags)
        # The finalizer holds the array: pages freed while registered could go to any program.
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
        """Record the work that `enqueue` puts on the stream, as a graph that can be launched."""
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


def _unpin(runtime: Any, memory: NDArray[np.uint8]) -> None:
    runtime.cudaHostUnregister(memory.ctypes.data)
