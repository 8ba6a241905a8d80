"""Workers share seeds, hand errors to the caller, and end with their parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from multiprocessing import active_children

import pytest
from tests.waiting import eventually

from gatort.runtime.errors import WorkerError
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


def test_workers_end_at_once_when_nobody_waits_for_them() -> None:
    # The worker with seed 2 never finishes.
    work = "lambda seed: __import__('threading').Event().wait() if seed == 2 else seed"
    results = spread(partial(eval, work), [1, 2], 2)
    assert next(results) == 1
    results.close()  # type: ignore[attr-defined]  # it is a generator
    eventually(lambda: not active_children())


def test_a_worker_that_is_killed_ends_in_one_sentence() -> None:
    prepare = partial(eval, "lambda seed: __import__('os').kill(__import__('os').getpid(), 9)")
    with pytest.raises(WorkerError, match=r"a worker was killed, .* give --workers 1"):
        list(spread(prepare, [1, 2], 2))


def test_shared_memory_that_cannot_be_written_ends_in_one_sentence() -> None:
    code = """
from functools import partial
from gatort.sim.workers import spread
if __name__ == "__main__":
    try:
        list(spread(partial(eval, "abs"), [1, 2], 2))
    except Exception as error:
        print(type(error).__name__, error)
"""
    mount = "mount -t tmpfs -o ro none /dev/shm"
    if subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("WorkerError cannot start workers: expected memory, processes")
    assert "found: Read-only file system; give --workers 1" in done.stdout
