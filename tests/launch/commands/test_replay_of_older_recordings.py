"""Recordings of the shipped policy prove that no token has changed since. A new policy needs new
ones, in which no two bins nearly tie: processors differ in the last bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatort.launch.cli import main
from gatort.policies.loading import SHIPPED_BUNDLE

RECORDINGS = Path(__file__).parents[2] / "data" / "recordings"


@pytest.mark.parametrize(("name", "tokens"), [("greedy", 160), ("sampled", 320)])
def test_every_token_of_an_older_recording_is_reproduced(
    name: str, tokens: int, tmp_path: Path
) -> None:
    report = tmp_path / "replay.json"
    bundle = str(SHIPPED_BUNDLE)
    file = str(RECORDINGS / f"{name}.mcap")
    assert main(["replay", file, "--bundle", bundle, "--json", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["tokens"], found["equal_tokens"]) == (tokens, tokens)
