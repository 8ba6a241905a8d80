"""One engine in a process of its own: python measure.py ENGINE VERB FOLDER PRECISION [SETTINGS].

`choices` prints the settings worth trying. `prepare` converts the checkpoint for the engine.
`serve` loads the engine, and times ticks for each line `PREFILL SECONDS` on standard input. Between
such lines the process sleeps: engines loaded side by side do not disturb one another. Answers are
lines of JSON that begin with `ANSWER`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from work import Engine, Run, Work

WARM_TICKS = 3
LEAST_TICKS = 5
MOST_TICKS = 400


def time_ticks(engine: Engine, work: Work, seconds: float) -> Run:
    """Fill the window, take the tokens of every prompt, warm up, then time ticks."""
    engine.fill(work)
    tokens = [_rewound_tick(engine, prompt)[0] for prompt in work.prompts]
    for prompt in work.prompts[:WARM_TICKS]:
        _rewound_tick(engine, prompt)

    ticks_ms: list[float] = []
    end = perf_counter() + seconds
    while len(ticks_ms) < LEAST_TICKS or (perf_counter() < end and len(ticks_ms) < MOST_TICKS):
        ticks_ms.append(_rewound_tick(engine, work.prompts[len(ticks_ms) % len(work.prompts)])[1])
    return Run(ticks_ms, tokens, engine.versions)


def _rewound_tick(engine: Engine, prompt: list[int]) -> tuple[list[int], float]:
    """Return the tokens, and the milliseconds without the rewinding."""
    engine.rewind()
    start = perf_counter()
    tokens = engine.tick(prompt)
    return tokens, (perf_counter() - start) * 1e3


def serve(engine: Engine, folder: Path) -> None:
    """Answer each line until standard input ends."""
    for line in sys.stdin:
        prefill, seconds = line.split()
        answer(asdict(time_ticks(engine, Work.load(folder, int(prefill)), float(seconds))))


def answer(value: object) -> None:
    """Print one line, apart from the output of libraries."""
    print(f"\nANSWER {json.dumps(value)}", flush=True)


def main() -> None:
    """Run the verb of the command line."""
    name, verb, folder, precision, *settings = sys.argv[1:]
    module = importlib.import_module(f"engine_{name}")
    if verb == "choices":
        answer(module.choices(precision, len(os.sched_getaffinity(0))))
    elif verb == "prepare":
        module.prepare(Path(folder), precision)
    else:
        serve(module.Engine(Path(folder), precision, json.loads(settings[0])), Path(folder))


if __name__ == "__main__":
    main()
