"""Tensors from a safetensors file that anybody may have written.

Names, shapes and types are compared before memory is taken for a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from safetensors import SafetensorError, safe_open

from .errors import GatortError
from .regular_file import by_descriptor

_WORDS = {"F32": "float32", "I64": "int64"}


class TensorKind(NamedTuple):
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    """Shape of the tensor."""
    dtype: Literal["F32", "I64"] = "F32"
    """Type in the file's spelling."""

    def __str__(self) -> str:
        return f"{_WORDS[self.dtype]} {self.shape}"


def read_tensors(
    file: IO[bytes],
    path: Path,
    expected: Mapping[str, TensorKind],
    error: type[GatortError],
    *,
    framework: Literal["np", "pt"],
    exactly: bool,
    device: str = "cpu",
) -> Iterator[tuple[str, Any]]:
    """Yield each expected tensor of an open file by name, one at a time.

    Args:
        file: open file.
        path: path of the file, for messages.
        expected: shape and type of each tensor.
        error: type of the error to raise.
        framework: library whose arrays are yielded: NumPy or PyTorch.
        exactly: refuse a file that holds other tensors as well.
        device: device of PyTorch's tensors.

    Raises:
        GatortError: the file is no safetensors file, or a tensor is absent or of another shape or
            type; names it. The error has the type `error`.
    """
    try:
        with safe_open(by_descriptor(file), framework, device) as stored:
            found = set(stored.keys())
            different = found ^ expected.keys() if exactly else expected.keys() - found
            if different:
                raise error(
                    f"{path}: expected the tensors of the model's dimensions, "
                    f"found a difference in {', '.join(sorted(different)[:8])}"
                )
            for name, kind in expected.items():
                part = stored.get_slice(name)
                shape, dtype = tuple(part.get_shape()), part.get_dtype()
                if (shape, dtype) != (kind.shape, kind.dtype):
                    raise error(
                        f"{path}: {name}: expected {kind}, found {_WORDS.get(dtype, dtype)} {shape}"
                    )
            for name in expected:
                yield name, stored.get_tensor(name)
    except (OSError, SafetensorError) as failure:
        raise error(
            f"{path}: expected a whole safetensors file, found one that cannot be read ({failure})"
        ) from failure
