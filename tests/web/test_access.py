"""Who may talk to the HTTP face: no page of others, no name of others, no stranger, nobody without the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from beeq.web import Policy
from beeq.web.routes import ROUTES
from tests.support.server import Server
from tests.web.app import SCRIPT, WANTED, app_on, error_of, serving

TOKEN = "t0ken-of-this-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}
#: Every route with every method, and paths that are none.
REQUESTS = [
    (method, path.replace("{jobId}", "x"))
    for path in (*ROUTES, "/", "/nowhere", "/health/", "//health")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW")
]


async def asked(client: httpx.AsyncClient, **headers: str | bytes) -> int:
    """Ask for a script; return the answer's status."""
    sent: Any = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await client.post(SCRIPT, json=WANTED, headers=sent)).status_code


@asynccontextmanager
async def at(app: Any, url: str, **transport: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to an application that runs, by another URL or from another address."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, **transport), base_url=url) as client:
        yield client


async def waiting(client: httpx.AsyncClient, **headers: str) -> int:
    answer = await client.get("/v1/stats", headers=headers)
    return int(answer.json()["ai-generation"]["waiting"])


# Hosts.


@pytest.mark.parametrize("with_origin", [True, False])
async def test_a_host_of_others_is_refused(client, with_origin):
    """A page whose name resolves to this machine asks with its own name, and is of that origin."""
    answered = []
    for host in (
        "evil.example",
        "evil.example:8000",
        "evil",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "0.0.0.0:8000",
        "[::]",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "192.168.1.1",
        "203.0.113.7:80",
        "[2001:db8::1]:8000",
        "[::ffff:10.0.0.1]",
        "xn--lcalhost-0za",
    ):
        headers = {"host": host, **({"origin": f"http://{host}"} if with_origin else {})}
        for method, path in (("POST", SCRIPT), ("GET", "/v1/stats"), ("GET", "/v1/jobs/x/status")):
            answer = await client.request(method, path, json=WANTED, headers=headers)
            is_refused = answer.status_code == 403 and "BEEQ_ALLOW_HOST" in error_of(answer)
            if not is_refused or "evil" in answer.text + str(answer.headers):
                answered.append((host, method, path, answer.status_code, answer.text))
    assert answered == []
    assert await waiting(client) == 0


async def test_the_names_of_loopback_are_ours(client):
    statuses = {}
    for host in (
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "localhost.:80",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.255.0.9",
        "[::1]",
        "[::1]:65535",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
    ):
        statuses[host] = [
            await asked(client, host=host),
            await asked(client, host=host, origin=f"http://{host}"),
        ]
    assert {host: found for host, found in statuses.items() if found != [200, 200]} == {}


async def test_a_host_that_is_none_is_refused(client):
    statuses = {}
    for host in (
        "",
        " ",
        "localhost:",
        "localhost:x",
        "localhost:80:80",
        "localhost:65536",
        "localhost:٣",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost/",
        "http://localhost",
        "[::1]evil.example",
        "[::1",
        "::1",
        "[::1%25lo]",
        "[evil]",
        "lоcalhost",  # a letter of another alphabet
        "localhost..",
        ".localhost",
        "a" * 300,
    ):
        statuses[host] = await asked(client, host=host.encode())
    assert {host: status for host, status in statuses.items() if status != 400} == {}


async def test_there_must_be_one_host(client, valkey):
    app, said = app_on(valkey.url), []

    async def send(message):
        said.append(message)

    async def receive():
        return {"type": "http.request"}

    hosts = ([], [b"localhost", b"localhost"], [b"localhost", b"evil.example"])
    async with app.running():
        for given in hosts:
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/v1/stats",
                "query_string": b"",
                "http_version": "1.0",
                "client": ("127.0.0.1", 5),
                "headers": [(b"host", host) for host in given],
            }
            await app(scope, receive, send)
    assert [message["status"] for message in said if "status" in message] == [400] * len(hosts)


async def test_hosts_can_be_allowed(valkey, prefix):
    app = app_on(valkey.url, prefix, allowed_hosts=("Queue.Example", "b.example:8443", "10.0.0.7"))
    async with serving(app) as client:
        for host in ("queue.example", "queue.example:81", "QUEUE.example.", "b.example:8443", "10.0.0.7:1"):
            assert await asked(client, host=host) == 200
        for host in ("b.example", "b.example:80", "x.queue.example", "queue.example.org", "10.0.0.8"):
            assert await asked(client, host=host) == 403
        # A proxy may end the TLS, and may have a Host of its own.
        assert await asked(client, host="queue.example", origin="https://queue.example") == 200
        assert await asked(client, host="127.0.0.1:8000", origin="https://queue.example") == 200
        assert await asked(client, host="127.0.0.1:8000", origin="https://b.example:8443") == 200
        assert await asked(client, host="127.0.0.1:8000", origin="https://queue.example:9") == 403
        assert await asked(client, host="127.0.0.1:8000", origin="https://b.example") == 403


