"""Finished runs: the files of a folder, their figures, and nothing beyond the folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from tests.console.chromium import ABSENT, PROGRAM, chromium
from tests.console.visitor import Visitor
from tests.waiting import eventually

from gatort.console.access import Access
from gatort.console.address import Address
from gatort.console.app import make_app
from gatort.console.finished import (
    MOST_POINTS,
    RunsFolder,
    headline_of,
    read_recording,
    read_report,
)
from gatort.console.folder_pages import FILES, FolderPages
from gatort.console.listening import listening, server
from gatort.runtime.errors import ConfigError, RecordingError

RECORDING = Path(__file__).parents[1] / "data" / "recordings" / "sampled.mcap"
PNG = b"\x89PNG\r\n\x1a\n"


def report(command: str, **figures: Any) -> str:
    origin = {"schema": 1, "gatort": "0", "date": "2026-11-29T10:00:00+00:00", "command": command}
    return json.dumps({**figures, "report": origin})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    runs.mkdir()
    trials = report("gatort trials --episodes 20", successes=19, episodes=20)
    (runs / "trials.json").write_text(trials)
    (runs / "other.json").write_text('{"a": 1}')
    (runs / "broken.json").write_text("{")
    (runs / "latency.png").write_bytes(PNG)
    (runs / "notes.txt").write_text("secret")
    (tmp_path / "secret.json").write_text(report("gatort run"))
    shutil.copy(RECORDING, runs / "run.mcap")
    os.mkfifo(runs / "pipe.json")
    return runs


@pytest.fixture
def visitor(folder: Path) -> Iterator[Visitor]:
    """A visitor that has entered a console of the folder."""
    listener, address = listening(Address())
    access = Access(address)
    served = server(make_app(access, FILES, FolderPages(RunsFolder(folder)).routes))
    served.capture_signals = _nothing  # type: ignore[method-assign]
    thread = Thread(target=asyncio.run, args=(served.serve([listener]),))
    thread.start()
    eventually(lambda: served.started)
    visitor = Visitor(access.invite())
    assert visitor.enter() == 204
    yield visitor
    served.should_exit = True
    thread.join()


class _nothing:  # noqa: N801  # stands for a method
    """Signals belong to the test's main thread."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_the_list_has_the_files_of_gatort_alone(folder: Path) -> None:
    rows = {row.name: row for row in RunsFolder(folder).rows()}
    assert rows.keys() == {"trials.json", "latency.png", "run.mcap"}
    assert rows["trials.json"].command == "trials"
    assert rows["trials.json"].headline == "19 of 20 trials succeeded"
    assert rows["run.mcap"].kind == "recording"


@pytest.mark.parametrize(
    ("figures", "headline"),
    [
        ({"held": 31, "inconclusive": 1, "broken": 0}, "31 rows held, 1 inconclusive, 0 broken"),
        (
            {"succeeded": True, "ticks": 9, "misses": 1, "interrupted": True},
            "success, stopped; 9 ticks, 1 miss",
        ),
        ({"holds": False, "misses": 3}, "the budget does not hold; 3 misses"),
        ({"successes": "many", "episodes": None}, ""),
    ],
)
def test_a_report_has_its_result_in_a_few_words(figures: dict[str, Any], headline: str) -> None:
    assert headline_of(figures) == headline


def test_a_recording_is_summarised_with_its_ticks() -> None:
    found = read_recording(RECORDING)
    assert found.ticks == len(found.points) > 0
    assert (found.budget_ms, found.deadline_ms) == (50.0, 25.0)
    assert all(point.took_ms > 0 for point in found.points)
    assert found.states


def test_a_long_recording_keeps_the_slowest_tick_of_each_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = read_recording(RECORDING).points
    monkeypatch.setattr("gatort.console.finished.MOST_POINTS", 5)
    few = read_recording(RECORDING).points
    assert 0 < len(few) <= 5 < MOST_POINTS
    slowest = max(whole, key=lambda point: point.took_ms)
    assert max(few, key=lambda point: point.took_ms) == slowest


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    path.write_bytes(b"nothing")
    with pytest.raises(RecordingError):
        read_recording(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder with finished runs, found none"):
        RunsFolder(tmp_path / "absent")


@pytest.mark.parametrize("name", ["../secret.json", "/etc/x.json", "a/../../secret.json", ".."])
def test_a_name_never_leads_out_of_the_folder(folder: Path, name: str) -> None:
    assert (folder.parent / "secret.json").is_file()
    assert RunsFolder(folder).file(name, "report") is None
    assert RunsFolder(folder).file("trials.json", "report") == folder / "trials.json"


def test_a_pipe_is_no_report(folder: Path) -> None:
    assert read_report(folder / "pipe.json") is None


def test_the_pages_give_report_recording_and_picture(visitor: Visitor) -> None:
    assert {row["name"] for row in json.loads(visitor.ask("GET", "/runs.json")[2])} == {
        "trials.json",
        "latency.png",
        "run.mcap",
    }
    assert json.loads(visitor.ask("GET", "/report/trials.json")[2])["successes"] == 19
    assert json.loads(visitor.ask("GET", "/recording/run.mcap")[2])["ticks"] > 0
    status, headers, body = visitor.ask("GET", "/picture/latency.png")
    assert (status, headers["content-type"], body) == (200, "image/png", PNG)


@pytest.mark.parametrize(
    "path",
    [
        "/report/other.json",
        "/report/notes.txt",
        "/report/run.mcap",
        "/picture/trials.json",
        "/recording/trials.json",
        "/report/..%2fsecret.json",
        f"/report/{quote('../secret.json', safe='')}",
        "/report/../../secret.json",
        "/report/%2fetc%2fpasswd",
        "/report/trials.json%00",
        "/stop",
        "/live",
    ],
)
def test_no_other_file_is_given(visitor: Visitor, path: str) -> None:
    assert visitor.ask("GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/runs.json", "/report/trials.json", "/picture/latency.png"])
def test_nothing_is_given_without_a_session(visitor: Visitor, path: str) -> None:
    visitor.cookie = None
    assert visitor.ask("GET", path)[0] == 401


def test_a_broken_recording_is_answered_with_its_sentence(visitor: Visitor, folder: Path) -> None:
    (folder / "bad.mcap").write_bytes(b"nothing")
    status, _, body = visitor.ask("GET", "/recording/bad.mcap")
    assert status == 422
    assert b"bad.mcap" in body


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason=ABSENT)
def test_a_browser_shows_the_figures_of_the_chosen_file(visitor: Visitor, tmp_path: Path) -> None:
    with chromium(tmp_path / "chromium") as page:
        page.open(visitor.ask("POST", "/invite")[2].decode())
        page.wait("document.querySelectorAll('#rows tr').length === 3")
        page.value("location.hash = 'trials.json'")
        page.wait("document.getElementById('tiles').textContent.includes('successes19')")
        page.value("location.hash = 'run.mcap'")
        page.wait("document.getElementById('ticks-text').textContent.includes('budget 50 ms')")
        page.wait("document.getElementById('tiles').textContent.includes('completeyes')")
        assert page.errors == []
