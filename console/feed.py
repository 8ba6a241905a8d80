"""Newest ticks, status and log of a run, in memory of a fixed size, as text for the pages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from .messages import CameraImage, Checklist, Event, Message, Opening, Status, Tick

KEPT_TICKS: Final = 600
"""Number of the newest ticks that a page gets: 30 s at 20 Hz."""
MOST_CAMERAS: Final = 8
"""Most cameras whose newest picture is kept."""
KEPT_EVENTS: Final = 200
"""Number of the newest lines of the log."""


@dataclass(slots=True)
class Position:
    """Numbers of messages that a page has been sent."""

    ticks: int = 0
    events: int = 0
    news: int = 0


Kept = TypeVar("Kept", Opening, Checklist, CameraImage, Status, Tick)


@dataclass(frozen=True, slots=True)
class Newest(Generic[Kept]):
    """Newest message of a kind, which replaces the ones before it."""

    value: Kept | None = None
    count: int = 0
    """Number of messages of any kind up to this one."""

    def after(self, count: int) -> Kept | None:
        """Return the message if it came after so many, else `None`."""
        return self.value if self.count > count else None


class News(msgspec.Struct, omit_defaults=True):
    """One message to a page."""

    now_ns: int
    """The present on the clock of the ticks."""
    opening: Opening | None = None
    checklist: Checklist | None = None
    ticks: list[Tick] = []  # msgspec copies it
    status: Status | None = None
    events: list[Event] = []
    slowest: Tick | None = None
    """Slowest tick so far."""
    pictures: list[CameraImage] = []
    """Newest picture of each camera."""


class Feed:
    """Messages for the pages. Each page reads them at its own pace and waits for no other."""

    def __init__(self) -> None:
        self._opening: Newest[Opening] = Newest()
        self._checklist: Newest[Checklist] = Newest()
        self._status: Newest[Status] = Newest()
        self._slowest: Newest[Tick] = Newest()
        self._pictures: dict[str, Newest[CameraImage]] = {}
        self._ticks: deque[Tick] = deque(maxlen=KEPT_TICKS)
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._end = Position()
        self._encode = msgspec.json.Encoder().encode
        self._cached: tuple[Position, Position, str] | None = None

    def take(self, message: Message) -> None:
        """Keep a message of the run."""
        self._end.news += 1
        count = self._end.news
        match message:
            case Opening():
                self._opening = Newest(message, count)
            case Checklist():
                self._checklist = Newest(message, count)
            case Tick():
                self._ticks.append(message)
                self._end.ticks += 1
                slowest = self._slowest.value
                if slowest is None or message.took_ms > slowest.took_ms:
                    self._slowest = Newest(message, count)
            case CameraImage(name=name):
                if name in self._pictures or len(self._pictures) < MOST_CAMERAS:
                    self._pictures[name] = Newest(message, count)
            case Status():
                self._status = Newest(message, count)
            case Event():
                self._events.append(message)
                self._end.events += 1

    def news(self, sent: Position, now_ns: int) -> str | None:
        """Return the text for a page, and move its position to the end. `None` if nothing is new.

        Args:
            sent: position of the page.
            now_ns: the present.
        """
        if sent.news == self._end.news:
            return None
        before = Position(sent.ticks, sent.events, sent.news)
        sent.ticks, sent.events, sent.news = self._end.ticks, self._end.events, self._end.news
        # Most pages are at the same place, and one text serves them all.
        if self._cached is not None and self._cached[:2] == (before, sent):
            return self._cached[2]
        text = self._encode(self._since(before, now_ns)).decode()
        self._cached = (before, Position(sent.ticks, sent.events, sent.news), text)
        return text

    def _since(self, before: Position, now_ns: int) -> News:
        ticks = self._end.ticks - before.ticks
        events = self._end.events - before.events
        return News(
            now_ns,
            self._opening.after(before.news),
            self._checklist.after(before.news),
            list(self._ticks)[max(0, len(self._ticks) - ticks) :],
            self._status.after(before.news),
            list(self._events)[max(0, len(self._events) - events) :],
            self._slowest.after(before.news),
            [found for each in self._pictures.values() if (found := each.after(before.news))],
        )
