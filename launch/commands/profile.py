"""`gatort profile`: will it hold the budget, and what ate it?"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field, NonNegativeInt

from gatort.launch.latency_picture import latency_picture
from gatort.launch.options import (
    LoopOptions,
    resolve,
)
from gatort.launch.report import (
    latency_record,
    percentile_record,
    percentile_table,
    progress_bar,
    require_writable,
    screen,
    write_json,
)
from gatort.launch.roofline import (
    assess,
    passes_p50_ms,
)
from gatort.policies.loading import load_policy
from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
    VirtualClock,
)
from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import MissingDependency
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.loop import TickRecord
from gatort.runtime.machine import this_machine
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.packages import installed_version
from gatort.runtime.realtime import apply
from gatort.runtime.robot import Robot
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.telemetry import (
    LATENESS,
    TICK,
    Telemetry,
)
from gatort.sim.make import simulated_robot, simulator_installed

Source = Literal["auto", "mujoco", "scripted"]


def profile(
    *,
    options: Annotated[LoopOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    ticks: Annotated[int, Field(ge=1, le=1_000_000)] = 1200,
    paced: Annotated[bool, Parameter(negative="--flat-out")] = True,
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0,
    max_misses: NonNegativeInt = 0,
    robot: Source = "auto",
    roofline: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time every stage of the control loop and say whether the budget holds.

    Exit status 1 when more than --max-misses ticks took longer than the budget or sent no command.

    Parameters
    ----------
    profile
        A launch profile: a TOML file, or the name of a shipped one; flags go before it. What only a run has is
        refused: robot, seconds, until, keys, prompt.
    ticks
        How many ticks to time, after two that warm up.
    paced
        Wake at the control rate as on the robot; flat out runs tick after tick, which flatters.
    budget_ms
        A longer tick is a miss.
    max_misses
        How many misses still pass.
    robot
        What is observed: the simulated arm, or random values, which leave the policy alone to be timed; auto takes the
        arm where MuJoCo is installed.
    roofline
        Time the other pace as well, measure this machine's memory and arithmetic, and say how near the passes come to
        what it could do, and what that would mean on an RTX 3090.
    json
        Write the figures to this file as well.
    plot
        Draw the figures into this .png.
    """
    options = resolve(LoopOptions, options, profile)
    require_writable(json, plot)
    if plot is not None and installed_version("matplotlib") is None:
        raise MissingDependency("--plot needs matplotlib: pip install 'gatort[trials]'")
    console = screen()
    if paced:
        console.print(f"timing {ticks} ticks at the control rate…", style="dim")
    measured = measure(options, ticks=ticks, paced=paced, budget_ms=budget_ms, source=robot)
    console.print(
        measured.sentence(max_misses),
        percentile_table(measured.telemetry.summary(), budget_ms),
        sep="\n",
    )
    console.print(str(this_machine()), style="dim")
    record = measured.record(max_misses)
    if roofline:
        console.print(
            "timing the other pace, then this machine's memory and arithmetic…", style="dim"
        )
        other = measure(options, ticks=ticks, paced=not paced, budget_ms=budget_ms, source=robot)
        found = assess(
            options, *(passes_p50_ms(each.telemetry) for each in _paced_first(measured, other))
        )
        console.print(*found.report(), sep="\n")
        record |= {"roofline": found.record(), "other_pace": other.record(max_misses)}
    write_json(json, record)
    if plot is not None:
        telemetry = measured.telemetry
        latency_picture(
            plot,
            measured.sentence(max_misses),
            telemetry.stages,
            telemetry.stage_durations_ns(),
            budget_ms,
        )
    return int(not measured.holds(max_misses))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a profile found."""

    bundle: str
    engine: str
    threads: int
    observations: str
    """`mujoco` or `scripted`."""
    paced: bool
    budget_ms: float
    ticks: int
    misses: int
    """Ticks over the budget, and deadlines skipped."""
    refused: int
    """Ticks that sent no command, for example because the action came later than the action delay allows."""
    telemetry: Telemetry
    """What the ticks cost, and how late they woke."""

    def holds(self, max_misses: int) -> bool:
        """Whether the budget holds: neither misses nor refused ticks are more than allowed."""
        return max(self.misses, self.refused) <= max_misses

    def sentence(self, max_misses: int) -> str:
        """The verdict in one line."""
        pace = "paced" if self.paced else "flat out"
        return (
            f"{self.ticks} ticks {pace}, {self.observations} observations, {self.engine}: "
            f"p99 {self.telemetry.percentiles(TICK).p99_ms:.1f} ms, "
            f"{self.misses} misses of {self.budget_ms:g} ms, {self.refused} refused: "
            f"the budget {'holds' if self.holds(max_misses) else 'does not hold'}"
        )

    def record(self, max_misses: int) -> dict[str, Any]:
        """The JSON form."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "telemetry"}
        return {
            **plain,
            "holds": self.holds(max_misses),
            "lateness_ms": percentile_record(self.telemetry.percentiles(LATENESS)),
            "latency_ms": latency_record(self.telemetry.summary()),
            "machine": asdict(this_machine()),
        }


