from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Mark, ScriptedEngine, no_mark
from gatort.runtime.errors import DeviceError, EngineError, ObservationError, RobotError
from gatort.runtime.guard import Refusal
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Observation
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, ObservationKey, PolicySpec
from gatort.runtime.telemetry import Telemetry

MS = 1_000_000
TOKENS = [FIRST_CONTINUOUS_ID + index for index in (512, 700, 300)]


class SlowEngine(ScriptedEngine):
    """A scripted engine whose pass `number` (counted from 0 after a reset) takes time or fails."""

    def __init__(self, clock: VirtualClock, faults: dict[int, int | EngineError]) -> None:
        self._clock, self._faults = clock, faults
        super().__init__(TOKENS)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        def mark_slowly() -> None:
            fault = self._faults.get(self.passes - 1, 0)
            if isinstance(fault, Exception):
                raise fault
            self._clock.advance_ns(fault)
            mark()

        super().tick(frame, mark_slowly)


class RecordingRobot(ScriptedRobot):
    """A scripted robot that keeps every command, and the values in effect at every inner step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sent: list[Command] = []
        self.trace: list[tuple[int, tuple[float, ...]]] = []

    def command(self, command: Command) -> None:
        self.sent.append(command)
        super().command(command)


Build = Callable[..., ControlLoop]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


@pytest.fixture
def build(spec: PolicySpec, dims: ModelDims, clock: VirtualClock) -> Build:
    def build(
        faults: dict[int, int | EngineError] | None = None,
        read: Callable[[int], Sequence[NDArray[Any]]] | None = None,
        trace: bool = False,
    ) -> ControlLoop:
        engine = SlowEngine(clock, {})
        policy = Policy.of(spec, dims, engine)
        engine._faults = faults or {}
        robot = RecordingRobot(spec, clock, read)
        if trace:
            robot.on_step = lambda at_ns, _, values: robot.trace.append((at_ns, tuple(values)))
        return policy.control(robot, clock, telemetry=Telemetry(spec, 16, clock))

    return build


def sent(loop: ControlLoop) -> list[Command]:
    assert isinstance(loop.robot, RecordingRobot)
    return loop.robot.sent


def test_a_run_sends_one_whole_action_per_tick_at_the_constant_delay(
    build: Build, clock: VirtualClock
) -> None:
    loop = build()
    started_ns = clock.now_ns()
    assert loop.run(20) == 20
    assert [command.apply_at_ns - started_ns for command in sent(loop)] == [
        (25 + 50 * k) * MS for k in range(20)
    ]
    expected = loop.decoder.tokenizer.decode_action(TOKENS)
    assert all(command.values.tolist() == expected.tolist() for command in sent(loop))
    assert clock.now_ns() == started_ns + 19 * 50 * MS
    assert loop.telemetry.misses == 0


def test_a_gpu_that_fails_ends_the_run_with_the_robot_stopped(build: Build) -> None:
    loop = build({7: DeviceError("the context is lost")})
    with pytest.raises(DeviceError, match="lost"):
        loop.run(20)
    assert len(sent(loop)) == 2
    assert loop.robot.state in STOPPED


def test_no_command_reaches_the_robot_that_the_guard_has_not_made(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, admitted = build({7: 30 * MS, 15: EngineError("broken")}), []
    admit = loop.guard.admit

    def watched(action: NDArray[np.float64], observation: Observation) -> Command | None:
        admitted.append(admit(action, observation))
        return admitted[-1]

    monkeypatch.setattr(loop.guard, "admit", watched)
    loop.run(20)
    made = [command for command in admitted if command is not None]
    assert 0 < len(made) < 20
    assert all(found is expected for found, expected in zip(sent(loop), made, strict=True))


def test_a_robot_that_reads_degrees_is_never_armed(build: Build, spec: PolicySpec) -> None:
    loop = build(read=lambda _: [np.full(key.shape, 60, key.dtype) for key in spec.observations])
    with pytest.raises(ObservationError, match="check the unit"):
        loop.run(3)
    assert loop.robot.state is State.DISARMED


def test_the_robot_is_stopped_when_a_run_ends(build: Build) -> None:
    loop = build()
    loop.run(3)
    assert loop.robot.state is State.SAFE


def test_the_robot_is_stopped_when_it_no_longer_answers(build: Build) -> None:
    def read(sequence: int) -> Sequence[NDArray[Any]]:
        if sequence == 4:
            raise RobotError("gone")
        return [np.zeros(3, np.float32), np.zeros(2, np.float32)]

    loop = build(read=read)
    with pytest.raises(RobotError, match="gone"):
        loop.run(10)
    assert loop.robot.state is State.SAFE


def test_the_robot_is_stopped_when_its_answer_to_consent_is_lost(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = build()
    arm = loop.robot.arm

    def unheard() -> None:
        arm()
        raise RobotError("no answer")

    monkeypatch.setattr(loop.robot, "arm", unheard)
    with pytest.raises(RobotError, match="no answer"):
        loop.run(10)
    assert loop.robot.state is State.SAFE


def nan_at(*sequences: int) -> Callable[[int], Sequence[NDArray[Any]]]:
    def read(sequence: int) -> Sequence[NDArray[Any]]:
        bad = np.nan if sequence in sequences else 0.0
        return [np.array([0, bad, 0], np.float32), np.zeros(2, np.float32)]

    return read


def test_one_nan_in_an_observation_refuses_its_tick_and_the_run_goes_on(build: Build) -> None:
    loop = build(read=nan_at(6))
    assert loop.run(10) == 10
    assert loop.guard.refused == {Refusal.OBSERVATION: 1}
    assert loop.refusal == "arm/position: expected finite values in 'rad', found nan"
    assert len(sent(loop)) == 9
    assert loop.decoder.frames == 9
    assert loop.telemetry.refused == 1


def test_two_in_a_row_end_the_run_in_safe(build: Build) -> None:
    loop = build(read=nan_at(6, 7))
    assert loop.run(10) == 6
    assert loop.guard.state is State.SAFE
    assert loop.robot.state is State.SAFE


def test_a_failed_pass_voids_the_whole_action(build: Build) -> None:
    loop = build({3 * 4 + 1: EngineError("broken")})
    ticks: list[TickRecord] = []
    loop.run(8, ticks.append)
    assert ticks[4].observation is not None
    assert ticks[4].command is None
    assert ticks[4].refusal == "broken"
    assert len(sent(loop)) == 7
    assert loop.guard.refused == {Refusal.ENGINE: 1}


def test_a_late_action_is_dropped_and_never_used_for_a_later_observation(build: Build) -> None:
    loop = build({3 * 4: 26 * MS})
    loop.run(8)
    assert loop.guard.refused == {Refusal.LATE: 1}
    answered = [command.observation_sequence for command in sent(loop)]
    # The first observation is the one that is made before arming.
    assert answered == [2, 3, 4, 5, 7, 8, 9]
    assert loop.decoder.frames == len(
        answered
    )  # Nor does it stand in the context as if it had been done.
    assert loop.telemetry.misses == 0


def test_a_hung_policy_ends_in_safe_on_both_sides_of_the_wire(build: Build) -> None:
    loop = build({3 * 4: 500 * MS}, trace=True)
    assert loop.run(20) < 20
    assert loop.guard.state in (State.SAFE, State.LATCHED)
    assert isinstance(loop.robot, RecordingRobot)
    assert loop.robot.trace[-1][1] == (0.0, 0.0, 0.0)


def test_a_tick_is_described_to_the_onlooker_who_may_end_the_run(build: Build) -> None:
    loop, seen = build(), []

    def look(tick: TickRecord) -> bool:
        seen.append(tick)
        return len(seen) == 3

    assert loop.run(100, look) == 3
    assert seen[0].decision is not None
    assert seen[0].decision.tokens.tolist() == TOKENS
    assert seen[2].command is sent(loop)[2]
    assert [tick.observation and tick.observation.sequence for tick in seen] == [2, 3, 4]


def test_a_prompt_fills_frames_before_the_first_observation(build: Build, spec: PolicySpec) -> None:
    loop = build()
    frame = ([np.zeros(3, np.float32), np.zeros(2, np.float32)], np.zeros(3))
    loop.prime([frame] * 4)
    assert loop.decoder.frames == 4
    loop.run(1)
    assert loop.decoder.frames == 5


def test_two_runs_on_a_virtual_clock_are_alike_to_the_nanosecond(
    build: Build, clock: VirtualClock
) -> None:
    traces = []
    for _ in range(2):
        loop = build({5: 30 * MS, 40: 7 * MS}, trace=True)
        started_ns = clock.now_ns()
        loop.run(40)
        assert isinstance(loop.robot, RecordingRobot)
        traces.append([(at_ns - started_ns, values) for at_ns, values in loop.robot.trace])
        clock.advance_ns(-clock.now_ns() % (1_000 * MS))
    assert traces[0] == traces[1]


def test_an_action_given_by_the_policy_alone_equals_the_loops(
    spec: PolicySpec, dims: ModelDims
) -> None:
    policy = Policy.of(spec, dims, ScriptedEngine(TOKENS))
    action = policy.act((np.zeros(3, np.float32), np.zeros(2, np.float32)))
    assert action.tolist() == policy.tokenizer.decode_action(TOKENS).tolist()
    assert policy.frames == 1


def test_a_thousand_ticks_leave_no_memory_behind(build: Build) -> None:
    loop = build()
    loop.run(100)
    tracemalloc.start()
    try:
        held = []
        for _ in range(2):
            assert isinstance(loop.robot, RecordingRobot)
            loop.robot.sent.clear()
            loop.run(500, lambda _: sent(loop).clear())
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 2_000


class OrderedEngine(ScriptedEngine):
    """Notes its calls."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(TOKENS)
        self.calls = calls

    def see(self, _: Frame) -> None:
        self.calls.append("engine sees")

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        self.calls.append(f"engine decides, seen: {frame.seen}")
        super().tick(frame, mark)


