"""Signals of a robot's process, sent to this one, and lines on a terminal that may be lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.console import (
    BURST_NS,
    CONFIRM_NS,
    KEPT_LINES,
    Keys,
    Lines,
    StatusLine,
    _read_keys,
    console,
)
from gatort.runtime.safety import State


class Asked:
    """A server that notes the requests of its console."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stop(self, by: str) -> None:
        self.asked.append(f"stop by {by}")

    def allow_arming(self) -> None:
        self.asked.append("allow")

    def report_success(self) -> str:
        self.asked.append("success")
        return "success, as the operator says"

    def end(self) -> None:
        self.asked.append("end")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    server = Asked()
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with console(server, print):  # type: ignore[arg-type]  # the three requests are all it uses
            yield server


@pytest.mark.parametrize(
    ("number", "request_"),
    [
        (signal.SIGINT, "end"),
        (signal.SIGQUIT, "end"),
        (signal.SIGTERM, "end"),
        (signal.SIGHUP, "end"),
        (signal.SIGUSR1, "stop by SIGUSR1"),
        (signal.SIGTSTP, "stop by SIGTSTP"),
        (signal.SIGUSR2, "allow"),
    ],
)
def test_each_signal_is_a_request_to_the_server(
    asked: Asked, number: signal.Signals, request_: str
) -> None:
    signal.raise_signal(number)
    assert asked.asked == [request_]


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
def test_signals_that_would_suspend_the_process_are_ignored(
    asked: Asked, number: signal.Signals
) -> None:
    signal.raise_signal(number)
    assert asked.asked == []


def test_signals_are_as_before_once_the_console_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {each: signal.getsignal(each) for each in signal.valid_signals()}
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with console(Asked(), print):  # type: ignore[arg-type]  # as above
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {each: signal.getsignal(each) for each in signal.valid_signals()} == before


def test_lines_are_printed_in_order_by_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        for number in range(5):
            lines.offer(f"line {number}")
    assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(5)]


def test_lines_beyond_the_kept_ones_cost_the_oldest(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for number in range(KEPT_LINES + 3):
        lines.offer(f"line {number}")
    with lines:
        pass
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"line {number}" for number in range(3, KEPT_LINES + 3)]


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise OSError("input/output error")

        def flush(self) -> None:
            raise OSError("input/output error")

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Gone())
    with Lines() as lines:
        lines.offer("nobody reads this")


