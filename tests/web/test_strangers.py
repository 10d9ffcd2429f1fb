"""Whatever a stranger sends: the HTTP face never fails, always answers in JSON, and keeps what it takes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beeq.protocol.codec import loads
from tests.support.samples import json_values
from tests.web.app import SCRIPT, WANTED, ask

strangers = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ANYTHING = json_values(is_lone_surrogate_allowed=True)
FIELDS = ("projectId", "userId", "parameters", "prompt", "modelId", "id", "type", "createdAt", "project_id")
TOKENS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"1", b"1e999", b"-0", b'"\\ud800"', b"\\", b"\xc3"]
    + [b'"%s"' % name.encode() for name in FIELDS]
)


def assert_is_an_answer(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert isinstance(content["error"] if answer.is_error else content["jobId"], str)


@strangers
@given(content=st.binary(max_size=300) | st.lists(TOKENS, max_size=30).map(b"".join))
async def test_bytes(client, content):
    answer = await client.post(SCRIPT, content=content, headers={"content-type": "application/json"})
    assert_is_an_answer(answer, 200, 400)


@strangers
@given(content=ANYTHING)
async def test_json(client, content):
    assert_is_an_answer(await ask(client, content), 400)


@strangers
@given(
    change=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING))
    | st.dictionaries(st.text(st.characters()), ANYTHING, max_size=3)
)
@pytest.mark.external  # it takes long
async def test_fields_and_those_that_are_taken_are_kept(client, change):
    content = {**WANTED, **change}
    answer = await ask(client, content)
    assert_is_an_answer(answer, 200, 400)
    if answer.is_success:
        job_id = answer.json()["jobId"]
        status = await client.get(f"/v1/jobs/{quote(job_id, safe='')}/status")
        kept = loads(status.content)["jobData"]
        sent = loads(json.dumps(content).encode())  # two halves of a character have become one
        filled_in = {name: kept[name] for name in ("id", "createdAt") if sent.get(name) is None}
        assert kept == {**sent, **filled_in, "type": "script"}
        assert job_id == kept["id"]


@strangers
@given(
    content_type=st.text(st.characters(max_codepoint=255), max_size=20)
    | st.sampled_from(["application/json", "application/json;", ";application/json", "*/*"]),
    content=st.sampled_from([b"", b"{}", b"x"]),
)
async def test_content_types(client, content_type, content):
    headers: Any = {"content-type": content_type.encode("latin-1")}
    assert_is_an_answer(await client.post(SCRIPT, content=content, headers=headers), 400, 415)


@strangers
@given(path=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
async def test_paths(client, path):
    for asked in (
        f"/{quote(path, safe='')}",
        f"/v1/jobs/{quote(path, safe='')}/status",
        f"/v1/jobs/{quote(path)}",
    ):
        answer = await client.get(asked)
        assert answer.status_code == 404
        assert answer.json()["error"] in ("Not found", "Job not found")
