"""Recordings become demonstrations: the ticks that sent a command, with their stamps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from gatort.datasets.conversion import from_recordings
from gatort.datasets.recordings import read_episode
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.errors import ConfigError, RecordingError
from gatort.runtime.recording.messages import (
    CommandMessage,
    ObservationMessage,
    PolicyRecord,
    TickMessage,
)
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


def policy_of(recording: Recording) -> PolicyRecord:
    assert recording.policy is not None
    return recording.policy


def test_an_episode_has_the_commands_and_stamps_of_the_recording(tmp_path: Path) -> None:
    recording = Recording(RECORDINGS / "greedy.mcap")
    messages = [each.message for each in recording.messages()]
    seen = [each.stamp_ns for each in messages if isinstance(each, ObservationMessage)]
    sent = [each.limited for each in messages if isinstance(each, CommandMessage)]
    found = read_episode(recording.path, policy_of(recording).spec, seed=3)
    assert (found.episode.seed, found.episode.succeeded, found.left_out) == (3, False, 0)
    assert found.episode.stamps_ns.tolist() == seen
    np.testing.assert_array_equal(found.episode.actions, np.array(sent, np.float32))


def test_a_refused_tick_is_left_out_and_success_comes_from_the_outcome(tmp_path: Path) -> None:
    recording = Recording(RECORDINGS / "greedy.mcap")
    whole = read_episode(recording.path, policy_of(recording).spec, seed=0).episode
    refused = 7
    with Recorder(tmp_path / "refused.mcap", recording.run, policy_of(recording)) as recorder:
        for stamped in recording.messages():
            message = stamped.message
            if isinstance(message, CommandMessage) and message.tick == refused:
                message = replace(message, limited=UNSET)
            if isinstance(message, TickMessage) and message.tick == refused:
                message = replace(message, reason="late", refusal="too late")
            recorder.add(stamped.at_ns, message)
            recorder.flush(wait_s=10.0)
        recorder.close("done", succeeded=True)

    found = read_episode(tmp_path / "refused.mcap", policy_of(recording).spec, seed=0)
    assert (found.left_out, found.episode.succeeded) == (1, True)
    np.testing.assert_array_equal(found.episode.actions, np.delete(whole.actions, refused, 0))
    np.testing.assert_array_equal(found.episode.stamps_ns, np.delete(whole.stamps_ns, refused))


def test_several_recordings_become_one_folder_of_demonstrations(tmp_path: Path) -> None:
    recording = RECORDINGS / "greedy.mcap"
    converted = from_recordings([recording, recording], tmp_path / "demos", task="stacking")
    manifest = load_manifest(tmp_path / "demos")
    assert (converted.episodes, manifest.task) == (2, "stacking")
    first, second = load_episodes(tmp_path / "demos", manifest.spec)
    assert (first.seed, second.seed) == (0, 1)
    np.testing.assert_array_equal(first.actions, second.actions)


def test_a_recording_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    shutil.copy(RECORDINGS / "greedy.mcap", tmp_path / "cut.mcap")
    content = (tmp_path / "cut.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[:-200])
    with pytest.raises(RecordingError, match="expected a complete recording, found that"):
        from_recordings([tmp_path / "cut.mcap"], tmp_path / "demos")
    assert not (tmp_path / "demos").exists()


def test_another_file_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("")
    with pytest.raises(ConfigError, match="found a file of another name"):
        from_recordings([tmp_path / "film.mp4"], tmp_path / "demos")
