"""Workers share seeds, hand errors to the caller, and end with their parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial

import pytest

from gatort.sim.workers import spread

LONGEST_WAIT_S = 60
PARENT = """
import sys
from functools import partial
from gatort.sim.workers import spread

if __name__ == "__main__":
    # Each worker's preparation writes to the standard output that the test holds, and then blocks.
    prepare = partial(eval, "print('ready', flush=True) or __import__('threading').Event().wait()")
    list(spread(prepare, [1, 2], 2))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_every_seed_is_worked_on_once(workers: int) -> None:
    # A builtin class as work, because a worker cannot import a test's function.
    prepare = partial(getattr, Fraction, "from_float")
    assert sorted(spread(prepare, [3, 1, 2], workers)) == [1, 2, 3]


def test_without_seeds_no_work_is_prepared() -> None:
    assert list(spread(partial(divmod, 1, 0), [], 2)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_preparation_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(spread(partial(divmod, 1, 0), [1, 2], workers))  # type: ignore[arg-type]


def test_workers_end_when_their_parent_is_killed() -> None:
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=write) as parent:
        os.close(write)
        assert os.read(read, 5) == b"ready"
        os.kill(parent.pid, signal.SIGKILL)

    # The pipe ends once no process holds its other end.
    while select.select([read], [], [], LONGEST_WAIT_S)[0]:
        if not os.read(read, 100):
            break
    else:
        pytest.fail(f"a worker outlived its parent by {LONGEST_WAIT_S} s")
    os.close(read)
