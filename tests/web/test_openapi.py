"""The OpenAPI document is right about every route, every answer, and the content of requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beeq import __version__
from beeq.web.bodies import ScriptRequest
from beeq.web.routes import ROUTES
from tests.web.app import MINE, OTHER, SCRIPT, WANTED, app_on, ask, serving

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "null": (type(None),),
}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def parts_of(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within the document."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from parts_of(child)
    elif isinstance(node, list):
        for child in node:
            yield from parts_of(child)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a schema's reference."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for step in schema["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def fits(document: dict[str, Any], value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value fits a schema, of which the document uses this much."""
    schema = resolved(document, schema)
    unknown = schema.keys() - {
        *("type", "const", "enum", "oneOf", "properties", "required", "items", "description"),
        *("minLength", "maxLength", "pattern", "minimum", "format"),
    }
    assert not unknown, f"this test does not know {unknown}"
    return (
        _kind_fits(value, schema.get("type", []))
        and value == schema.get("const", value)
        and ("enum" not in schema or value in schema["enum"])
        and ("oneOf" not in schema or sum(fits(document, value, option) for option in schema["oneOf"]) == 1)
        and not (isinstance(value, int) and value < schema.get("minimum", value))
        and not (isinstance(value, str) and not _text_fits(value, schema))
        and all(fits(document, entry, inner) for entry, inner in _within(value, schema))
        and not (isinstance(value, dict) and set(schema.get("required", [])) - value.keys())
    )


def _kind_fits(value: Any, kinds: str | list[str]) -> bool:
    names = [kinds] if isinstance(kinds, str) else kinds
    return not names or (
        not isinstance(value, bool) and any(isinstance(value, _TYPES[name]) for name in names)
    )


def _within(value: Any, schema: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each value within a value, with its schema."""
    if isinstance(value, list):
        yield from ((entry, schema.get("items", {})) for entry in value)
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from ((value[name], properties[name]) for name in value.keys() & properties.keys())


def _text_fits(text: str, schema: dict[str, Any]) -> bool:
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return False
    return schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text)) and (
        re.search(schema.get("pattern", ""), text) is not None
    )


# The document itself.


async def test_every_route_that_is_served_is_documented_and_no_other(document):
    documented = {
        (path, method.upper()) for path, operations in document["paths"].items() for method in operations
    }
    assert documented == {(path, method) for path, methods in ROUTES.items() for method in methods}


async def test_its_shape_is_openapis(document):
    assert document.keys() == {"openapi", "info", "paths", "components", "security"}
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"].keys() == {"title", "version", "description"}
    assert document["info"]["version"] == __version__
    ids = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert operation["summary"]
            named = [parameter["name"] for parameter in operation.get("parameters", [])]
            assert named == re.findall(r"{(\w+)}", path)
            assert all(parameter["required"] for parameter in operation.get("parameters", []))
            for status, answer in operation["responses"].items():
                assert re.fullmatch(r"[2-5]\d\d", status)
                assert answer["description"]
                is_text = (path, status) == ("/metrics", "200")
                assert answer["content"].keys() == {"text/plain" if is_text else "application/json"}
    assert len(set(ids)) == len(ids)


async def test_every_reference_resolves_and_every_schema_is_used(document):
    used = {part["$ref"] for part in parts_of(document) if "$ref" in part}
    assert used == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


async def test_the_request_has_the_fields_of_its_model(document):
    schema = document["components"]["schemas"]["ScriptRequest"]
    fields = ScriptRequest.model_fields
    assert set(schema["properties"]) == {field.alias or name for name, field in fields.items()}
    # The route says the type.
    required = {field.alias or name for name, field in fields.items() if field.is_required()} - {"type"}
    assert set(schema["required"]) == required


# Against what is answered.


def assert_documented(document: dict[str, Any], path: str, answer: httpx.Response) -> None:
    operation = document["paths"][path][answer.request.method.lower()]
    documented = operation["responses"][str(answer.status_code)]
    schema = resolved(document, documented["content"]["application/json"]["schema"])
    content = answer.json()
    assert fits(document, content, schema), content
    assert content.keys() <= schema.get("properties", content).keys()


async def test_every_kind_of_answer_is_the_documented_one(document, client, make_queue, prefix):
    asked = await ask(client, {**WANTED, "id": MINE})
    failing = make_queue("media-processing", prefix=prefix, is_worker=False)
    await failing.enqueue([], id="odd")
    await failing.enqueue({}, id=OTHER)
    for path, answer in (
        (SCRIPT, asked),
        (SCRIPT, await ask(client, [])),
        (SCRIPT, await ask(client, {})),
        (SCRIPT, await client.post(SCRIPT)),
        (SCRIPT, await ask(client, {**WANTED, "id": OTHER})),
        (SCRIPT, await client.post(SCRIPT, headers={"host": "evil.example"})),
        (SCRIPT, await ask(client, "x" * (1 << 20))),
        ("/v1/jobs/{jobId}/status", await client.get(f"/v1/jobs/{MINE}/status")),
        ("/v1/jobs/{jobId}/status", await client.get("/v1/jobs/odd/status")),
        ("/v1/jobs/{jobId}/status", await client.get("/v1/jobs/nobody/status")),
        ("/v1/stats", await client.get("/v1/stats")),
        ("/health", await client.get("/health")),
        ("/health", await client.get("/health", headers={"host": "evil.example"})),
        ("/openapi.json", await client.get("/openapi.json")),
    ):
        assert_documented(document, path, answer)


async def test_the_answers_without_redis_are_documented(document, own_valkey):
    async with serving(app_on(own_valkey.url)) as client:
        own_valkey.stop()
        for path in ("/v1/stats", "/health", "/v1/jobs/{jobId}/status"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert_documented(document, path, answer)
        assert_documented(document, SCRIPT, await ask(client, WANTED))


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "a\0", "u" * 512, "u" * 513, "script", "2026-01-31T12:00:00Z", "soon"]),
    st.just([]),
    st.just({}),
)
_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("projectId", "userId", "parameters", "prompt", "modelId", "createdAt"), _VALUES),
        "id": _VALUES | st.uuids().map(str),
        "type": st.just("script") | _VALUES,
        "further": _VALUES,
    },
)
_GOOD = st.fixed_dictionaries({name: st.just(value) for name, value in WANTED.items()})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.builds(lambda good, change: {**good, **change}, _GOOD | st.just({}), _REQUESTS))
@example(content={**WANTED, "projectId": "u" * 512})
@example(content={**WANTED, "projectId": "u" * 513})
@example(content={**WANTED, "userId": ""})
@example(content={**WANTED, "userId": "a\0"})
@example(content={**WANTED, "userId": 2**70})
@example(content={**WANTED, "modelId": "m" * 512, "prompt": "", "createdAt": None})
@example(content={**WANTED, "modelId": "m" * 513})
@example(content={**WANTED, "prompt": "p\0"})
@example(content={**WANTED, "id": ""})
@example(content={**WANTED, "id": "1"})
@example(content={**WANTED, "id": MINE.replace("-", "")})
@example(content={**WANTED, "type": "image"})
async def test_a_request_is_taken_just_when_it_fits_the_document(document, client, content):
    schema = {"$ref": "#/components/schemas/ScriptRequest"}
    answer = await ask(client, content)
    is_taken = answer.status_code in (200, 409)  # an id may be drawn twice, with other fields
    assert is_taken == fits(document, content, schema), json.dumps(content)
    assert answer.status_code != 409 or "id" in content
    assert_documented(document, SCRIPT, answer)
