"""An arm's process, run in this one: order of its parts, and which transport they get."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ConfigError, RobotError
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote import serve as serving
from gatort.runtime.remote.bad_link import BadLink
from gatort.runtime.remote.console import Lines, StatusLine
from gatort.runtime.remote.door import Door
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.serve import ServeConfig, serve
from gatort.runtime.remote.server import RobotStatus
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture(autouse=True)
def without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield


class Arm(ScriptedRobot):
    """An arm that ends its process after some steps, and notes when it is closed."""

    def __init__(
        self, spec: PolicySpec, order: list[str], at_step: Callable[[], None], step: int = 3
    ) -> None:
        super().__init__(spec, MonotonicClock())
        self._order = order
        self._at_step = at_step
        self._left = step

    def advance(self) -> None:
        super().advance()
        self._left -= 1
        if self._left == 0:
            self._at_step()

    def close(self) -> None:
        self._order.append("arm")


def fail() -> None:
    raise RobotError("joint 3 hit the table")


def test_the_arm_is_let_go_of_before_its_recording_is_finished(
    monkeypatch: pytest.MonkeyPatch, spec: PolicySpec, tmp_path: Path
) -> None:
    order: list[str] = []

    class NotingRecorder(Recorder):
        def close(self, result: str | None = None) -> None:
            order.append("recording")
            super().close(result)

    monkeypatch.setattr(serving, "Recorder", NotingRecorder)
    config = ServeConfig(bind=ANY_PORT, record=tmp_path / "steps.mcap")
    arm = Arm(spec, order, fail)
    with pytest.raises(RobotError, match="joint 3 hit the table"):
        serve("scripted", arm, MonotonicClock(), config, simulated=True)
    assert order[:2] == ["arm", "recording"]


def test_a_signal_ends_the_process_and_the_recording_is_whole(
    spec: PolicySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ServeConfig(bind=ANY_PORT, record=tmp_path / "steps.mcap")
    arm = Arm(spec, [], at_step=lambda: signal.raise_signal(signal.SIGTERM))
    serve("scripted", arm, MonotonicClock(), config, simulated=True)
    assert {*Recording(tmp_path / "steps.mcap").steps().states} == {State.DISARMED}
    assert "scripted at tcp://127.0.0.1:" in capsys.readouterr().out


def test_an_address_in_use_costs_no_recording_and_the_arm_is_let_go_of(
    spec: PolicySpec, tmp_path: Path
) -> None:
    order: list[str] = []
    recording = tmp_path / "steps.mcap"
    recording.write_bytes(b"an earlier recording")
    first = RobotSocket(ANY_PORT)
    config = ServeConfig(bind=first.endpoint, record=recording)
    with pytest.raises(ConfigError, match="Address already in use"):
        serve("scripted", Arm(spec, order, fail), MonotonicClock(), config, simulated=True)
    first.close()
    assert recording.read_bytes() == b"an earlier recording"
    assert order == ["arm"]


@pytest.mark.parametrize(
    ("link", "kind"),
    [({}, Door), ({"link_seed": 7}, Door), ({"delay_ms": 3}, BadLink)],
    ids=["no conditions", "a seed alone", "a delay"],
)
def test_messages_pass_a_bad_link_only_where_one_was_asked_for(
    link: dict[str, Any], kind: type
) -> None:
    config = ServeConfig(bind=ANY_PORT, link=LinkConditions(**link))
    transport = serving._listen(config, VirtualClock(), Lines())
    transport.close()
    assert type(transport) is kind


def test_dropped_commands_are_told_with_their_reasons() -> None:
    status = RobotStatus(state=State.RUN, dropped=2, drop_reasons=("late", "queue full"))
    assert "commands dropped: 2 (late, queue full)" in serving._facts(status, None)
    assert serving._facts(RobotStatus(state=State.RUN), None) == ["free"]


@pytest.mark.parametrize("fault", [None, "the arm stopped itself: cartesian_reflex"])
def test_the_key_that_recovers_an_arm_stands_before_the_reason_in_its_status(
    fault: str | None,
) -> None:
    status = RobotStatus(state=State.LATCHED, fault=fault, blocked=True, reason="a key")
    first, *_ = serving._facts(status, None)
    shown = StatusLine(State.LATCHED, [first]).drawn(60, coloured=False)
    assert "[a Enter]" in shown
    assert first.endswith(f"({fault or 'a key'})")
