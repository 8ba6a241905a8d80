"""CUDA's errors in a user's words."""

from gatort.runtime.engines.cuda import no_gpu


def test_an_old_driver_is_told_from_an_absent_gpu() -> None:
    old, absent = map(str, map(no_gpu, ("cudaErrorInsufficientDriver", "cudaErrorNoDevice")))
    assert "an NVIDIA driver that is new enough" in old
    assert "update the driver, or choose an engine for the CPU" in old
    assert "cudaError" not in old
    assert "expected an NVIDIA GPU and its driver, found none (cudaErrorNoDevice)" in absent
