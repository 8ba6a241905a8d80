"""Two walks, hop by hop: a bundle through `gatort compile`, an observation through the loop.

A hop says that a function calls another one, in the same file or in the next. `broken_hops` reads
both files and checks that the first function contains the call. A call that moves behind a further
function breaks its hop, so a walk cannot grow without a new line here. The number of files that a
walk passes is its length.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from .sources import Source


@dataclass(frozen=True)
class Walk:
    """The way of one value, from the command to its end."""

    name: str
    """Value and command."""
    hops: tuple[str, ...]
    """Calls in order, each as `file:function > file:function`; a method is `Class.method`."""


OBSERVATION = Walk(
    "an observation through the loop (gatort run)",
    (
        "launch/commands/run.py:run > launch/recorded_run.py:run_recorded",
        "launch/recorded_run.py:run_recorded > runtime/live_run.py:LiveRun.run",
        "runtime/live_run.py:LiveRun.run > runtime/loop.py:ControlLoop.run",
        "runtime/loop.py:ControlLoop.run > runtime/loop.py:ControlLoop._paced_step",
        "runtime/loop.py:ControlLoop._paced_step > runtime/loop.py:ControlLoop.step",
        "runtime/loop.py:ControlLoop.step > runtime/robots/driver.py:Driver.observe",
        "runtime/loop.py:ControlLoop.step > runtime/guard.py:Guard.inspect",
        "runtime/loop.py:ControlLoop.step > runtime/decoding.py:Decoder.decide",
        "runtime/decoding.py:Decoder.decide > runtime/decoding.py:Decoder._tokenize",
        "runtime/decoding.py:Decoder._tokenize > runtime/tokenizer.py:Tokenizer.encode",
        "runtime/decoding.py:Decoder.decide > runtime/decoding.py:Decoder._infer",
        "runtime/decoding.py:Decoder._infer > runtime/engines/onnx.py:OnnxEngine.tick",
        "runtime/loop.py:ControlLoop.step > runtime/guard.py:Guard.admit",
        "runtime/loop.py:ControlLoop.step > runtime/robots/driver.py:Driver.command",
        "runtime/robots/driver.py:Driver.command > runtime/inner_loop.py:InnerLoop.accept",
    ),
)
BUNDLE = Walk(
    "a bundle through compile (gatort compile)",
    (
        "launch/commands/compile.py:compile_engine > export/compile.py:compile_bundle",
        "export/compile.py:compile_bundle > runtime/bundle.py:verify",
        "launch/commands/compile.py:compile_engine > launch/commands/compile.py:_hold_out",
        "launch/commands/compile.py:_hold_out > launch/progress.py:show_policy_episodes",
        "export/compile.py:compile_bundle > export/compile.py:_build",
        "export/compile.py:_build > export/precision.py:convert",
        "export/compile.py:_build > export/compile.py:_compare",
        "export/compile.py:_compare > export/compare.py:compare_actions",
        "export/compile.py:_build > export/to_tensorrt.py:build_engine",
        "export/compile.py:_build > runtime/engines/cache.py:EngineCache.store",
    ),
)
WALKS = (BUNDLE, OBSERVATION)


def rooms(walk: Walk) -> list[str]:
    """Return the files that a walk passes, in order, each once."""
    ends = [end.partition(":")[0] for hop in walk.hops for end in hop.split(" > ")]
    return list(dict.fromkeys(ends))


def broken_hops(walk: Walk, sources: Iterable[Source]) -> list[str]:
    """Return a sentence for each hop that the files do not contain or that nothing leads to."""
    trees = {source.name: source.tree for source in sources}
    reached = {walk.hops[0].split(" > ")[0]}
    breaches = []

    for hop in walk.hops:
        caller, callee = hop.split(" > ")
        if caller not in reached:
            breaches.append(f"Walk of {walk.name}: no hop before {hop!r} reaches its start.")
        reached.add(callee)
        breaches += [f"Walk of {walk.name}: {fault}" for fault in _faults(caller, callee, trees)]

    return breaches


def _faults(caller: str, callee: str, trees: dict[str, ast.Module]) -> list[str]:
    calling, called = _definition(caller, trees), _definition(callee, trees)
    faults = [
        f"{end} is not defined there."
        for end, found in ((caller, calling), (callee, called))
        if found is None
    ]
    name = callee.rpartition(":")[2].rpartition(".")[2]
    if calling is not None and called is not None and name not in _calls(calling):
        faults.append(f"{caller} does not call {name} of {callee.partition(':')[0]}.")
    return faults


def _definition(end: str, trees: dict[str, ast.Module]) -> ast.AST | None:
    file, _, path = end.partition(":")
    node: ast.AST | None = trees.get(file)
    for name in path.split("."):
        node = next(
            (
                child
                for child in getattr(node, "body", ())
                if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name
            ),
            None,
        )
    return node


def _calls(function: ast.AST) -> set[str]:
    """Return the last names of all calls in a function, and of the functions that it hands on."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            names |= {_last(node.func)} | {_last(argument) for argument in node.args}
    return names


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