class LiveBar(Onlooker):
    """How many ticks are done, drawn once a second, in the slack of a loop that never waits for it."""

    def __init__(self, ticks: int, every: int) -> None:
        super().__init__("progress bar")
        self._ticks, self._every, self._done = ticks, every, 0

    def count(self, _: TickRecord) -> None:
        """One more tick is done."""
        self._done += 1
        if self._done % self._every == 0:
            self._offered.set()

    def _show(self) -> None:
        with progress_bar("ticks", refresh=False) as progress:
            bar = progress.add_task("", total=self._ticks)
            for _ in self._offers():
                progress.update(bar, completed=self._done, refresh=True)


def _paced_first(one: Measurement, other: Measurement) -> tuple[Measurement, Measurement]:
    return (one, other) if one.paced else (other, one)


def measure(
    options: LoopOptions, *, ticks: int, paced: bool, budget_ms: float, source: Source
) -> Measurement:
    """Run the loop for so many ticks; a loop that its guard stops is armed again and goes on.

    Raises:
        BundleError, EngineError: the policy cannot be loaded.
        MissingDependency: the simulator was asked for and is absent.
    """
    policy = load_policy(options, Sampler(options.temperature, options.seed))
    clock: Clock = MonotonicClock() if paced else VirtualClock()
    simulated = source == "mujoco" or (source == "auto" and simulator_installed())
    robot: Robot = (
        simulated_robot("mujoco", policy.spec, clock, options.seed)
        if simulated
        else scripted_robot(policy.spec, clock, options.seed)
    )
    telemetry = Telemetry(
        policy.spec,
        ticks,
        budget_ns=round(budget_ms * 1e6),
        stepwise=policy.engine.stepwise,
    )
    loop = policy.control(robot, clock, telemetry=telemetry, collect_garbage=True)
    bar = (
        LiveBar(ticks, round(policy.spec.control_hz)) if paced else None
    )  # Flat out there is no slack to draw in.
    count = bar.count if bar else None
    with bar or nullcontext(), apply(options.realtime) as refused:
        for sentence in refused:
            print(sentence, file=sys.stderr)
        loop.run(ticks, count)
        while telemetry.ticks < ticks:
            clock.sleep_until_ns(clock.now_ns() + FADE_NS)  # Nothing is armed before it has faded.
            loop.run(ticks - telemetry.ticks, count)
    robot.close()
    return Measurement(
        bundle=policy.manifest.name if policy.manifest else "",
        engine=policy.engine.name,
        threads=options.threads,
        observations="mujoco" if simulated else "scripted",
        paced=paced,
        budget_ms=budget_ms,
        ticks=telemetry.ticks,
        misses=telemetry.misses,
        refused=telemetry.refused,
        telemetry=telemetry,
    )
