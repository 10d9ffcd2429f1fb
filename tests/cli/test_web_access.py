"""Who may talk to ``beeq web``, and to the application under servers of others: attacks over real sockets."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from beeq.jobs import JOB_TYPES
from beeq.protocol.keys import Keys
from tests.cli.command import Beeq

SCRIPT = "/v1/generate/script"
WANTED: dict[str, Any] = {"projectId": "project-1", "userId": 7, "parameters": {"topic": "bees"}}
SERVING = "Serving on "
TOKEN = "t0ken-of-this-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def prefix(audit: list[Keys], beeq: Beeq) -> str:
    """A prefix of this test's own."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, name) for name in JOB_TYPES]
    beeq.environment |= {"BEEQ_PREFIX": prefix}
    return prefix


@pytest.fixture
def start(beeq: Beeq, prefix: str) -> Callable[..., str]:
    """Start ``beeq web`` on a free port; return where it serves."""

    def start(*arguments: str, **environment: str) -> str:
        web = beeq.start("web", "--port", "0", *arguments, **environment)
        return web.until(SERVING).partition(SERVING)[2]

    return start


def own_address() -> str:
    """Return an address of this machine that is not loopback's; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def waiting(beeq: Beeq) -> int:
    return int(beeq.stats("ai-generation")["waiting"])


def post(url: str, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}{SCRIPT}", json=WANTED, headers=sent).status_code


def test_a_page_on_a_rebound_name_starts_no_jobs(start, beeq):
    url = start()
    assert post(url, host="evil.example", origin="http://evil.example") == 403
    assert post(url, host="evil.example", origin="http://evil.example", sec_fetch_site="same-origin") == 403
    assert post(url, origin="http://evil.example", sec_fetch_site="cross-site") == 403
    assert httpx.get(f"{url}/v1/stats", headers={"host": "evil.example"}).status_code == 403
    assert waiting(beeq) == 0
    assert post(url) == 200
    assert post(url.replace("127.0.0.1", "localhost"), origin=url.replace("127.0.0.1", "localhost")) == 200
    assert waiting(beeq) == 2


def test_hosts_are_allowed_by_option_and_by_variable(start):
    url = start("--allow-host", "a.example", "--allow-host", "b.example:1,c.example")
    assert [post(url, host=host) for host in ("a.example", "b.example:1", "c.example:5")] == [200] * 3
    assert [post(url, host=host) for host in ("b.example", "d.example")] == [403] * 2
    url = start(BEEQ_ALLOW_HOST="a.example, b.example:1")
    assert [post(url, host=host) for host in ("a.example", "b.example:1")] == [200] * 2
    assert post(url, host="c.example") == 403


def test_with_a_token_all_but_health_needs_it(start, beeq):
    url = start(BEEQ_WEB_TOKEN=TOKEN)
    assert post(url) == 401
    assert post(url, authorization="Bearer wrong") == 401
    assert httpx.get(f"{url}/v1/stats").status_code == 401
    assert httpx.get(f"{url}/openapi.json").status_code == 401
    assert httpx.get(f"{url}/health").status_code == 200
    assert waiting(beeq) == 0
    assert post(url, **BEARER) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "0"])
def test_beyond_this_machine_it_needs_a_token(beeq, prefix, host):
    for arguments, environment in (
        (("--host", host), {}),
        ((), {"BEEQ_HOST": host}),
    ):
        ran = beeq.run("web", "--port", "0", *arguments, **environment)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "BEEQ_WEB_TOKEN" in ran.stderr
        assert "Traceback" not in ran.stderr
    # An empty token is none.
    ran = beeq.run("web", "--port", "0", "--host", host, BEEQ_WEB_TOKEN="")
    assert ran.returncode == 2
    assert "BEEQ_WEB_TOKEN: " in ran.stderr


def test_with_a_token_it_serves_other_machines(start):
    port = start("--host", "0.0.0.0", BEEQ_WEB_TOKEN=TOKEN).rpartition(":")[2]
    for address in ("127.0.0.1", own_address()):
        url = f"http://{address}:{port}"
        assert httpx.get(f"{url}/health").status_code == 200
        assert post(url) == 401
        assert post(url, **BEARER) == 200
        assert post(url, x_forwarded_for="203.0.113.9", **BEARER) == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "127.0.0.2", "localhost", "::1"])
def test_on_loopback_it_needs_none(start, host):
    url = start("--host", host)
    assert httpx.get(f"{url}/v1/stats").status_code == 200


def test_the_header_of_a_proxy_makes_nobody_local(start, beeq):
    url = start()
    assert post(url, x_forwarded_for="127.0.0.1") == 403
    assert post(url, forwarded="for=127.0.0.1") == 403
    assert waiting(beeq) == 0


# Under servers of others.


@pytest.fixture
def serve(beeq: Beeq, prefix: str) -> Callable[..., str]:
    """Start uvicorn's own command; return its port."""

    def serve(*arguments: str, **environment: str) -> str:
        server = beeq.start_module("uvicorn", "beeq.web:app", "--port", "0", *arguments, **environment)
        return server.until("Uvicorn running on ").split("http://")[1].split()[0].rpartition(":")[2]

    return serve


def test_under_uvicorn_only_this_machine_is_answered(serve, beeq):
    port = serve("--host", "0.0.0.0")
    assert post(f"http://127.0.0.1:{port}") == 200
    assert post(f"http://localhost:{port}") == 200
    stranger = f"http://{own_address()}:{port}"
    for headers in ({}, {"host": "localhost"}, {"host": "127.0.0.1", "x_forwarded_for": "127.0.0.1"}):
        assert post(stranger, **headers) == 403
    assert httpx.get(f"{stranger}/health").status_code == 403
    # uvicorn believes a proxy on this machine; so does nobody else.
    assert post(f"http://127.0.0.1:{port}", x_forwarded_for="127.0.0.1") == 403
    assert post(f"http://127.0.0.1:{port}", host="evil.example", origin="http://evil.example") == 403
    assert waiting(beeq) == 2


def test_under_uvicorn_a_token_opens_it(serve):
    port = serve("--host", "0.0.0.0", BEEQ_WEB_TOKEN=TOKEN, BEEQ_ALLOW_HOST="queue.example")
    url = f"http://{own_address()}:{port}"
    assert post(url) == 401
    assert httpx.get(f"{url}/health").status_code == 200
    assert post(url, **BEARER) == 200
    assert (
        post(f"http://127.0.0.1:{port}", host="queue.example", x_forwarded_for="203.0.113.9", **BEARER) == 200
    )
    assert post(url, host="evil.example", **BEARER) == 403


def test_on_a_socket_of_the_file_system_it_needs_a_token(serve, beeq):
    path = str(beeq.folder / "s")
    server = beeq.start_module("uvicorn", "beeq.web:app", "--uds", path)
    server.until("Uvicorn running on ")
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://localhost") as client:
        assert client.post(SCRIPT, json=WANTED).status_code == 403
