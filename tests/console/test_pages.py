"""The pages in headless Chromium: seen, clicked, typed at, and attacked from another origin."""

from __future__ import annotations

import http.server
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from tests.console.chromium import ABSENT, DESK, PHONE, PROGRAM, Page, chromium
from tests.console.conftest import OPENING, status, tick
from tests.waiting import eventually

from gatort.console.link import ConsoleLink
from gatort.console.messages import CameraImage, Checklist, Event
from gatort.runtime.facts import Fact

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=ABSENT)]

UNNAMED = """
[...document.querySelectorAll("button, a, input, canvas, table, section")].filter((each) => {
  const by = each.getAttribute("aria-labelledby") || each.getAttribute("aria-describedby");
  const name = each.textContent.trim() || each.getAttribute("aria-label")
    || (by && document.getElementById(by).textContent.trim());
  return !name;
}).map((each) => each.outerHTML)
"""
"""Elements that a screen reader could not name."""
FAINT = """
(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
      .map((each) => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const paper = (each) => {
    for (; each; each = each.parentElement) {
      const found = getComputedStyle(each).backgroundColor;
      if (!/^rgba.*, 0\\)$/.test(found) && found !== "transparent") return found;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter((each) => {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !each.checkVisibility() || each.disabled) return false;
    const pair = [light(getComputedStyle(each).color), light(paper(each))];
    const [dark, bright] = pair.sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05) < 4.5;
  }).map((each) => each.textContent.trim());
})()
"""
"""Texts with less contrast than WCAG 2 AA asks for."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def live(page: Page, link: ConsoleLink) -> Page:
    """A page that shows a run which is in RUN."""
    page.errors.clear()
    page.show(DESK)
    link.offer(OPENING)
    link.offer(Checklist((Fact("disk", "9 GB free"), Fact("arm", "latched", "recover it"))))
    for number in range(20):
        link.offer(tick(number, 12.0 + number % 3))
    page.open(link.url)
    show(page, link, "run")
    return page


def show(page: Page, link: ConsoleLink, state: str, **changes: object) -> None:
    """Tell a state until the page shows it: a page calls a state that is a second old no news."""

    def shows() -> bool:
        link.offer(status(state, **changes))
        return page.is_true(f"document.getElementById('banner')?.dataset.state === '{state}'")

    eventually(shows)


def test_a_page_shows_state_ticks_actuators_and_checklist(live: Page, link: ConsoleLink) -> None:
    assert live.value("document.title") == f"gatort: {OPENING.title}"
    live.wait("document.querySelectorAll('#actuators tr').length === 8")
    live.wait("document.querySelector('#actuators td:nth-child(3)').textContent === '1.00'")
    live.wait("document.getElementById('ticks-text').textContent.startsWith('newest 13.0 ms')")
    live.wait("document.querySelectorAll('#stages tr').length > 3")
    assert "! arm latched" in live.value("document.getElementById('checklist').textContent")
    show(live, link, "hold", cause="action late")
    live.wait("document.getElementById('cause').textContent === 'action late'")
    assert live.errors == []


def test_the_newest_picture_of_each_camera_is_drawn(live: Page, link: ConsoleLink) -> None:
    link.offer(CameraImage("camera/front", 7, 4, 2, bytes([255, 0, 0] * 8)))
    link.offer(CameraImage("camera/front", 8, 4, 2, bytes([0, 0, 255] * 8)))
    live.wait("document.getElementById('pictures').textContent === 'camera/front, tick 8'")
    pixel = "document.querySelector('#pictures canvas').getContext('2d').getImageData(3, 1, 1, 1)"
    assert live.value(f"[...{pixel}.data]") == [0, 0, 255, 255]


def test_the_token_does_not_stay_in_the_address(live: Page) -> None:
    assert live.value("location.pathname + location.hash") == "/"


@pytest.mark.parametrize("way", ["click", "escape", "space"])
def test_the_button_and_the_keys_stop_the_run(
    live: Page, link: ConsoleLink, stops: list[int], way: str
) -> None:
    if way == "click":
        live.click("#stop")
    else:
        live.press(*(("Escape", "Escape", 27) if way == "escape" else (" ", "Space", 32)))
    eventually(lambda: bool(stops))
    live.wait("document.getElementById('stop').textContent === 'STOPPING…'")
    link.offer(status("safe"))
    live.wait("document.getElementById('stop').textContent === 'STOPPED'")
    live.wait("document.getElementById('log').textContent.includes('Stop was pressed')")
    assert len(stops) == 1


def test_the_press_alone_stops_before_the_button_is_released(live: Page, stops: list[int]) -> None:
    x, y = live.middle("#stop")
    live.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left")
    eventually(lambda: bool(stops))


def test_stop_can_be_pressed_again_after_an_arm_that_was_not_armed(
    live: Page, link: ConsoleLink, stops: list[int]
) -> None:
    show(live, link, "disarmed")
    live.press("Escape", "Escape", 27)
    eventually(lambda: bool(stops))
    live.wait("document.getElementById('log').textContent.includes('Stop was pressed')")
    show(live, link, "run")
    live.wait("document.getElementById('stop').textContent === 'STOP'")
    live.press("Escape", "Escape", 27)
    live.wait("document.getElementById('stop').textContent !== 'STOP'")
    link.listen()


def test_the_button_stops_a_run_although_the_stream_is_lost(live: Page, stops: list[int]) -> None:
    live.value("socket.onclose = null, socket.close()")
    live.click("#stop")
    eventually(lambda: bool(stops))


def test_a_page_without_scripts_still_stops_the_run(live: Page, stops: list[int]) -> None:
    live.value("window.isOld = true")
    live.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        live.call("Page.reload")
        live.wait("!window.isOld && document.readyState === 'complete'")
        live.click("#stop")
        eventually(lambda: bool(stops))
    finally:
        live.call("Emulation.setScriptExecutionDisabled", value=False)


def test_tab_reaches_stop_and_every_button_in_the_order_of_the_page(live: Page) -> None:
    reached = []
    for _ in range(3):
        live.press("Tab", "Tab", 9)
        reached.append(live.value("document.activeElement.id"))
    assert reached[:2] == ["invite", "stop"]


def test_a_lost_console_is_shown_as_lost(live: Page, link: ConsoleLink) -> None:
    os.kill(link._process.pid, signal.SIGSTOP)
    try:
        live.wait("document.getElementById('state').textContent === 'NO CONNECTION'")
    finally:
        os.kill(link._process.pid, signal.SIGCONT)
    live.wait("document.getElementById('state').textContent !== 'NO CONNECTION'")


def test_a_run_that_says_nothing_is_shown_as_silent(live: Page) -> None:
    live.wait("document.getElementById('state').textContent === 'NO NEWS'")


def test_the_end_of_the_run_stays_on_the_page(live: Page, link: ConsoleLink) -> None:
    end = Event(0.0, "the run ended: stopped by the operator", "end")
    link.close(status("safe"), end)
    live.wait("document.getElementById('meaning').textContent.startsWith('the run has ended')")
    assert live.value("document.getElementById('state').textContent") == "SAFE"


def test_a_page_holds_a_run_until_it_is_hidden(page: Page, link: ConsoleLink, live: Page) -> None:
    link.offer(msgspec.structs.replace(OPENING, held=True))
    page.call("Page.reload")
    page.wait("document.getElementById('hold-box').hidden === false")
    assert not link.is_held
    page.click("#hold")
    eventually(lambda: link.is_held)
    assert page.value("document.getElementById('hold').getAttribute('aria-pressed')") == "true"
    page.value("Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'})")
    eventually(lambda: not link.is_held)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_stop_is_in_reach_and_everything_can_be_read(
    live: Page, link: ConsoleLink, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    live.show(size, dark=dark)
    for state in ("run", "hold", "latched", "disarmed"):
        link.offer(tick(100))
        show(live, link, state, cause="a sentence on the cause", misses=3)
        assert live.value(FAINT) == []
    assert live.value("document.documentElement.scrollWidth") <= size[0]
    box = live.value(
        "(() => { const b = document.getElementById('stop').getBoundingClientRect();"
        " return [b.top, b.bottom, b.width, b.height]; })()"
    )
    assert 0 <= box[0] < box[1] <= size[1]
    assert box[2] >= 0.6 * min(size[0], 800)
    assert box[3] >= 80
    assert live.value(UNNAMED) == []


# -- Another origin --------------------------------------------------------------------------------

ATTACK = """<!doctype html><title>evil</title><script>
const url = "URL";
const said = {};
async function attack() {
  const tried = async (name, act) => {
    try { said[name] = await act(); } catch (error) { said[name] = `refused: ${error}`; }
  };
  await tried("read", async () => (await fetch(url, {credentials: "include"})).text());
  await tried("opaque", async () =>
    (await fetch(url, {credentials: "include", mode: "no-cors"})).type);
  await tried("stop", async () => (await fetch(`${url}stop`,
    {method: "POST", credentials: "include", mode: "no-cors"})).type);
  await tried("socket", () => new Promise((done, fail) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}live`);
    socket.onopen = () => { socket.send("stop"); done("open"); };
    socket.onerror = () => fail("closed");
  }));
  await tried("script", () => new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = `${url}live.js`;
    script.onload = () => done("loaded");
    script.onerror = () => fail("closed");
    document.head.append(script);
  }));
  await tried("frame", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.src = url;
    frame.onload = () => { try { done(frame.contentDocument.title); } catch { done("refused"); } };
    document.body.append(frame);
  }));
  await tried("form", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.name = "form";
    document.body.append(frame);
    const form = document.createElement("form");
    form.method = "post"; form.action = `${url}stop`; form.target = "form";
    document.body.append(form);
    form.submit();
    setTimeout(() => done("submitted"), 500);
  }));
  window.done = true;
}
addEventListener("load", attack);
</script><body></body>"""


@contextmanager
def evil_site(url: str) -> Iterator[int]:
    """Serve a page that attacks a console, on another port of the same computer."""

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(ATTACK.replace("URL", url).encode())

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_can_neither_read_nor_stop(
    live: Page, link: ConsoleLink, stops: list[int], host: str
) -> None:
    # The browser holds the cookie of the console: the same host, another port, is the hardest case.
    url = link.url.partition("enter")[0]
    with evil_site(url) as port:
        live.open(f"http://{host}:{port}/")
        live.wait("window.done === true")
        said = live.value("said")
    assert said["read"].startswith("refused: TypeError")
    assert said["socket"] == "refused: closed"
    assert said["script"] == "refused: closed"
    assert said["frame"] in ("", "refused")
    assert said["form"] == "submitted"
    assert stops == []
    link.listen()
    assert link.stopped_by is None
