"""Measure the control loop for `gatort profile`: run ticks on a robot in this process and count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gatort.policies.loading import load_policy
from gatort.runtime.clock import Clock, MonotonicClock, VirtualClock
from gatort.runtime.contention import Contention, ProcessorReading
from gatort.runtime.decoding import Sampler
from gatort.runtime.guard import Refusal
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.machine import this_machine
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.policy import Policy
from gatort.runtime.printable import printable
from gatort.runtime.realtime import apply
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.telemetry import LATENESS, TICK, Telemetry
from gatort.runtime.witness import WitnessReport
from gatort.runtime.witness_process import WitnessProcess
from gatort.runtime.wording import counted
from gatort.sim.make import make_robot, simulator_installed
from gatort.sim.tasks import task_of

from .options import LoopOptions
from .report import counts, latency_record, passes_record, percentile_record, progress_bar

Source = Literal["auto", "mujoco", "scripted"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of a profile."""

    bundle: str
    """Name of the policy's bundle."""
    engine: str
    """Name of the engine."""
    threads: int
    """CPU threads of one pass."""
    observations: str
    """Source of the observations: `mujoco` or `scripted`."""
    paced: bool
    """True if the loop woke at the control rate, false if tick followed tick."""
    budget_ms: float
    """Longest tick that is not a miss."""
    ticks: int
    """Number of ticks, refused ticks included."""
    misses: int
    """Number of ticks over the budget and of skipped deadlines."""
    deadline_ms: float
    """Age of an observation at which the answer to it comes too late."""
    refused: int
    """Number of ticks without a command, for example because the action came too late."""
    interrupted: bool
    """True if Ctrl-C ended the measurement before the last tick."""
    refusals: dict[str, int]
    """Number of ticks without a command, by reason."""
    scheduling: str
    """Scheduling of the loop's thread."""
    processor: Contention
    """Competition for the processor during the measurement."""
    witness: WitnessReport | None
    """Pauses of the machine during a paced measurement; `None` for ticks flat out."""
    telemetry: Telemetry
    """Durations of stages, and lateness of wake-ups."""

    def holds(self, max_misses: int) -> bool:
        """Return true if neither misses nor refused ticks exceed the allowed number."""
        return max(self.misses, self.refused) <= max_misses

    def sentence(self, max_misses: int) -> str:
        """Return the verdict in one line."""
        pace = "paced" if self.paced else "flat out"
        pace += ", interrupted" if self.interrupted else ""
        return (
            f"{counted(self.ticks, 'tick')} {pace}, {self.observations} observations, "
            f"{self.engine}: p99 {self.telemetry.percentiles(TICK).p99_ms:.1f} ms, "
            f"{counted(self.misses, 'miss', 'misses')} of {self.budget_ms:g} ms, "
            f"{self.refused} refused{counts(self.refusals)}, "
            f"action deadline {self.deadline_ms:g} ms: "
            f"the budget {'holds' if self.holds(max_misses) else 'does not hold'}"
        )

    @property
    def processor_sentence(self) -> str | None:
        """Causes of missed deadlines in one line, or `None` if no deadline was missed."""
        late = self.misses + self.refusals.get(Refusal.LATE, 0)
        if not late:
            return None
        return self.processor.sentence(self.scheduling, self.telemetry.percentiles(TICK).p50_ms)

    def record(self, max_misses: int) -> dict[str, Any]:
        """Return the JSON form."""
        nested = ("witness", "telemetry", "processor")
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in nested}
        return {
            **plain,
            "witness": _witness_record(self.witness) if self.witness else None,
            "processor": asdict(self.processor),
            "holds": self.holds(max_misses),
            "lateness_ms": percentile_record(self.telemetry.percentiles(LATENESS)),
            "latency_ms": latency_record(self.telemetry.summary()),
            "durations_ms": (self.telemetry.tick_durations_ns() * 1e-6).round(4).tolist(),
            "passes": passes_record(self.telemetry.passes),
            "machine": asdict(this_machine()),
        }


def _witness_record(witness: WitnessReport) -> dict[str, float]:
    return {**asdict(witness), "pause_ms": witness.pause_ms}


