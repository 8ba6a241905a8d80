"""A live run: one policy drives one robot, recorded, until success, the end of its time, or a
stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gatort.runtime.recording.causes import Typical
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.slow_ticks import MOST_SLOW, SlowTick, SlowTicks
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.takeover.takeover import Takeover
from gatort.runtime.takeover.wish import TakeoverDevice

from .clock import Clock
from .contention import Contention, ProcessorReading
from .errors import DeviceError, RobotError
from .guard import Refusal
from .loop import PromptFrame, TickRecord
from .policy import Policy
from .robot import Robot
from .robots.dry_run import DryRunRobot
from .safety import AT_ROBOT, State
from .telemetry import TICK, Telemetry

KEPT_TICKS = 72_000
"""One hour at 20 Hz: number of the newest ticks whose stages are kept one by one."""


def ignore_tick(_: TickRecord) -> None:
    """Do nothing: the default callback."""


class LiveRun:
    """One policy, one robot, and the outcome of their run."""

    def __init__(
        self,
        policy: Policy,
        robot: Robot,
        clock: Clock,
        *,
        ticks: int,
        until_success: bool = True,
        prompt: Sequence[PromptFrame] = (),
        takeover: TakeoverDevice | None = None,
    ) -> None:
        """Prepare the loop and put the prompt into the context.

        Args:
            policy: policy that drives.
            robot: robot to drive.
            clock: clock of the loop and of its telemetry.
            ticks: largest number of ticks.
            until_success: end the run at the task's success.
            prompt: frames that precede the first observation.
            takeover: device with which a person may take the arm.

        Raises:
            SpecError: the robot's keys or actuators are not those of the policy.
            ConfigError: a person can take over no such robot.
        """
        self.policy = policy
        self.robot = robot
        self.clock = clock
        self.ticks = ticks
        self.prompt = prompt
        self.is_dry = isinstance(robot, DryRunRobot)
        """True if nothing drives the robot. Its readings may then repeat."""
        self.telemetry = Telemetry(
            policy.spec,
            min(ticks, KEPT_TICKS),
            clock=clock,
            stepwise=policy.engine.stepwise,
        )
        self.loop = policy.control(robot, clock, telemetry=self.telemetry, collect_garbage=True)
        self.loop.guard.expects_motion = not self.is_dry
        self.loop.prime(prompt)
        if takeover is not None:
            self.loop.takeover = Takeover(takeover, robot.interface, clock)

        self.stopped = False
        """True if the guard, the watchdog or a failure of the robot or the GPU ended the run."""
        self.interrupted = False
        """True if the operator ended the run."""
        self.interrupted_by: str | None = None
        """Clause that says how, if it was not at the terminal."""
        self.failure: str | None = None
        """Sentence on the failure that ended the run."""
        self.state = State.DISARMED
        """State of guard or robot after the last tick, whichever is further from RUN."""
        self.scheduling = "ordinary scheduling"
        """Scheduling of the loop's thread, for displays and reports."""
        self.contention: Contention | None = None
        """Competition for the processor during the run; `None` before its end."""
        self._slow = SlowTicks(
            self.telemetry.stages, self.telemetry.budget_ns, policy.spec.period_ns, MOST_SLOW
        )
        self._stop_sentence: str | None = None
        self._until_success = until_success
        self._on_tick: Callable[[TickRecord], None] = ignore_tick
        self._record: TickRecorder | None = None

    @property
    def has_task(self) -> bool:
        """True if success can be expected: a motion without a policy has no task."""
        return self.policy.manifest is not None

    @property
    def budget_ms(self) -> float:
        """Longest tick that is not a miss."""
        return self.telemetry.budget_ns * 1e-6

    @property
    def deadline_ms(self) -> float:
        """Age of an observation at which the answer to it comes too late."""
        return self.policy.spec.action_delay_ms

    @property
    def refusals(self) -> dict[str, int]:
        """Number of ticks without a command, by reason; skipped ticks count as misses alone."""
        counted = self.loop.guard.refused.items()
        return {str(reason): count for reason, count in counted if reason is not Refusal.SKIPPED}

    @property
    def seconds(self) -> float:
        """Finished ticks as time on the robot's side, skipped deadlines not counted."""
        return self.telemetry.ticks / self.policy.spec.control_hz

    @property
    def ending(self) -> str | None:
        """Cause that ended the run early, or `None`."""
        if self.failure is not None:
            return self.failure
        if self.interrupted:
            how = f" ({self.interrupted_by})" if self.interrupted_by is not None else ""
            return f"stopped by the operator{how}"
        return self._stop_sentence

    @property
    def processor_sentence(self) -> str | None:
        """Causes of missed deadlines in one line.

        `None` if no deadline was missed, unless the run was stopped by other than its operator.
        """
        refused = self.loop.guard.refused
        late = self.telemetry.misses + refused[Refusal.LATE] + refused[Refusal.SKIPPED]
        by_operator = (self.robot.stop_reason or "").startswith(AT_ROBOT)
        if self.contention is None or not (
            late or (self.stopped and not by_operator and self.contention.causes)
        ):
            return None
        tick_ms = self.telemetry.percentiles(TICK).p50_ms
        return self.contention.sentence(self.scheduling, tick_ms)

    @property
    def missed_ticks(self) -> list[SlowTick]:
        """The worst missed or refused ticks, each between its neighbours and with its cause."""
        names = self.telemetry.stages
        typical_ms = {name: self.telemetry.percentiles(name).p50_ms for name in (TICK, *names)}
        typical = Typical(
            tick_ns=typical_ms[TICK] * 1e6,
            stages_ns={name: typical_ms[name] * 1e6 for name in names},
            passes=self.telemetry.passes.quantile(0.5),
        )
        return self._slow.misses(typical)

    def run(self, recorder: Recorder, on_tick: Callable[[TickRecord], None] = ignore_tick) -> None:
        """Run until success, the end of the time, or a stop; Ctrl-C is the operator's stop.

        Args:
            recorder: recorder of the prompt, the ticks and a failure.
            on_tick: called in the slack after each tick with its record.

        Raises:
            ObservationError, RobotError, DeviceError: robot or GPU failed before the first tick.
        """
        self._on_tick = on_tick
        self._record = TickRecorder(recorder, self.loop)
        self._record.prompt(self.clock.now_ns(), self.prompt)
        before = ProcessorReading.now()
        try:
            self.loop.run(self.ticks, self._look)
        except KeyboardInterrupt:
            self.interrupted = True
        except (RobotError, DeviceError) as error:
            if not self.telemetry.ticks:
                raise
            component = "robot" if isinstance(error, RobotError) else "engine"
            self.failure = f"the {component} failed ({error})"
            self.stopped = True
            recorder.fault(self.clock.now_ns(), component, str(error))
        self.contention = Contention.between(before, ProcessorReading.now())

    def _look(self, record: TickRecord) -> bool:
        """Record a tick in its slack; return true to end the run."""
        if self._record is not None:
            passes = record.decision.passes if record.decision is not None else 0
            self._slow.add(self._record.record(record), passes)
        self.state = self.loop.state
        self.stopped = self.loop.stopped
        self._stop_sentence = self.loop.stop_sentence
        self._on_tick(record)
        return self._until_success and self.robot.succeeded
