"""Reports of a live run to its console, and the rule of a run that a page must hold."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError
from gatort.runtime.facts import Fact
from gatort.runtime.live_run import LiveRun
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote.client import remote_of
from gatort.runtime.robots.cameras.rig import camera_facts, cameras_of
from gatort.runtime.safety import State
from gatort.runtime.telemetry import TICK

from .link import UNWATCHED_NS, ConsoleLink
from .messages import (
    LARGEST_PICTURE_BYTES,
    ActuatorBar,
    CameraImage,
    Checklist,
    Event,
    Opening,
    Status,
    Tick,
)

STATUS_NS: Final = 250_000_000
"""Time between two statuses."""
PICTURE_NS: Final = 500_000_000
"""Time between two pictures. The cameras take turns."""
UNWATCHED: Final = f"no page that holds the run was heard for {UNWATCHED_NS * 1e-9:g} s"


class RunReporter:
    """Tells a console about a live run, in the slack after each tick."""

    def __init__(
        self,
        link: ConsoleLink,
        live: LiveRun,
        *,
        title: str,
        must_be_held: bool = False,
    ) -> None:
        """Tell the opening.

        Args:
            link: console of the run.
            live: run that has not begun.
            title: bundle, engine and robot.
            must_be_held: stop the run when no page holds it.
        """
        self._link = link
        self._live = live
        self.recorder: Recorder | None = None
        """Recorder of the run, whose faults are shown."""
        self._cameras = cameras_of(live.robot)
        self._remote = remote_of(live.robot)
        self._must_be_held = must_be_held
        self._state = State.DISARMED
        self._status_ns = self._picture_ns = 0
        self._pictures = 0
        spec = live.policy.spec
        link.offer(
            Opening(
                "run",
                title,
                tuple(
                    ActuatorBar(each.name, each.unit, each.low, each.high)
                    for each in spec.actuators
                ),
                live.telemetry.stages,
                spec.control_hz,
                live.budget_ms,
                live.deadline_ms,
                live.ticks / spec.control_hz,
                must_be_held,
            )
        )
        link.offer(self._status())

    @property
    def stopped_by(self) -> str | None:
        """Clause that says who stopped the run in the browser; `None` if nobody did."""
        self._link.listen()
        return self._link.stopped_by

    @property
    def _successes(self) -> int:
        """Number of times that the task has succeeded."""
        return int(self._live.robot.succeeded) if self._remote is None else self._remote.successes

    @property
    def dropped(self) -> int:
        """Number of messages that did not reach the console."""
        return self._link.dropped

    def show(self, facts: Sequence[Fact]) -> None:
        """Show the checklist."""
        self._link.offer(Checklist(tuple(facts)))

    def armed(self, how: str) -> None:
        """Tell who consented to motion, and how. Check that the page still holds the run.

        Raises:
            ConfigError: no page holds it any more.
        """
        if self._must_be_held and not self._link.is_held:
            raise ConfigError(f"not armed: {UNWATCHED}; start again")
        self._link.offer(Event.now(how, "armed"))

    def look(self, tick: TickRecord) -> None:
        """Tell a tick, a change of state, and the status when it is due. Never wait.

        A run that no page holds gets the signal of Ctrl-C.
        """
        self._link.offer(self._tick(tick))
        self._offer_picture(tick)
        state = self._live.state
        if state is not self._state:
            self._link.offer(Event.change(self._state, state, tick.refusal))
            self._state = state
        now_ns = self._live.clock.now_ns()
        if now_ns - self._status_ns >= STATUS_NS:
            self._status_ns = now_ns
            self._link.offer(self._status())
        if self._must_be_held and not self._link.is_held and self._link.stopped_by is None:
            self._link.stopped_by = UNWATCHED
            signal.raise_signal(signal.SIGINT)

    def end(self) -> None:
        """Tell the last state and the cause of the end, and close the console."""
        live = self._live
        live.interrupted_by = self.stopped_by
        # The robot stopped after the last tick, and its state is newer than the loop's.
        last = live.robot.state if live.telemetry.ticks else live.state
        ended = f"the run ended: {live.ending or 'by itself'}"
        self._link.close(
            self._status(last),
            *([Event.change(self._state, last)] if last is not self._state else []),
            Event.now(ended, "end"),
        )

    def _offer_picture(self, tick: TickRecord) -> None:
        """Offer a picture when it is due. The cameras take turns."""
        interface = self._live.robot.interface
        places = interface.pictures
        is_due = tick.wake.woke_ns - self._picture_ns >= PICTURE_NS
        if not places or not is_due or tick.observation is None:
            return
        self._picture_ns = tick.wake.woke_ns
        self._pictures += 1
        place = places[self._pictures % len(places)]
        pixels = thinned(tick.observation.values[place])
        height, width, _ = pixels.shape
        name = interface.observations[place].name
        self._link.offer(CameraImage(name, tick.wake.tick, width, height, pixels.tobytes()))

    def _tick(self, tick: TickRecord) -> Tick:
        telemetry = self._live.telemetry
        stamps_ns = telemetry.stamps[(telemetry.ticks - 1) % len(telemetry.stamps)]
        stages_ms = np.where(stamps_ns[1:] > 0, np.diff(stamps_ns), 0) * 1e-6  # (S,)
        return Tick(
            number=tick.wake.tick,
            at_ns=tick.wake.woke_ns,
            took_ms=float(stages_ms.sum()),
            lateness_ms=tick.wake.lateness_ns * 1e-6,
            stages_ms=stages_ms.tolist(),
            applied=[] if tick.observation is None else tick.observation.applied.tolist(),
            asked=[] if tick.decision is None else tick.decision.action.tolist(),
            sent=[] if tick.command is None else tick.command.values.tolist(),
            refusal=tick.refusal or "",
        )

    def _status(self, state: State | None = None) -> Status:
        live = self._live
        telemetry = live.telemetry
        now_ns = live.clock.now_ns()
        rate = telemetry.rate
        took = telemetry.percentiles(TICK)
        return Status(
            at_ns=now_ns,
            state=state or live.state,
            elapsed_s=live.seconds,
            rate_hz=(rate.now_hz, rate.average_hz, rate.worst_second_hz),
            tick_ms=(took.p50_ms, took.p99_ms, took.max_ms),
            misses=telemetry.misses,
            refused=live.refusals,
            cause=live.ending or live.loop.refusal or "",
            successes=self._successes,
            task=live.has_task,
            facts=camera_facts(self._cameras, now_ns),
            recording_fault=(self.recorder and self.recorder.degraded) or "",
            dropped=self._link.dropped,
        )


def thinned(picture: NDArray[Any]) -> NDArray[Any]:
    """Return a picture (H, W, 3), or every k-th of its pixels, so that it fits into a packet."""
    step = 1
    while -(-picture.shape[0] // step) * -(-picture.shape[1] // step) * 3 > LARGEST_PICTURE_BYTES:
        step += 1
    return picture[::step, ::step]