class LiveBar(Onlooker):
    """Progress bar, drawn once a second by a thread that the loop never waits for."""

    def __init__(self, ticks: int, every: int) -> None:
        super().__init__("progress bar")
        self._ticks = ticks
        self._every = every
        self._done = 0

    def count(self, _: TickRecord) -> None:
        """Count a finished tick."""
        self._done += 1
        if self._done % self._every == 0:
            self._offered.set()

    def _show(self) -> None:
        with progress_bar("ticks", refresh=False) as progress:
            bar = progress.add_task("", total=self._ticks)
            for _ in self._offers():
                progress.update(bar, completed=self._done, refresh=True)


def measure(
    options: LoopOptions, *, ticks: int, paced: bool, budget_ms: float, source: Source
) -> Measurement:
    """Run the loop for `ticks` ticks; a loop that its guard stops is armed again.

    Raises:
        BundleError, EngineError: the policy cannot be loaded.
        MissingDependency: the simulator was asked for and is absent.
    """
    policy = load_policy(options, Sampler(options.temperature, options.seed))
    spec = policy.spec
    clock: Clock = MonotonicClock() if paced else VirtualClock()
    simulated = source == "mujoco" or (source == "auto" and _can_simulate(policy, options))
    telemetry = Telemetry(
        spec,
        ticks,
        budget_ns=round(budget_ms * 1e6),
        stepwise=policy.engine.stepwise,
    )

    with ExitStack() as stack:
        # The witness starts before anything asks for a real-time priority.
        watched = stack.enter_context(WitnessProcess()) if paced else None
        robot = stack.enter_context(closing(_robot(simulated, policy, clock, options)))
        loop = policy.control(robot, clock, telemetry=telemetry, collect_garbage=True)
        # Flat out there is no slack to draw in.
        bar = stack.enter_context(LiveBar(ticks, round(spec.control_hz))) if paced else None
        # Ticks flat out never sleep: at a real-time priority they would leave a core to nobody.
        wishes = options.realtime
        if not paced and wishes.fifo_priority is None:
            wishes = wishes.model_copy(update={"fifo_priority": 0})
        scheduling = stack.enter_context(apply(wishes))
        for sentence in scheduling.refused:
            print(printable(sentence), file=sys.stderr)

        before = ProcessorReading.now()
        began_ns = clock.now_ns()
        interrupted = False
        try:
            _run(loop, clock, ticks, bar.count if bar else None)
        except KeyboardInterrupt:
            if not telemetry.ticks:
                raise
            interrupted = True
        processor = Contention.between(before, ProcessorReading.now())
        witness = watched.between(began_ns, clock.now_ns()) if watched else None

    return Measurement(
        bundle=policy.manifest.name if policy.manifest else "",
        engine=policy.engine.name,
        threads=options.threads,
        observations="mujoco" if simulated else "scripted",
        paced=paced,
        budget_ms=budget_ms,
        ticks=telemetry.ticks,
        misses=telemetry.misses,
        deadline_ms=spec.action_delay_ms,
        refused=telemetry.refused,
        interrupted=interrupted,
        refusals={
            str(reason): count
            for reason, count in loop.guard.refused.items()
            if reason is not Refusal.SKIPPED
        },
        scheduling=scheduling.name,
        processor=processor,
        witness=witness,
        telemetry=telemetry,
    )


def _can_simulate(policy: Policy, options: LoopOptions) -> bool:
    """Return true if the policy's task is known and MuJoCo is installed."""
    stated = policy.manifest.task if policy.manifest is not None else None
    return (stated or options.task) is not None and simulator_installed()


def _robot(simulated: bool, policy: Policy, clock: Clock, options: LoopOptions) -> Driver:
    if not simulated:
        return scripted_robot(policy.spec, clock, options.seed)
    task = task_of(policy.manifest, options.task)
    return make_robot("mujoco", task, clock, task.interface_for(policy.spec), options.seed)


def _run(
    loop: ControlLoop, clock: Clock, ticks: int, count: Callable[[TickRecord], None] | None
) -> None:
    """Run ticks until their number is reached, and arm the loop again each time that it stops."""
    telemetry = loop.telemetry
    loop.run(ticks, count)
    while telemetry.ticks < ticks:
        clock.sleep_until_ns(clock.now_ns() + FADE_NS)  # The robot refuses to arm while it fades.
        loop.run(ticks - telemetry.ticks, count)
