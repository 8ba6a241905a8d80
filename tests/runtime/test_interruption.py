"""A signal ends a command at once while it starts or draws, and in order while it works."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from gatort.runtime.interruption import EndingAtOnce, Interruption, Postponed

LONGEST_WAIT_S = 20
IMPORTED = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt as error:  # As packages do whose C++ code runs Python.
    raise ImportError("DLL load failed") from error
finished = True
"""


def wait() -> None:
    assert Event().wait(LONGEST_WAIT_S), "it never became true"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_each_signal_interrupts_and_has_its_own_status(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption:
        signal.raise_signal(number)
    assert interruption.status == status
    assert signal.getsignal(number) == before


def test_an_interruption_waits_for_the_end_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("interrupted_package.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(tmp_path)

    def load() -> None:
        import interrupted_package

        assert interrupted_package.finished
        wait()

    with pytest.raises(KeyboardInterrupt), Interruption():
        load()


def test_a_postponed_signal_takes_effect_at_the_end_of_the_work() -> None:
    done = []

    def work() -> None:
        with Postponed():
            signal.raise_signal(signal.SIGINT)
            done.append("work")

    with pytest.raises(KeyboardInterrupt), Interruption():
        work()
    assert done


def test_an_interruption_that_python_can_only_print_is_raised_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def drop() -> None:
        Dying()
        wait()

    with pytest.raises(KeyboardInterrupt), Interruption():
        drop()
    assert capsys.readouterr().err == ""


def test_a_signal_that_is_sent_twice_interrupts_once() -> None:
    interruption = Interruption()
    with interruption:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert interruption.status == 143


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption(), EndingAtOnce():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def status_of(code: str) -> tuple[int, str]:
    """Return the exit status and the standard error of a program."""
    lines = "import signal\nfrom gatort.runtime.interruption import *\n" + code
    done = subprocess.run(
        [sys.executable, "-P", "-c", lines], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_the_third_signal_ends_the_process_at_once() -> None:
    code = """
with Interruption():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            pass
"""
    assert status_of(code) == (143, "")


def test_a_signal_ends_the_process_at_once_before_the_command_begins() -> None:
    assert status_of("end_at_once()\nsignal.raise_signal(signal.SIGTERM)") == (143, "")


def test_ctrl_c_changes_no_status_of_a_command_that_has_finished() -> None:
    assert status_of("end_at_once()\nfinish()\nsignal.raise_signal(signal.SIGINT)") == (0, "")


def test_a_picture_is_announced_and_a_signal_ends_its_drawing_at_once() -> None:
    code = """
from pathlib import Path
from gatort.launch.drawing import announced

@announced
def draw(path):
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException as error:
        raise ImportError("a picture needs matplotlib") from error

with Interruption():
    draw(Path("latency.png"))
"""
    assert status_of(code) == (130, "drawing latency.png …\n")
