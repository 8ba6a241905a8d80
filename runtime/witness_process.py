"""A computing witness in a process of its own, beside a measurement.

The process writes when each piece of work began and how long it took. All processes of one machine
share the monotonic clock, so a measurement asks for the records of exactly its own stretch of time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Self

import numpy as np

from .clock import MonotonicClock
from .errors import GatortError
from .process_name import name_process
from .realtime import RealtimeConfig, apply
from .witness import PERIOD_NS, Witness, WitnessReport

START_NS = 20_000_000_000
"""Longest time that the process may take to its first record."""
RECORD_BYTES = 16
"""Two integers of 64 bits: when the work began and how long it took, in ns."""
REALTIME = RealtimeConfig(fifo_priority=1)
"""In front of every ordinary process, and behind the threads of gatort, which it must not delay."""


class WitnessProcess:
    """A witness beside a measurement, in a process of its own that ends with its parent.

    Start it before the measurement asks for real-time priorities.
    """

    def __init__(self) -> None:
        self._clock = MonotonicClock()

    def __enter__(self) -> Self:
        """Start the process and wait until it has done its work once.

        Raises:
            GatortError: the process ended, or it did no work in time.
        """
        self._records = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", "gatort.runtime.witness_process", str(os.getpid())]
        # A session of its own: Ctrl-C at the terminal is for this process alone.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._records, start_new_session=True
        )
        deadline_ns = self._clock.now_ns() + START_NS
        while self.between(0, self._clock.now_ns()) is None:
            if self._process.poll() is not None or self._clock.now_ns() > deadline_ns:
                self.close()
                raise GatortError("expected the witness's process to compute, found no record")
            self._clock.sleep_until_ns(self._clock.now_ns() + PERIOD_NS // 10)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        self._records.close()

    def between(self, began_ns: int, ended_ns: int) -> WitnessReport | None:
        """Report the work begun between two instants of the monotonic clock; `None` without any."""
        file = self._records.fileno()
        size = os.fstat(file).st_size // RECORD_BYTES * RECORD_BYTES
        records = np.frombuffer(os.pread(file, size, 0), np.int64).reshape(-1, 2)

        inside = (records[:, 0] >= began_ns) & (records[:, 0] < ended_ns)
        return WitnessReport.of_ns(records[inside, 1]) if inside.any() else None


def main() -> None:
    """Write (began_ns, took_ns) of every period to standard output until the parent ends."""
    parent = int(sys.argv[1])
    name_process("witness")
    witness = Witness(MonotonicClock())
    with apply(REALTIME):
        while os.getppid() == parent:
            os.write(1, np.array(witness.period(), np.int64).tobytes())


if __name__ == "__main__":
    main()
