"""The package keeps the structure of CONTRIBUTING.md, and the rules notice a breach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from checks.imports import Edge, find_cycles, read_edges
from checks.sources import ROOT, read_sources
from checks.structure import RULES, Structure, check_arrows, check_names, main, read_table
from checks.walks import WALKS, Walk, broken_hops, rooms

TABLE = """
| folder | what lives in it | may import |
|---|---|---|
| `runtime/` | the loop | nothing of ours |
| `sim/` | tasks | runtime |
| `launch/` | the command | all; nobody imports it |
"""


@pytest.fixture(scope="module")
def structure() -> Structure:
    return Structure.read(ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "CONTRIBUTING.md": TABLE,
        "runtime/__init__.py": "",
        "runtime/loop.py": "from .clock import Clock\n\nclass Loop: ...\n",
        "runtime/clock.py": "class Clock: ...\n",
        "sim/robot.py": "def make():\n    from gatort.runtime import loop\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_breaks_no_rule(
    rule: Callable[[Structure], list[str]], structure: Structure
) -> None:
    assert rule(structure) == []


def test_relative_late_and_typing_imports_and_lazy_strings_are_found(checkout: Path) -> None:
    (checkout / "runtime" / "all.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import clock\n"
        "if TYPE_CHECKING:\n    from gatort.sim.robot import make\n"
        "NAME = 'gatort.runtime.loop:Loop'\n",
        encoding="utf-8",
    )
    found = {
        (edge.importer.removeprefix("gatort."), edge.imported.removeprefix("gatort."), edge.kind)
        for edge in read_edges(read_sources(checkout))
    }
    assert found == {
        ("runtime.loop", "runtime.clock", "top"),
        ("sim.robot", "runtime.loop", "late"),
        ("runtime.all", "runtime.clock", "top"),
        ("runtime.all", "sim.robot", "types"),
        ("runtime.all", "runtime.loop", "string"),
    }


def test_an_arrow_against_the_table_is_named_with_its_line(checkout: Path) -> None:
    assert check_arrows(Structure.read(checkout)) == []
    (checkout / "runtime" / "clock.py").write_text("import gatort.sim.robot\n", encoding="utf-8")
    [breach] = check_arrows(Structure.read(checkout))
    assert breach.startswith("gatort.runtime.clock imports gatort.sim.robot (line 1)")
    assert breach.endswith("runtime/ may import nothing of ours.")


def test_a_class_name_in_two_files_is_refused(checkout: Path) -> None:
    (checkout / "sim" / "clock.py").write_text("class Clock: ...\n", encoding="utf-8")
    assert check_names(Structure.read(checkout)) == [
        "The name Clock has 2 meanings, in runtime/clock.py and sim/clock.py; rename all but one."
    ]


def test_a_circle_is_found_whichever_way_its_imports_are_written() -> None:
    edges = [Edge("a", "b", "top", 1), Edge("b", "c", "late", 1), Edge("c", "a", "types", 1)]
    assert find_cycles([*edges, Edge("d", "a", "top", 1)]) == [["a", "b", "c"]]
    assert find_cycles(edges[:2]) == []
    assert find_cycles([*edges[:2], Edge("c", "a", "string", 1)]) == []


def test_the_table_of_contributing_reads_as_folders() -> None:
    assert read_table(TABLE) == {
        "runtime": set(),
        "sim": {"runtime"},
        "launch": {"runtime", "sim"},
    }


def test_a_hop_that_is_no_longer_a_direct_call_breaks_its_walk(checkout: Path) -> None:
    walk = Walk("a value", ("sim/robot.py:make > runtime/loop.py:step",))
    loop = checkout / "runtime" / "loop.py"
    loop.write_text("def step(): ...\n", encoding="utf-8")
    (checkout / "sim" / "robot.py").write_text("def make():\n    step()\n", encoding="utf-8")
    assert broken_hops(walk, read_sources(checkout)) == []
    (checkout / "sim" / "robot.py").write_text("def make():\n    other()\n", encoding="utf-8")
    assert broken_hops(walk, read_sources(checkout)) == [
        "Walk of a value: sim/robot.py:make does not call step of runtime/loop.py."
    ]


def test_a_walk_counts_each_file_once() -> None:
    for walk in WALKS:
        assert len(rooms(walk)) == len(set(rooms(walk))) > 3


def test_the_command_fails_with_one_sentence_per_breach(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "runtime" / "clock.py").write_text("import gatort.sim.robot\n", encoding="utf-8")
    assert main([str(checkout)]) == 1
    assert "runtime/ may import nothing of ours." in capsys.readouterr().out
