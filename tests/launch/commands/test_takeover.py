"""A person takes over in `gatort run`; their ticks are shown, recorded, and learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gatort.launch import cli
from gatort.runtime.clock import Clock, VirtualClock
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.robot import Observation
from gatort.runtime.takeover.wish import Wish
from gatort.sim.tasks.stacking.specifications import STACK_SPEC


class Device:
    """A device whose person has the arm from the fourth to the seventh tick."""

    name = "keyboard"
    help = "[t] take over"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def wish(self, observation: Observation) -> Wish:
        return Wish(
            stamp_ns=self.clock.now_ns(),
            drives=5 <= observation.sequence < 9,
            linear_m_s=np.array([0.0, 0.0, 0.05]),
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True)
def in_an_empty_directory_and_virtual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", VirtualClock)


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, clock: Clock, path: Path | None) -> Device:
        return Device(clock)

    monkeypatch.setattr("gatort.launch.driving.find_device", find)


def run(bundle: Path, *arguments: str) -> int:
    return cli.main(["run", "--bundle", str(bundle), "--seconds", "0.5", *arguments])


@pytest.mark.usefixtures("at_hand")
def test_a_takeover_is_shown_reported_and_recorded(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--takeover", "keyboard", "--json", "r.json", "--record", "r.mcap") == 0
    text = capsys.readouterr().out
    assert "the policy; [t] take over" in text
    assert "a person took over 1 time, for 4 ticks" in text
    report = json.loads(Path("r.json").read_text())
    assert report["takeover"] == {"device": "keyboard", "times": 1, "ticks": 4, "lost": False}

    assert cli.main(["info", "r.mcap", "--json", "i.json"]) == 0
    assert "4 ticks, taken over at 0." in capsys.readouterr().out
    person = json.loads(Path("i.json").read_text())["person"]
    assert person["ticks"] == 4
    assert person["takeovers_s"] == [pytest.approx(0.15)]
    assert cli.main(["replay", "r.mcap"]) == 0
    assert "6 of 6 ticks" in capsys.readouterr().out


@pytest.mark.usefixtures("at_hand")
def test_what_the_person_did_becomes_data_to_train_on(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert run(bundle, "--takeover", "keyboard", "--record", f"{name}.mcap") == 0
    assert run(bundle, "--record", "alone.mcap") == 0
    capsys.readouterr()

    made = ["demos", "corrections", "--corrections", "a.mcap", "alone.mcap", "b.mcap"]
    assert cli.main(made) == 0
    printed = capsys.readouterr()
    assert "alone.mcap: left out, because no person had the arm in it" in printed.err
    assert "2 episodes, 0 succeeded, 20 ticks, a person in 8 of 20 ticks" in printed.out
    manifest = load_manifest(Path("corrections"))
    assert (manifest.task, manifest.first_seed) == ("stacking", 5000)
    episodes = load_episodes(Path("corrections"), STACK_SPEC)
    assert [int(each.labelled.sum()) for each in episodes] == [4, 4]

    trained = ["train", "corrections", "--out", "more", "--start", str(bundle), "--rounds", "0"]
    assert cli.main([*trained, "--steps", "2", "--batch-sequences", "2"]) == 0
    training = json.loads(Path("more/bundle/manifest.json").read_text())["training"]
    assert "each labelled by a person in 8 of 20 ticks" in training["demonstrations"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--takeover-device", "/dev/input/event0"), "--takeover-device has no effect"),
        (("--takeover", "keyboard"), "expected a terminal in the foreground"),
        (
            ("--takeover", "gamepad", "--takeover-device", "/dev/null"),
            "event file of a gamepad",
        ),
        (("--takeover", "mouse"), "expected"),
    ],
)
def test_a_device_that_cannot_be_heard_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert run(bundle, *arguments) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


def test_a_motion_without_a_policy_is_not_taken_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--demo", "hold", "--takeover", "keyboard"]) == 2
    assert "--demo hold runs without a policy: leave out --takeover" in capsys.readouterr().err
