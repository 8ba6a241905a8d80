"""Files that gatort's processes leave behind, and the code that they run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "runtime",
    "policies",
    "sim",
    "studies",
    "export",
    "console",
    "launch",
    "faults",
    "testing",
)
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
DRIVE = """
import gatort
clock = gatort.VirtualClock()
gatort.load_policy().control(gatort.MujocoRobot(clock), clock).run(ticks=3)
"""


def started_interpreters(source: Path) -> list[ast.expr | None]:
    """Return the argument after each `sys.executable` in a list or tuple."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.List | ast.Tuple):
            found += [
                follower
                for word, follower in pairwise([*node.elts, None])
                if word is not None and ast.unparse(word) == "sys.executable"
            ]
    return found


def test_no_process_runs_code_from_the_working_directory() -> None:
    started = {source: started_interpreters(source) for source in SOURCES}
    assert sum(map(len, started.values())) >= 8  # The search finds them.
    without = {
        str(source.relative_to(ROOT))
        for source, followers in started.items()
        for follower in followers
        if follower is None or ast.unparse(follower) != "'-P'"
    }
    assert without == set()


@pytest.mark.slow
def test_a_policy_that_drives_an_arm_leaves_no_file_in_the_home_directory(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["HOME"] = str(tmp_path)
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-P", "-c", DRIVE], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
