"""The link between a run and its console: lossy, bounded, and never waited for."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.console.conftest import OPENING, SteppedClock, status, tick
from tests.console.visitor import Visitor, heard
from tests.waiting import eventually

from gatort.console.address import Address
from gatort.console.link import UNWATCHED_NS, ConsoleLink, ConsoleSettings
from gatort.console.messages import LARGEST_PACKET_BYTES, Checklist, Event
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.facts import Fact


def process_of(link: ConsoleLink) -> int:
    return link._process.pid


def test_a_page_gets_the_whole_run_and_then_the_news(link: ConsoleLink, visitor: Visitor) -> None:
    link.offer(OPENING)
    link.offer(Checklist((Fact("disk", "9 GB free"), Fact("arm", "latched", "recover it"))))
    link.offer(tick(1, 12.0))
    link.offer(tick(2, 31.0, "action late"))
    link.offer(status("run", successes=2, task=True))
    link.offer(Event.now("armed by somebody", "armed"))
    with visitor.live() as socket:
        news = heard(socket, lambda news: bool(news.get("events")))
        assert news["opening"]["title"] == OPENING.title
        assert news["checklist"]["facts"][1] == ["arm", "latched", "recover it"]
        assert [each["number"] for each in news["ticks"]] == [1, 2]
        assert news["ticks"][1]["refusal"] == "action late"
        assert news["slowest"]["took_ms"] == 31.0
        assert news["status"]["successes"] == 2
        assert news["events"][0]["sentence"] == "armed by somebody"

        link.offer(tick(3))
        news = heard(socket, lambda news: bool(news.get("ticks")))
        assert [each["number"] for each in news["ticks"]] == [3]
        assert "opening" not in news


def test_a_value_that_is_not_finite_reaches_the_page_as_null(
    link: ConsoleLink, visitor: Visitor
) -> None:
    bad = tick(1)
    bad.asked[0] = float("nan")
    link.offer(OPENING)
    link.offer(bad)
    with visitor.live() as socket:
        news = heard(socket, lambda news: bool(news.get("ticks")))
    assert news["ticks"][0]["asked"][0] is None


@pytest.mark.parametrize("way", ["socket", "request"])
def test_stop_on_a_page_sends_the_operators_signal_once(
    link: ConsoleLink, visitor: Visitor, stops: list[int], way: str
) -> None:
    with visitor.live() as socket:
        if way == "socket":
            socket.send("stop")
        else:
            assert visitor.ask("POST", "/stop")[0] == 204
        eventually(lambda: bool(stops))
        # The third signal would end the process at once, so a second press sends none.
        socket.send("stop")
        assert visitor.ask("POST", "/stop")[0] == 204
        news = heard(socket, lambda news: bool(news.get("events")))
    assert stops == [signal.SIGUSR2]
    assert news["events"][0]["kind"] == "stop"
    link.listen()
    assert link.stopped_by is not None
    assert "Stop on" in link.stopped_by


@pytest.mark.parametrize("word", ["", "STOP", "stopp", "{}", "arm"])
def test_another_word_of_a_page_does_nothing(
    link: ConsoleLink, visitor: Visitor, stops: list[int], word: str
) -> None:
    with visitor.live() as socket:
        socket.send(word)
        link.offer(OPENING)
        heard(socket, lambda news: "opening" in news)
    link.listen()
    assert (stops, link.stopped_by, link.is_held) == ([], None, False)


def test_a_run_is_held_while_a_page_says_so_and_for_two_seconds_more(
    link: ConsoleLink, visitor: Visitor, clock: SteppedClock
) -> None:
    assert not link.is_held
    with visitor.live() as socket:
        socket.send("hold")
        eventually(lambda: link.is_held)
        link.wait_until_held()
    clock.ahead_ns = UNWATCHED_NS + 20_000_000_000
    assert not link.is_held


def test_the_pages_learn_that_the_page_that_held_the_run_is_gone(visitor: Visitor) -> None:
    with visitor.live() as other:
        with visitor.live() as socket:
            socket.send("hold")
            heard(other, lambda news: "holds the run" in str(news.get("events")))
        heard(other, lambda news: "is gone" in str(news.get("events")))


def test_a_console_that_is_killed_costs_the_run_only_messages(link: ConsoleLink) -> None:
    os.kill(process_of(link), signal.SIGKILL)
    link._process.wait()
    link.offer(OPENING)
    link.offer(tick(1))
    assert link.dropped == 2
    assert link.is_lost
    assert not link.is_held
    with pytest.raises(ConfigError, match="ended before a page held the run"):
        link.wait_until_held()


def test_a_console_that_hangs_costs_the_run_only_messages(
    link: ConsoleLink, visitor: Visitor
) -> None:
    os.kill(process_of(link), signal.SIGSTOP)
    try:
        for number in range(2_000):
            link.offer(tick(number))
        assert 0 < link.dropped < 2_000
    finally:
        os.kill(process_of(link), signal.SIGCONT)

    def arrives() -> bool:
        before = link.dropped
        link.offer(OPENING)
        return link.dropped == before

    eventually(arrives)
    with visitor.live() as socket:
        heard(socket, lambda news: "opening" in news)


def test_a_message_beyond_the_packet_is_dropped(link: ConsoleLink) -> None:
    link.offer(Event(0.0, "x" * LARGEST_PACKET_BYTES))
    assert link.dropped == 1


def test_pages_that_do_not_read_hold_up_no_other_page(link: ConsoleLink, visitor: Visitor) -> None:
    link.offer(OPENING)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(visitor.deaf())
        socket = stack.enter_context(visitor.live())
        for number in range(100):
            link.offer(tick(number))
            heard(socket, lambda news: bool(news.get("ticks")))
    assert link.dropped == 0


def test_a_console_ends_with_its_run_and_tells_its_pages(
    link: ConsoleLink, visitor: Visitor
) -> None:
    process = process_of(link)
    with visitor.live() as socket:
        link.close(Event(0.0, "the run ended: its time is over", "end"))
        assert heard(socket, lambda news: bool(news.get("events")))["events"][0]["kind"] == "end"
    assert not Path(f"/proc/{process}").exists()


def test_an_address_in_use_is_refused_in_one_sentence(link: ConsoleLink) -> None:
    port = int(link.url.partition("/enter")[0].rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already"):
        ConsoleLink(ConsoleSettings(Address("127.0.0.1", port)), MonotonicClock())
