"""CUDA's errors in a user's words."""

from gatort.runtime.engines.cuda import no_gpu


def test_an_old_driver_is_told_from_an_absent_gpu() -> None:
    old, absent = map(str, map(no_gpu, ("cudaErrorInsufficientDriver", "cudaErrorNoDevice")))
    assert "found none (no driver, or one too old for the installed CUDA packages);" in old
    assert "found none (cudaErrorNoDevice); install a current driver" in absent