class OrderedRobot(ScriptedRobot):
    """Notes when it is read. At its second look a camera gives nothing."""

    def __init__(self, spec: PolicySpec, clock: VirtualClock, calls: list[str]) -> None:
        picture = np.zeros((16, 16, 3), np.uint8)
        super().__init__(spec, clock, lambda _: [picture, np.zeros(3, np.float32)])
        self.calls = calls

    def look(self) -> tuple[NDArray[Any], ...] | None:
        self.calls.append("look")
        if self.calls.count("look") == 2:
            raise ObservationError("camera/front: no fresh picture")
        return super().look()

    def observe(self) -> Observation:
        self.calls.append("observe")
        return super().observe()


def test_pictures_are_seen_before_the_joints_are_read(
    spec: PolicySpec, clock: VirtualClock
) -> None:
    keys = (
        ObservationKey(
            name="camera/front", shape=(16, 16, 3), dtype="uint8", unit="1", encoding="image"
        ),
        ObservationKey(name="x", shape=(3,), dtype="float32", unit="1", encoding="mu_law"),
    )
    seeing = PolicySpec(**{**spec.model_dump(exclude={"observations"}), "observations": keys})
    dims = ModelDims(
        layers=1, heads=2, head_size=16, width=32, ff_half_width=32, first_token_id=1024,
        local_positions=32,
    )  # fmt: skip
    calls: list[str] = []
    policy = Policy.of(seeing, dims, OrderedEngine(calls))
    loop = policy.control(OrderedRobot(seeing, clock, calls), clock)
    calls.clear()

    refusals = []
    loop.run(3, lambda record: refusals.append(record.refusal))
    whole = ["look", "engine sees", "observe", "engine decides, seen: True"]
    assert calls == ["observe", *whole, "look", *whole]
    assert refusals == [None, "camera/front: no fresh picture", None]
    assert loop.telemetry.stages[:3] == ("see", "observe", "tokenize")
