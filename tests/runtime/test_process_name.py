"""Names of gatort's processes, as the kernel and `top` show them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = (
    "import sys; from pathlib import Path; from gatort.runtime.process_name import name_process\n"
    "name_process(*sys.argv[1:]); print(Path('/proc/self/comm').read_text(), end='')"
)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ((), "gatort"),
        (("door",), "gatort-door"),
        (("robustness",), "gatort-robustne"),  # The kernel keeps 15 bytes.
    ],
)
def test_a_process_is_named_after_its_part(part: tuple[str, ...], name: str) -> None:
    command = [sys.executable, "-c", SHOW, *part]
    shown = subprocess.run(command, capture_output=True, check=True, text=True)
    assert shown.stdout == f"{name}\n"
