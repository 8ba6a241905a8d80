"""A study's file with two settings of the shipped policy."""

from __future__ import annotations

from pathlib import Path

import pytest

STUDY = """
question = "Is a low temperature better?"
layouts = 3

[variants.likeliest]
bundle = "stack"

[variants.drawn]
bundle = "stack"
temperature = 0.5

[conditions.nominal]

[conditions.late.link]
delay_ms = 8.0
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "pick.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path
