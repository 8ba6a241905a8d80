"""A console in a real process, beside this one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.console.visitor import Visitor

from gatort.console.address import Address
from gatort.console.link import ConsoleLink, ConsoleSettings
from gatort.console.messages import ActuatorBar, Opening, Status, Tick
from gatort.runtime.clock import MonotonicClock

OPENING = Opening(
    kind="run",
    title="random, onnx, mujoco",
    actuators=tuple(ActuatorBar(f"joint_{index}", "Nm", -30.0, 30.0) for index in range(8)),
    stages=("observe", "tokenize", "passes", "detokenize", "guard", "command"),
    control_hz=20.0,
    budget_ms=50.0,
    deadline_ms=25.0,
    longest_s=20.0,
    held=False,
)


def tick(number: int, took_ms: float = 12.0, refusal: str = "") -> Tick:
    return Tick(
        number=number,
        at_ns=MonotonicClock().now_ns(),
        took_ms=took_ms,
        lateness_ms=0.1,
        stages_ms=[1.0, 0.5, took_ms - 2.0, 0.2, 0.2, 0.1],
        applied=[float(index) for index in range(8)],
        asked=[float(index + 1) for index in range(8)],
        sent=[] if refusal else [float(index + 1) for index in range(8)],
        refusal=refusal,
    )


def status(state: str, **changes: object) -> Status:
    values: dict[str, object] = {
        "at_ns": MonotonicClock().now_ns(),
        "state": state,
        "elapsed_s": 3.0,
        "rate_hz": (20.0, 19.98, 19.0),
        "tick_ms": (12.0, 14.0, 21.0),
        "misses": 0,
        "refused": {},
    }
    return Status(**(values | changes))  # type: ignore[arg-type]


class SteppedClock(MonotonicClock):
    """The machine's clock, which a test can move on."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


@pytest.fixture
def stops() -> Iterator[list[int]]:
    """Signals that this process got from a console; SIGUSR2 stands for Ctrl-C here."""
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def link(stops: list[int], clock: SteppedClock) -> Iterator[ConsoleLink]:
    link = ConsoleLink(ConsoleSettings(Address(), signal.SIGUSR2), clock)
    yield link
    link.close()


@pytest.fixture
def visitor(link: ConsoleLink) -> Visitor:
    """A visitor that has entered."""
    visitor = Visitor(link.url)
    assert visitor.enter() == 204
    return visitor