def test_no_control_character_of_a_peer_reaches_the_console(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines() as lines:
        lines.offer("reason \x1b[2J\x9b1m end")
    said = capsys.readouterr().out
    assert "end" in said
    assert all(each.isprintable() or each == "\n" for each in said)


# -- Keys --------------------------------------------------------------------------------------

TYPED_NS = 2 * BURST_NS


def take(*typed: bytes, apart_ns: int = TYPED_NS) -> list[str | None]:
    keys = Keys()
    return [keys.take(each, index * apart_ns) for index, each in enumerate(typed)]


@pytest.mark.parametrize("key", [b"\n", b"\r", b" "])
def test_enter_and_space_stop_the_arm(key: bytes) -> None:
    assert take(key) == ["stop"]


def test_a_and_then_enter_allow_arming() -> None:
    assert take(b"a", b"\n") == [None, "allow"]
    assert take(b"a", b" ") == [None, "stop"]


@pytest.mark.parametrize(
    "pasted", [(b"a\n",), (b"aa", b"\n"), (b"ba", b"\n"), (b"a", b"b", b"\n"), (b"a\na\n",)]
)
def test_several_bytes_in_one_read_never_allow_arming(pasted: tuple[bytes, ...]) -> None:
    assert "allow" not in take(*pasted)


@pytest.mark.parametrize("pasted", [(b"a", b"\n"), (b"x", b"a", b"\n"), (b"a", b"a", b"\n")])
def test_bytes_in_a_burst_never_allow_arming(pasted: tuple[bytes, ...]) -> None:
    assert take(*pasted, apart_ns=BURST_NS - 1)[-1] == "stop"


@pytest.mark.parametrize(
    ("blocked", "fault", "asked"),
    [
        (False, None, "stop by a key"),
        (True, None, "allow"),
        (False, "the arm stopped itself: joint_reflex", "allow"),
    ],
)
def test_a_and_enter_allow_an_arm_that_was_stopped_or_stopped_itself_and_stop_any_other(
    blocked: bool, fault: str | None, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Asked()
    server.status = SimpleNamespace(blocked=blocked, fault=fault)  # type: ignore[attr-defined]
    typed = iter([(b"a", 0), (b"\n", 10 * BURST_NS)])
    clock = VirtualClock()

    def read(_: int, __: int) -> bytes:
        key, at_ns = next(typed, (b"", clock.now_ns()))
        clock.sleep_until_ns(at_ns)
        return key

    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr("gatort.runtime.remote.console.MonotonicClock", lambda: clock)
    _read_keys(0, server, print)  # type: ignore[arg-type]  # its requests and its status are all it uses
    assert server.asked == [asked]


def test_s_reports_a_success_and_nothing_else() -> None:
    assert take(b"s") == ["succeed"]
    assert take(b"a", b"s", b"\n") == [None, "succeed", "stop"]


@pytest.mark.parametrize(
    ("pasted", "apart_ns"), [((b"success",), TYPED_NS), ((b"x", b"s"), BURST_NS - 1)]
)
def test_a_pasted_s_reports_nothing(pasted: tuple[bytes, ...], apart_ns: int) -> None:
    assert "succeed" not in take(*pasted, apart_ns=apart_ns)


def test_the_operator_reads_if_their_report_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    server, said = Asked(), []
    server.status = SimpleNamespace(blocked=False, fault=None)  # type: ignore[attr-defined]
    typed = iter([b"s", b""])
    monkeypatch.setattr(os, "read", lambda *_: next(typed))
    _read_keys(0, server, said.append)  # type: ignore[arg-type]  # as below
    assert server.asked == ["success"]
    assert said == ["[s] success, as the operator says"]


def test_enter_long_after_a_stops() -> None:
    assert take(b"a", b"\n", apart_ns=CONFIRM_NS + 1) == [None, "stop"]


# -- The status line -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 80])
def test_a_status_line_is_cut_to_the_terminal_and_begins_with_its_state(columns: int) -> None:
    facts = [
        "free (no command for 95 ms)",
        "commands dropped: 12",
        "malformed: 3" * 5,
        "foreign: 1",
    ]
    status = StatusLine(State.LATCHED, facts)
    plain = status.drawn(columns, coloured=False)
    assert plain.startswith("LATCHED, free")
    assert len(plain) < columns
    whole = "LATCHED, free (no command for 95 ms); commands dropped: 12; foreign: 1"
    assert plain == (whole if columns == 80 else "LATCHED, free (no …")
    coloured = status.drawn(columns, coloured=True)
    assert coloured == f"\x1b[1;41mLATCHED\x1b[0m{plain[len('LATCHED') :]}"


def test_a_status_that_is_no_longer_known_is_taken_from_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    lines.is_terminal = True
    lines.show(StatusLine(State.RUN, ["controlled"]), 1.25)
    lines._print()
    lines.hide()
    lines._print()
    shown = capsys.readouterr().out
    assert "RUN" in shown
    assert shown.endswith("\r\x1b[K")


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines.show(StatusLine(State.RUN, ["controlled"]), 1.25)
        lines.offer("the door ended")
        lines.show(StatusLine(State.SAFE, ["free", "foreign: 1"]), 2.0)
    assert capsys.readouterr().out.splitlines() == [
        "1.2 s: run, controlled",
        "the door ended",
        "2.0 s: safe, free; foreign: 1",
    ]
