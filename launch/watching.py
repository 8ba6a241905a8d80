"""Watch a live run: the live table, and the positions of a simulated robot for window and film."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from gatort.console.reporting import RunReporter
from gatort.runtime.live_run import KEPT_TICKS, LiveRun
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.robot import Observation
from gatort.runtime.safety import State
from gatort.runtime.telemetry import TICK
from gatort.sim.film import film
from gatort.sim.robot import SimulatedRobot
from gatort.sim.viewer import Viewer

from .live import PERIOD_NS, LiveTable, RunStatus
from .picture_track import PictureTrack


class FilmTrack:
    """Joint positions after each of the first KEPT_TICKS ticks, in memory that is fixed from the
    start.

    Args:
        robot: robot of the run.
        ticks: largest number of ticks.
        filmed: keep the policy's pictures too, for a film.
    """

    def __init__(self, robot: SimulatedRobot, ticks: int, *, filmed: bool = False) -> None:
        self._robot = robot
        kept = min(ticks, KEPT_TICKS) if filmed else 0
        self._pictures = PictureTrack(robot.interface.observations, kept)
        self._kept = np.zeros((min(ticks, KEPT_TICKS), len(robot.positions)))  # (ticks, Q)
        self._count = 0
        self._viewer: Viewer | None = None

    @property
    def positions(self) -> NDArray[np.float64]:
        """Positions (N, Q) after each kept tick."""
        return self._kept[: self._count]

    def keep(self, observation: Observation | None) -> None:
        """Keep a tick's positions and pictures, and offer them to the window without waiting."""
        positions = self._robot.positions
        self._pictures.keep(observation)
        if self._count < len(self._kept):
            self._kept[self._count] = positions
            self._count += 1
        if self._viewer is not None:
            self._viewer.offer(positions, self._pictures.newest)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Show the positions in a window until the end of the context."""
        with Viewer(self._robot.task.scene, self._robot.layout) as self._viewer:
            yield
        self._viewer = None

    def draw(self, path: Path, hz: int) -> None:
        """Draw the kept positions into a film at `hz` frames a second, and say so."""
        print(f"drawing {path} …", file=sys.stderr)
        robot = self._robot
        film(path, robot.task.scene, robot.layout, self.positions, hz, self._pictures.pictures)


class RunWatcher:
    """Live table and film track of a run, fed in the slack after each tick."""

    def __init__(
        self,
        live: LiveRun,
        recorder: Recorder,
        title: str,
        console: Console,
        track: FilmTrack | None,
        *,
        blind: bool = False,
        reporter: RunReporter | None = None,
    ) -> None:
        """Prepare.

        Args:
            live: run to watch.
            recorder: recorder of the run, whose faults are shown at once.
            title: bundle, engine and robot.
            console: console of the live table.
            track: track of a simulated robot's positions.
            blind: leave durations and passes out of the table.
            reporter: tells the console in the browser.
        """
        self._blind = blind
        self._live = live
        self._reporter = reporter
        if reporter is not None:
            reporter.recorder = recorder
        self._track = track
        self._recorder = recorder
        self._title = title
        self._table = LiveTable(console)
        self._offered_ns = 0

    @contextmanager
    def shown(self, *, viewer: bool) -> Iterator[None]:
        """Show the table, and with `viewer` a window, until the end of the context."""
        with ExitStack() as stack:
            if viewer and self._track is not None:
                stack.enter_context(self._track.window())
            stack.enter_context(self._table)
            yield
            if self._reporter is not None:
                self._reporter.end()
            self._table.offer(self._status())

    def look(self, tick: TickRecord) -> None:
        """Keep the tick's positions and pictures, and tell everybody who watches.

        The table gets a status four times a second.
        """
        if self._track is not None:
            self._track.keep(tick.observation)
        now_ns = self._live.clock.now_ns()
        if now_ns - self._offered_ns >= PERIOD_NS:
            self._offered_ns = now_ns
            self._table.offer(self._status())
        if self._reporter is not None:
            self._reporter.look(tick)

    def _status(self) -> RunStatus:
        live = self._live
        telemetry = live.telemetry
        takeover = live.loop.takeover
        refusal = live.loop.refusal if live.state is not State.DISARMED else None
        return RunStatus(
            title=f"{self._title}, {live.scheduling}",
            elapsed_s=live.seconds,
            longest_s=live.ticks / live.policy.spec.control_hz,
            rate=telemetry.rate,
            tick=telemetry.percentiles(TICK),
            passes=telemetry.passes,
            budget_ms=live.budget_ms,
            deadline_ms=live.deadline_ms,
            misses=telemetry.misses,
            refused=live.refusals,
            state=live.state,
            cause=live.ending or refusal,
            recording_fault=self._recorder.degraded,
            succeeded=live.robot.succeeded if live.has_task else None,
            blind=self._blind,
            has_arm=takeover.status if takeover is not None else None,
            by_person=takeover is not None and takeover.by_person,
        )
