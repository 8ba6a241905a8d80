"""Headless Chromium over its DevTools protocol: real clicks, keys, sizes and pictures."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.waiting import LONGEST_WAIT_S, becomes
from websockets.sync.client import ClientConnection, connect

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ABSENT = "Chromium is not installed: on Debian, apt-get install chromium"
DESK = (1280, 900)
PHONE = (390, 844)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._count = 0
        self.errors: list[str] = []
        """Errors of scripts, and refusals of the content security policy."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        answer = self.send(method, **arguments)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def send(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its answer, which may be an error."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": arguments}))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._count:
                return message
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    def value(self, expression: str) -> Any:
        """Return the value of an expression, once its promise is kept."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def is_true(self, expression: str) -> bool:
        """Check an expression; it is false while another page is being loaded."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        result = answer.get("result", {})
        return bool(result.get("result", {}).get("value")) and "exceptionDetails" not in result

    def wait(self, expression: str) -> None:
        """Wait, for at most 20 s, until an expression is true."""
        if not becomes(lambda: self.is_true(expression), LONGEST_WAIT_S):
            raise AssertionError(f"never true: {expression}")

    def show(self, size: tuple[int, int], *, dark: bool = False) -> None:
        """Set the size of the screen, and light or dark."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)

    def middle(self, selector: str) -> tuple[float, float]:
        """Return the place of the middle of an element on the screen."""
        x, y = self.value(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return x, y

    def click(self, selector: str) -> None:
        """Click into the middle of an element with the mouse."""
        self.click_at(*self.middle(selector))

    def click_at(self, x: float, y: float) -> None:
        """Press and release the mouse at a place."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                clickCount=1,
            )

    def press(self, key: str, code: str = "", number: int = 0) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code or key,
                windowsVirtualKeyCode=number,
                **(text if kind == "keyDown" else {}),
            )

    def picture(self, path: Path) -> None:
        """Write a picture of the screen."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Run a browser with one tab until the end of the context.

    Args:
        folder: folder for its profile.
    """
    assert PROGRAM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    flags += ["--hide-scrollbars", f"--user-data-dir={folder}", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [PROGRAM, *flags, "about:blank"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = next(
            found for line in process.stderr if (found := re.search(r"ws://([^/]+)/", line))
        )
        with connect(_tab(address[1]), compression=None, max_size=None) as socket:
            yield Page(socket)
    finally:
        process.kill()
        process.communicate()


def _tab(host: str) -> str:
    connection = HTTPConnection(host, timeout=30)
    try:
        connection.request("GET", "/json/list")
        tabs = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    url: str = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return url
