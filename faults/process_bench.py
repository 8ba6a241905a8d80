"""The part that every bench of real processes has: a clock, folders, and the end of it all."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from gatort.runtime.clock import Clock, MonotonicClock


class ProcessBench:
    """A bench whose processes and files end with its `with` block."""

    def __init__(self) -> None:
        """Prepare; no process is started yet."""
        self.clock: Clock = MonotonicClock()
        self.not_granted: list[str] = []
        """Requests for scheduling that the operating system refused."""
        self._stack = ExitStack()
        folder = tempfile.TemporaryDirectory(prefix="gatort-faults-")
        self.folder = Path(self._stack.enter_context(folder))
        self._folders = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end_arm()
        self._stack.close()

    def end_arm(self) -> None:
        """End the processes of the arm that faults share, if there is one."""

    def new_folder(self) -> Path:
        """Return a path that nothing else uses; it is not made."""
        self._folders += 1
        return self.folder / str(self._folders)

    def wait(self, duration_ns: int) -> None:
        """Wait for a duration."""
        self.clock.sleep_until_ns(self.clock.now_ns() + duration_ns)
