"""The page as ``beeq web`` serves it: beside the routes, with tokens that act and tokens that look."""

from __future__ import annotations

import signal
import time
import uuid

import httpx
import pytest

from beeq.jobs import JOB_TYPES
from beeq.protocol.keys import Keys
from tests.web.page.forms import settled

SCRIPT = "/v1/generate/script"
WANTED = {"projectId": "project-1", "userId": 7, "parameters": {"topic": "bees"}}
TOKENS = {"BEEQ_WEB_TOKEN": "t0ken-that-acts", "BEEQ_WEB_READ_TOKEN": "t0ken-that-looks"}
ACTS, LOOKS = ({"authorization": f"Bearer {token}"} for token in TOKENS.values())


@pytest.fixture
def start(beeq, audit):
    """Start ``beeq web`` on a free port; return where it serves."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, name) for name in JOB_TYPES]
    beeq.environment |= {"BEEQ_PREFIX": prefix}

    def start(*arguments: str, **environment: str) -> str:
        web = beeq.start("web", "--port", "0", *arguments, **environment)
        line: str = web.until("Serving on ")
        return line.rpartition(" ")[2]

    return start


def test_the_page_and_the_routes_are_served_side_by_side(start):
    url = start()
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED).json()["jobId"]
    overview = settled(httpx.get, url)
    assert overview.headers["content-type"] == "text/html; charset=utf-8"
    assert "ai-generation" in overview.text
    assert "bees" in httpx.get(f"{url}/q/ai-generation/jobs/{job_id}").text
    assert httpx.get(f"{url}/static/page.css").status_code == 200
    for path in ("/v1/nothing", "/nothing"):
        assert httpx.get(f"{url}{path}").json() == {"error": "Not found"}


def test_a_token_that_looks_starts_nothing_on_page_and_routes(start):
    url = start(**TOKENS)
    assert httpx.get(url).headers["location"] == "/login?next=%2F"
    assert httpx.post(f"{url}{SCRIPT}", json=WANTED, headers=LOOKS).status_code == 403
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED, headers=ACTS).json()["jobId"]
    assert httpx.get(f"{url}/v1/jobs/{job_id}/status", headers=LOOKS).json()["status"] == "queued"
    assert "project-1" in httpx.get(f"{url}/q/ai-generation", headers=LOOKS).text
    remove = {"verb": "remove", "id": job_id}
    assert httpx.post(f"{url}/q/ai-generation/act", data=remove, headers=LOOKS).status_code == 403
    assert httpx.post(f"{url}/q/ai-generation/act", data=remove, headers=ACTS).status_code == 303


def test_a_token_that_looks_is_enough_to_serve_others(start, beeq):
    url = start("--host", "0.0.0.0", BEEQ_WEB_READ_TOKEN="look")
    assert httpx.get(f"{url.replace('0.0.0.0', '127.0.0.1')}/v1/stats").status_code == 401
    ran = beeq.run("web", "--port", "0", BEEQ_WEB_TOKEN="same", BEEQ_WEB_READ_TOKEN="same")
    assert ran.returncode == 2
    assert "the one that acts" in ran.stderr


def test_read_only_and_hidden_data_hold_for_the_routes(start):
    url = start("--read-only")
    assert httpx.post(f"{url}{SCRIPT}", json=WANTED).status_code == 403
    url = start("--hide-data")
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED).json()["jobId"]
    status = httpx.get(f"{url}/v1/jobs/{job_id}/status").json()
    assert (status["jobData"], status["projectId"]) == (None, None)
    assert "bees" not in httpx.get(f"{url}/q/ai-generation/jobs/{job_id}").text


def test_each_act_is_one_line_of_the_log(beeq, start):
    web = beeq.start("web", "--port", "0", **TOKENS)
    url = web.until("Serving on ").rpartition(" ")[2]
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED, headers=ACTS).json()["jobId"]
    httpx.post(f"{url}/q/ai-generation/act", data={"verb": "remove", "id": job_id}, headers=ACTS)
    line = web.until("a program that may act: remove of 1 job")
    assert line.endswith(f"of ai-generation ({job_id}): 1 done")


def test_an_open_page_does_not_hold_the_server_up(beeq, start):
    web = beeq.start("web", "--port", "0")
    url = web.until("Serving on ").rpartition(" ")[2]
    with httpx.stream("GET", f"{url}/events") as stream:
        assert next(stream.iter_lines()) == "retry: 5000"
        begun_s = time.monotonic()
        web.signal(signal.SIGTERM)
        assert web.ended() == 0
        assert time.monotonic() - begun_s < 6