@pytest.mark.parametrize(
    "hosts", [["*"], ["a b"], ["http://a.example"], ["a.example:x"], ["a.example/"], [""]]
)
def test_what_is_no_host_cannot_be_allowed(hosts):
    with pytest.raises(ValueError, match="is not a host"):
        Policy(allowed_hosts=tuple(hosts))


@pytest.mark.parametrize("value", [0, -1, True, "many", 1.5])
def test_a_limit_is_a_number_from_one_on(value):
    with pytest.raises(ValueError, match="max_waiting must be"):
        Policy(max_waiting=value)


@pytest.mark.parametrize("name", ["testserver", "test", "web"])
async def test_transports_of_tests_are_no_strangers(valkey, prefix, name):
    app = app_on(valkey.url, prefix)
    async with app.running():
        for client_address in (("127.0.0.1", 123), ("testclient", 50_000)):
            async with at(app, f"http://{name}", client=client_address) as client:
                assert await asked(client) == 200
                assert await asked(client, host="evil.example") == 403
                assert await asked(client, host="evil") == 403
        async with at(app, f"http://{name}", client=("203.0.113.9", 5)) as client:
            assert await asked(client) == 403
        async with at(app, "http://evil.example") as client:
            assert await asked(client) == 403


# Origins.


async def test_a_page_of_another_origin_is_refused(client):
    answered = []
    for origin in (
        "http://evil.example",
        "https://evil.example",
        "http://localhost",  # another port of this machine
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://localhost:8000.evil.example",
        "http://localhost:8000@evil.example",
        "null",
        "",
        "localhost:8000",
        "//localhost:8000",
        "file://",
        "chrome-extension://localhost:8000",
        "ftp://localhost:8000",
        "http://localhost:8000/",
        "http://localhost:8000 http://evil.example",
        "http://localhost:99999",
    ):
        headers = {"host": "localhost:8000", "origin": origin}
        for method, path in (
            ("POST", SCRIPT),
            ("OPTIONS", SCRIPT),
            ("GET", "/v1/stats"),
            ("HEAD", "/health"),
        ):
            answer = await client.request(method, path, json=WANTED, headers=headers)
            if answer.status_code != 403:
                answered.append((origin, method, path, answer.status_code))
    assert answered == []
    assert await waiting(client) == 0


@pytest.mark.parametrize(
    "origin", ["http://localhost:8000", "https://localhost:8000", "http://LOCALHOST:8000"]
)
async def test_a_page_of_our_own_origin_may_ask(client, origin):
    assert await asked(client, host="localhost:8000", origin=origin) == 200


async def test_a_default_port_may_be_left_out(client):
    assert await asked(client, host="localhost", origin="http://localhost:80") == 200
    assert await asked(client, host="localhost:80", origin="http://localhost") == 200
    assert await asked(client, host="localhost:443", origin="https://localhost") == 200
    assert await asked(client, host="localhost:443", origin="http://localhost") == 403


async def test_a_page_without_tls_is_not_one_with_it(valkey, prefix):
    app = app_on(valkey.url, prefix)
    async with app.running(), at(app, "https://localhost") as client:
        assert await asked(client, origin="https://localhost") == 200
        assert await asked(client, origin="http://localhost") == 403


async def test_two_origins_are_refused(client):
    headers = [("origin", "http://localhost"), ("origin", "http://evil.example")]
    assert (await client.post(SCRIPT, json=WANTED, headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "Cross-Site", "cross-site, none", "", "anything"]
)
async def test_what_the_browser_says_of_another_site_counts(client, site):
    answered = []
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for path in (SCRIPT, "/v1/stats", "/health", "/nowhere"):
            answer = await client.request(method, path, headers={"sec-fetch-site": site})
            if answer.status_code != 403:
                answered.append((method, path, answer.status_code))
    assert answered == []


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_our_own_site_and_a_typed_address_may_ask(client, site):
    assert await asked(client, sec_fetch_site=site) == 200


# The token.


