"""Only a page of the console itself, opened with a token that works once, reads or stops a run."""

from __future__ import annotations

import pytest
from tests.console.conftest import OPENING
from tests.console.visitor import Visitor, heard
from websockets.exceptions import InvalidStatus

from gatort.console.access import MOST_SESSIONS, Access
from gatort.console.address import Address
from gatort.console.link import ConsoleLink
from gatort.runtime.errors import ConfigError

OPEN = ("/enter", "/enter.js", "/console.css", "/icon.svg")
CLOSED = ("/", "/live.js", "/plots.js")
FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)


def test_a_token_opens_one_session_and_then_is_worth_nothing(link: ConsoleLink) -> None:
    first, second = Visitor(link.url), Visitor(link.url)
    assert first.enter() == 204
    assert second.enter() == 403
    assert first.ask("GET", "/")[0] == 200


def test_the_token_stands_in_the_part_of_the_url_that_no_server_gets(link: ConsoleLink) -> None:
    assert "/enter#" in link.url


def test_the_cookie_is_hidden_from_scripts_and_other_sites(link: ConsoleLink) -> None:
    visitor = Visitor(link.url)
    cookie = visitor.ask("POST", "/enter", visitor.token)[1]["set-cookie"]
    assert "; HttpOnly; SameSite=Strict; Path=/" in cookie
    assert cookie.startswith(f"gatort_{visitor.port}=")


@pytest.mark.parametrize("token", ["", "x" * 32, "x" * 4_000, "é"])
def test_another_token_is_refused(link: ConsoleLink, token: str) -> None:
    visitor = Visitor(link.url)
    assert visitor.ask("POST", "/enter", token)[0] == 403
    assert visitor.enter() == 204


def test_without_a_session_only_the_entrance_is_shown(link: ConsoleLink) -> None:
    visitor = Visitor(link.url)
    assert [visitor.ask("GET", path)[0] for path in OPEN] == [200] * len(OPEN)
    assert [visitor.ask("GET", path)[0] for path in CLOSED] == [401] * len(CLOSED)
    assert visitor.ask("POST", "/invite")[0] == visitor.ask("POST", "/stop")[0] == 401
    with pytest.raises(InvalidStatus), visitor.live():
        pass


def test_a_wrong_cookie_is_no_session(visitor: Visitor) -> None:
    for cookie in ("gatort_1=x", f"gatort_{visitor.port}=x", "=;;\x01", "x" * 5_000):
        assert visitor.ask("GET", "/", headers={"Cookie": cookie})[0] in (400, 401)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_request_for_another_host_is_refused(visitor: Visitor, host: str) -> None:
    # A name that an attacker lets point at this computer (DNS rebinding).
    assert visitor.ask("GET", "/", headers={"Host": host})[0] == 421


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_origin_neither_reads_nor_stops(
    visitor: Visitor, stops: list[int], headers: dict[str, str]
) -> None:
    assert visitor.ask("POST", "/stop", headers=headers)[0] == 403
    assert visitor.ask("POST", "/invite", headers=headers)[0] == 403
    assert visitor.ask("GET", "/", headers=headers)[0] == 403
    with pytest.raises(InvalidStatus), visitor.live(headers):
        pass
    assert stops == []


def test_a_request_that_acts_must_name_its_origin(visitor: Visitor, stops: list[int]) -> None:
    assert visitor.ask("POST", "/stop", headers={"Origin": None})[0] == 403
    with pytest.raises(InvalidStatus), visitor.live({"Origin": ""}):
        pass
    assert stops == []


def test_a_link_on_another_site_leads_to_the_entrance_alone(visitor: Visitor) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert visitor.ask("GET", "/enter", headers=link)[0] == 200
    assert visitor.ask("GET", "/", headers=link)[0] == 403


@pytest.mark.parametrize("path", ["/", "/enter", "/nothing", "/live.js"])
def test_every_answer_keeps_other_pages_and_foreign_scripts_out(
    visitor: Visitor, path: str
) -> None:
    headers = visitor.ask("GET", path)[1]
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not {name for name in headers if name.startswith("access-control-")}


def test_refusals_carry_the_same_headers(link: ConsoleLink) -> None:
    headers = Visitor(link.url).ask("GET", "/")[1]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_an_open_page_invites_one_more_device(visitor: Visitor, link: ConsoleLink) -> None:
    link.offer(OPENING)
    url = visitor.ask("POST", "/invite")[2].decode()
    phone = Visitor(url)
    assert phone.enter() == 204
    assert Visitor(url).enter() == 403
    with phone.live() as socket:
        assert heard(socket, lambda news: "opening" in news)["opening"]["title"] == OPENING.title


def test_the_oldest_session_ends_when_there_are_too_many() -> None:
    access = Access(Address("127.0.0.1", 1))
    secrets = [access.redeem(access.invite().partition("#")[2]) for _ in range(MOST_SESSIONS + 1)]
    from starlette.datastructures import Headers

    known = [access.has_session(Headers({"cookie": f"gatort_1={each}"})) for each in secrets]
    assert known == [False] + [True] * MOST_SESSIONS


def test_an_address_is_a_host_and_a_port() -> None:
    assert Address.read("192.168.1.5:8765") == Address("192.168.1.5", 8765)
    assert Address.read("[::1]:80").hosts == {"[::1]:80", "localhost:80"}
    assert Address.read("127.0.0.1:1").warning is None
    warning = Address.read("192.168.1.5:8765").warning
    assert warning is not None
    assert "not encrypted" in warning


@pytest.mark.parametrize("text", ["", "8765", "host:8765", "127.0.0.1:x", "127.0.0.1:70000", ":1"])
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen: expected"):
        Address.read(text)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80"])
def test_an_address_that_stands_for_all_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one address of this computer"):
        Address.read(text)
