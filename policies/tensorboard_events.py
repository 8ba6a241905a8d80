"""Scalars over training steps, as event files that TensorBoard reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from gatort.runtime.clock import wall_clock_ns


class TensorboardEvents:
    """Event file in a folder, which is made with the first scalar."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of one step."""
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        wall_s = wall_clock_ns() * 1e-9
        self._writer.add_event(Event(wall_time=wall_s, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