@pytest.fixture
async def guarded(valkey: Server, prefix: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has a token."""
    async with serving(app_on(valkey.url, prefix, token=TOKEN)) as client:
        yield client


async def test_every_route_but_health_needs_the_token(guarded):
    wrong = []
    for method, path in REQUESTS:
        of_health = {"GET": 200, "HEAD": 200, "OPTIONS": 204}.get(method, 405)
        expected = (of_health, None) if path == "/health" else (401, "Bearer")
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = await guarded.request(method, path, json=WANTED, headers=headers)
            found = (answer.status_code, answer.headers.get("www-authenticate"))
            if found != expected:
                wrong.append((method, path, headers, found))
    assert wrong == []
    assert await waiting(guarded, **BEARER) == 0
    with_token = {
        (method, path): (await guarded.request(method, path, headers=BEARER)).status_code
        for method, path in REQUESTS
    }
    assert [request for request, status in with_token.items() if status == 401] == []


async def test_every_route_is_guarded_from_pages_of_others(guarded):
    answered = []
    for method, path in REQUESTS:
        for headers in (
            {"host": "evil.example"},
            {"origin": "http://evil.example"},
            {"sec-fetch-site": "cross-site"},
        ):
            answer = await guarded.request(method, path, headers={**BEARER, **headers})
            if answer.status_code != 403:
                answered.append((method, path, headers, answer.status_code))
    assert answered == []


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Bearer\t{TOKEN}",
        "Bearer \xff",
    ],
)
async def test_a_wrong_token_is_refused(guarded, authorization):
    answer = await guarded.post(
        SCRIPT, json=WANTED, headers={"authorization": authorization.encode("latin-1")}
    )
    assert answer.status_code == 401
    assert TOKEN not in answer.text + str(answer.headers)


async def test_two_tokens_are_none(guarded):
    headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer wrong")]
    assert (await guarded.get("/v1/stats", headers=headers)).status_code == 401


async def test_the_token_is_taken_from_anywhere(valkey, prefix):
    app = app_on(valkey.url, prefix, token=TOKEN)
    async with app.running(), at(app, "http://10.1.2.3:8000", client=("203.0.113.9", 5)) as client:
        assert await asked(client, **BEARER) == 200
        assert await asked(client, authorization=f"bearer {TOKEN}", x_forwarded_for="198.51.100.1") == 200
        assert (await client.get("/health")).status_code == 200  # a probe has no token, and no name for us
        assert await asked(client, host="evil.example", **BEARER) == 403


def test_the_token_is_not_shown():
    assert TOKEN not in repr(Policy(token=TOKEN))
    with pytest.raises(ValueError, match="^the token must have") as caught:
        Policy(token="hush hush")
    assert "hush" not in str(caught.value)


# Without a token: this machine only.


@pytest.mark.parametrize(
    "client_address",
    [
        ("203.0.113.9", 5),
        ("10.0.0.1", 5),
        ("0.0.0.0", 5),
        ("::", 5),
        ("2001:db8::1", 5),
        ("::ffff:203.0.113.9", 5),
        ("", 0),
        ("unix:", 0),
        ("localhost.evil.example", 5),
        None,
    ],
)
async def test_without_a_token_strangers_are_refused(valkey, prefix, client_address):
    app = app_on(valkey.url, prefix)
    async with app.running(), at(app, "http://127.0.0.1:8000", client=client_address) as client:
        assert await asked(client) == 403
        for path in (*ROUTES, "/nowhere"):
            answer = await client.get(path)
            assert answer.status_code == 403
            assert "BEEQ_WEB_TOKEN" in error_of(answer)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_without_a_token_this_machine_is_answered(valkey, prefix, address):
    app = app_on(valkey.url, prefix)
    async with app.running(), at(app, "http://127.0.0.1:8000", client=(address, 5)) as client:
        assert await asked(client) == 200


async def test_a_connection_from_loopback_to_elsewhere_is_not_local(valkey, prefix):
    """So it looks where something hands connections of others on."""
    app = app_on(valkey.url, prefix, allowed_hosts=("10.1.2.3",))
    async with app.running(), at(app, "http://10.1.2.3:8000") as client:
        assert await asked(client) == 403


@pytest.mark.parametrize("value", ["127.0.0.1", ""])
async def test_without_a_token_a_proxy_is_refused(client, value):
    answered = []
    for name in (
        "forwarded",
        "via",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "x-forwarded-proto",
        "x-forwarded",
        "forwarded-for",
        "x-real-ip",
        "x-client-ip",
        "client-ip",
        "true-client-ip",
        "fastly-client-ip",
        "x-cluster-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "do-connecting-ip",
        "x-original-forwarded-for",
        "x-original-url",
        "x-originating-ip",
        "x-remote-ip",
        "x-remote-addr",
        "x-envoy-external-address",
        "x-azure-clientip",
        "x-appengine-user-ip",
        "x-proxyuser-ip",
        "cdn-loop",
        "tailscale-user-login",
    ):
        answer = await client.post(SCRIPT, json=WANTED, headers={name: value})
        if answer.status_code != 403 or "BEEQ_WEB_TOKEN" not in error_of(answer):
            answered.append((name, answer.status_code, answer.text))
    assert answered == []


async def test_other_headers_are_no_signs_of_a_proxy(client):
    """What clients on this machine send by themselves: Node's fetch, traces, ids of requests."""
    headers = {
        "sec-fetch-mode": "cors",
        "x-request-id": "1",
        "x-requested-with": "XMLHttpRequest",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-user-id": "7",
        "referer": "http://localhost/",
    }
    assert (await client.post(SCRIPT, json=WANTED, headers=headers)).status_code == 200
