"""A recording tells the person's ticks from the policy's, and becomes an episode to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gatort.policies.demo import NO_WEIGHTS
from gatort.policies.demos import tokenize
from gatort.runtime.clock import VirtualClock
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError, RecordingError
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.recording.corrections import corrected_episode, write_corrections
from gatort.runtime.recording.messages import PolicyRecord, RunRecord, TickMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.replay import replay_recording
from gatort.runtime.recording.summary import summarise
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.robot import Observation
from gatort.runtime.robots.panda import (
    ACTION_DELAY_MS,
    ACTUATORS,
    CONTROL_HZ,
    GRIPPER_OPEN_M,
    HOME_RAD,
    PROPRIOCEPTION,
)
from gatort.runtime.robots.scripted import ScriptedRobot, with_noise
from gatort.runtime.spec import PolicySpec
from gatort.runtime.takeover.takeover import Takeover
from gatort.runtime.takeover.wish import Wish
from gatort.runtime.tokenizer import Tokenizer

MS = 1_000_000
TICKS = 20
SPEC = PolicySpec(
    observations=PROPRIOCEPTION,
    actuators=ACTUATORS,
    control_hz=CONTROL_HZ,
    action_delay_ms=ACTION_DELAY_MS,
    window_frames=2,
)


class TurnByTurn:
    """A device whose person has the arm in given observations."""

    name = "turns"
    help = ""

    def __init__(self, clock: VirtualClock, theirs: range) -> None:
        self.clock, self.theirs = clock, theirs

    def wish(self, observation: Observation) -> Wish:
        return Wish(
            stamp_ns=self.clock.now_ns(),
            drives=observation.sequence in self.theirs,
            linear_m_s=np.array([0.1, 0.0, 0.0]),
            width_m=0.0,
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        yield


class DoneRobot(ScriptedRobot):
    """A robot that reports success from an observation on."""

    done_at = 10_000

    @property
    def succeeded(self) -> bool:
        return self._sequence >= self.done_at


def policy_of(spec: PolicySpec = SPEC) -> Policy:
    tokens = Tokenizer(spec).encode_action(np.append(np.zeros(7), GRIPPER_OPEN_M)).tolist()
    return Policy.of(spec, NO_WEIGHTS, ScriptedEngine(tokens))


def record(
    path: Path, theirs: range, *, seed: int = 5000, done_at: int = 10_000, lost: int | None = None
) -> Recording:
    """Record a run of a policy without torque, in which a person has the arm for a while."""
    clock = VirtualClock(1_000 * MS)
    still = [HOME_RAD.astype(np.float32), np.zeros(7, np.float32), np.zeros(1, np.float32)]
    robot = DoneRobot(SPEC, clock, lambda sequence: with_noise(still, SPEC, sequence))
    robot.done_at = done_at
    loop = policy_of().control(robot, clock)
    loop.takeover = Takeover(TurnByTurn(clock, theirs), SPEC, clock)
    run = RunRecord.of("scripted", SPEC, "a machine", clock)
    policy = PolicyRecord(
        bundle="idle",
        directory=Path("idle"),
        manifest_sha256="0" * 64,
        files={},
        engine="onnx",
        precision="fp32",
        threads=1,
        spinning=False,
        temperature=0.0,
        seed=seed,
        spec=SPEC,
        stages=(),
    )
    with Recorder(path, run, policy) as recorder:
        note = TickRecorder(recorder, loop)

        def look(tick: TickRecord) -> None:
            if tick.wake.tick == lost:  # as if the link had been full
                recorder._sequences = [sequence + 1 for sequence in recorder._sequences]
            else:
                note(tick)

        loop.run(TICKS, look)
        recorder.close("done", succeeded=robot.succeeded)
    return Recording(path)


def test_a_tick_says_who_had_the_arm(tmp_path: Path) -> None:
    recording = record(tmp_path / "run.mcap", range(8, 13))
    ticks = [each.message for each in recording.messages() if isinstance(each.message, TickMessage)]
    # The first observation is made before arming, so tick 0 has the second.
    assert [tick.tick for tick in ticks if tick.by_person] == [6, 7, 8, 9, 10]


def test_a_summary_counts_the_persons_ticks_and_names_when_they_took_over(tmp_path: Path) -> None:
    summary = summarise(record(tmp_path / "run.mcap", range(8, 13)))
    assert summary.person_ticks == 5
    assert summary.takeovers == [pytest.approx(6 * 0.05)]


def test_a_replay_puts_the_persons_ticks_into_the_context_and_compares_the_others(
    tmp_path: Path,
) -> None:
    recording = record(tmp_path / "run.mcap", range(8, 13))
    comparison = replay_recording(recording, policy_of())
    assert comparison.first is None
    assert comparison.gap is None
    assert comparison.ticks == TICKS - 5


def test_only_the_persons_ticks_are_labelled_and_by_their_actions(tmp_path: Path) -> None:
    episode = corrected_episode(record(tmp_path / "run.mcap", range(8, 13), done_at=15))
    assert episode is not None
    assert (episode.ticks, episode.seed, episode.succeeded) == (TICKS, 5000, True)
    assert np.flatnonzero(episode.labelled).tolist() == [6, 7, 8, 9, 10]
    assert (np.abs(episode.expert_actions[6:11, :7]).max(axis=1) > 0.5).all()
    assert (episode.expert_actions[6:11, 7] < 1e-4).all()
    assert (episode.actions[:6, 7] > GRIPPER_OPEN_M - 1e-4).all()
    assert episode.observations[0].dtype == np.float32
    assert tokenize([episode], SPEC).labelled.sum() == 5


def test_a_run_without_a_person_is_no_correction(tmp_path: Path) -> None:
    assert corrected_episode(record(tmp_path / "run.mcap", range(0))) is None


def test_after_a_lost_tick_nothing_is_learned(tmp_path: Path) -> None:
    episode = corrected_episode(record(tmp_path / "run.mcap", range(8, 19), lost=9))
    assert episode is not None
    assert episode.ticks == 9


def test_recordings_become_a_folder_of_demonstrations(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.mcap" for name in "abc"]
    record(files[0], range(8, 13), seed=5001, done_at=15)
    record(files[1], range(0), seed=5002)
    record(files[2], range(3, 5), seed=5003)
    left_out: list[Path] = []

    def watch(file: Path, episode: Episode | None) -> None:
        if episode is None:
            left_out.append(file)

    manifest = write_corrections(files, tmp_path / "corrections", "stacking", watch)
    assert left_out == [files[1]]
    assert manifest == load_manifest(tmp_path / "corrections")
    assert (manifest.episodes, manifest.successes, manifest.ticks) == (2, 1, 2 * TICKS)
    assert (manifest.first_seed, manifest.last_seed) == (5001, 5003)
    assert manifest.driver.startswith("a person in 7 of 40 ticks, after the policies 000000000000")
    episodes = load_episodes(tmp_path / "corrections", SPEC)
    assert [int(episode.labelled.sum()) for episode in episodes] == [5, 2]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.mcap"
    record(file, range(8, 13))
    folder = tmp_path / "corrections"
    folder.mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(DemonstrationError, match="expected an empty folder, found notes"):
        write_corrections([file], folder, None, lambda *_: None)


def test_recordings_without_any_person_leave_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.mcap"
    record(file, range(0))
    with pytest.raises(DemonstrationError, match="gatort run --takeover"):
        write_corrections([file], tmp_path / "corrections", None, lambda *_: None)
    assert not (tmp_path / "corrections").exists()


def test_an_arms_own_recording_is_refused(tmp_path: Path) -> None:
    clock = VirtualClock()
    with Recorder(tmp_path / "arm.mcap", RunRecord.of("arm", SPEC, "", clock)) as recorder:
        recorder.close("done")
    with pytest.raises(RecordingError, match="found an arm's own"):
        corrected_episode(Recording(tmp_path / "arm.mcap"))
