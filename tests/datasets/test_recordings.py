"""Recordings become demonstrations: the ticks that sent a command, with their stamps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gatort.datasets.conversion import from_recordings
from gatort.datasets.recordings import read_episode
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.errors import ConfigError, RecordingError
from gatort.runtime.recording.messages import CommandMessage, ObservationMessage
from gatort.runtime.recording.reader import Recording

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


def test_an_episode_has_the_commands_and_stamps_of_the_recording(tmp_path: Path) -> None:
    recording = Recording(RECORDINGS / "greedy.mcap")
    messages = [each.message for each in recording.messages()]
    sent = [each for each in messages if isinstance(each, CommandMessage) and
            not isinstance(each.limited, type(CommandMessage.limited))]  # fmt: skip
    assert recording.policy is not None
    found = read_episode(recording.path, recording.policy.spec, seed=3)
    seen = {each.tick: each for each in messages if isinstance(each, ObservationMessage)}
    stamps = [seen[each.tick].stamp_ns for each in sent if isinstance(each.limited, list)]
    actions = [each.limited for each in sent if isinstance(each.limited, list)]
    assert found.episode.seed == 3
    assert found.episode.stamps_ns.tolist() == stamps
    np.testing.assert_array_equal(found.episode.actions, np.array(actions, np.float32))
    assert found.left_out == sum(topic == "/tick" for topic in ()) + (
        recording.counts["/tick"] - len(stamps)
    )


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
