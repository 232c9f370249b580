"""Pages of other sites may not open WebSockets, unless they are allowed to; then they may call the routes as well."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from service.core.origin import is_of_host, require_origin
from tests.api.wire import MEDIA_TYPE, readings, require_problem_body, stream, stream_at
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer

SHOP, PANEL = "https://shop.example", "http://panel.local:3000"


@pytest.fixture(scope="module")
def open_service(redis: RedisServer) -> Iterator[ConveyorServer]:
    with ConveyorServer(redis_url=redis.url, allowed_origins=f"{SHOP}, {PANEL}") as service:
        yield service


def require_refused(service: ConveyorServer, origin: str, path: str = "/v1/stream") -> None:
    with pytest.raises(InvalidStatus) as refused, stream_at(service, path, origin=origin):
        pass
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (403, MEDIA_TYPE)
    require_problem_body(json.loads(response.body), 403, "forbidden", origin)


def test_what_is_no_browser_sends_no_origin_and_passes(service: ConveyorServer) -> None:
    with stream_at(service, "/v1/stream") as opened:
        assert opened.ask([]) == []


def test_a_page_of_the_service_s_own_host_may(service: ConveyorServer) -> None:
    with stream_at(service, "/v1/stream", origin=service.url) as opened:
        assert opened.ask([]) == []


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/sessions/pump/stream?model=hotspot", "/v1/nothing"])
@pytest.mark.parametrize("origin", [SHOP, "null", "http://127.0.0.1", "http://127.0.0.1:1", "", "file://"])
def test_a_page_of_elsewhere_may_not(service: ConveyorServer, origin: str, path: str) -> None:
    require_refused(service, origin, path)


def test_a_second_origin_does_not_help(service: ConveyorServer) -> None:
    both = [("Origin", SHOP), ("Origin", service.url)]
    for headers in (both, both[::-1]):
        with pytest.raises(InvalidStatus) as refused, stream_at(service, "/v1/stream", additional_headers=headers):
            pass
        assert refused.value.response.status_code == 400


def test_a_refused_page_opens_no_session(service: ConveyorServer, client: httpx.Client, session_id: str) -> None:
    require_refused(service, SHOP, f"/v1/sessions/{session_id}/stream?model=hotspot")
    assert client.get(f"/v1/sessions/{session_id}").status_code == 404


@pytest.mark.parametrize("origin", [SHOP, PANEL])
def test_a_page_of_an_allowed_origin_may(open_service: ConveyorServer, session_id: str, origin: str) -> None:
    with stream(open_service, session_id, "?model=hotspot", origin=origin) as opened:
        assert opened.receive()["step"] == 0
    require_refused(open_service, origin + ".evil.example")
    require_refused(open_service, origin.replace("://", "://x"))
    require_refused(open_service, "https://other.example")


@pytest.mark.parametrize("path", ["/v1/steps", "/v1/sessions/pump/steps", "/v1/sessions", "/v1/tickets"])
def test_a_preflight_is_answered_before_anything_else(open_service: ConveyorServer, path: str) -> None:
    asked = {"origin": PANEL, "access-control-request-method": "POST"}
    wanted = {"access-control-request-headers": "authorization,content-type"}
    allowed = httpx.options(open_service.url + path, headers=asked | wanted, timeout=30)
    assert allowed.status_code == 200, allowed.text
    assert allowed.headers["access-control-allow-origin"] == PANEL
    assert "POST" in allowed.headers["access-control-allow-methods"]
    refused = httpx.options(open_service.url + path, headers=asked | {"origin": "https://other.example"}, timeout=30)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_what_a_page_does_to_open_a_socket(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = bearer(ring.add("plant", *ALL))
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path, allowed_origins=SHOP) as service:
        with httpx.Client(base_url=service.url, headers={"origin": SHOP}, timeout=30) as page:
            wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            assert page.options("/v1/tickets", headers=wanted).status_code == 200, "a preflight carries no key"
            nobody, issued = page.post("/v1/tickets"), page.post("/v1/tickets", headers=key)
        assert [nobody.status_code, issued.status_code] == [401, 201]
        for answer in (nobody, issued):
            assert answer.headers["access-control-allow-origin"] == SHOP
        path = f"/v1/stream?ticket={issued.json()['ticket']}"
        require_refused(service, "https://other.example", path)
        with stream_at(service, path, origin=SHOP) as opened:
            assert opened.ask([]) == [], "a page that was refused has not used it up"


def test_pages_of_allowed_origins_read_answers_and_errors(open_service: ConveyorServer, session_id: str) -> None:
    with httpx.Client(base_url=open_service.url, headers={"origin": SHOP}, timeout=30) as page:
        answers = [
            page.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"}),
            page.post(f"/v1/sessions/{session_id}/steps", json={"x": readings(1)[0]}),
            page.post(f"/v1/sessions/{session_id}/steps", json={"x": []}),
        ]
        stranger = page.get("/v1/models", headers={"origin": "https://other.example"})
    assert [answer.status_code for answer in answers] == [201, 200, 422]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {SHOP}
    assert all("RateLimit" in answer.headers["access-control-expose-headers"] for answer in answers)
    assert "access-control-allow-origin" not in stranger.headers


def test_where_no_origin_is_allowed_no_page_of_elsewhere_reads_anything(service: ConveyorServer) -> None:
    asked = {"origin": SHOP, "access-control-request-method": "POST"}
    assert httpx.options(f"{service.url}/v1/steps", headers=asked).status_code == 405
    assert "access-control-allow-origin" not in httpx.get(f"{service.url}/v1/models", headers={"origin": SHOP}).headers


def test_all_origins_can_be_allowed(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, allowed_origins="*") as service:
        with stream_at(service, "/v1/stream", origin="https://anything.example") as opened:
            assert opened.ask([]) == []


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("https://api.example", "api.example", True),
        ("https://api.example", "api.example:443", True),
        ("https://api.example:443", "API.example", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://api.example", "api.example:80", False),
        ("http://api.example", "api.example:8000", False),
        ("https://api.example.evil", "api.example", False),
        ("https://evil.example", "", False),
        ("null", "null", False),
        ("null", "", False),
        ("", "", False),
        ("ftp://api.example", "api.example", False),
        ("https://", "", False),
    ],
)
def test_an_origin_is_compared_with_the_host(origin: str, host: str, same: bool) -> None:
    assert is_of_host(origin, host) is same


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://Shop.Example", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:443", "http://shop.example:443"),
        (" http://[::1]:3000 ", "http://[::1]:3000"),
        ("*", "*"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(given: str, meant: str) -> None:
    assert require_origin(given) == meant


@pytest.mark.parametrize("wrong", ["shop.example", "https://shop.example/", "https://a b", "null", "", "https://*.a"])
def test_what_is_no_origin_ends_the_start_with_a_word_on_it(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"is no origin; https://example\.com"):
        require_origin(wrong)
