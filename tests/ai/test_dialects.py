"""A provider that refuses a field: asked again without it, and never again with it; the prompt's refusal ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from beeq.ai.dialect.refusals import SYSTEM_ROLE, refusal_in
from beeq.ai.errors import AIFailed
from beeq.errors import Discard
from tests.ai.server import CHAT, IMAGES, SCRIPT, AIServer, Make, ai_job, answer, chat, image
from tests.webhooks.receiver import Script

FIELDS = ["response_format", "stream", "max_tokens", "temperature", "seed", "style", "size", "quality", "n"]
#: What servers say, and the field that it is about.
REFUSALS: list[tuple[Any, str]] = [
    ({"error": "'response_format.type' must be 'json_schema' or 'text'"}, "response_format"),
    ({"error": {"message": "json_object is not supported by this model", "code": 400}}, "response_format"),
    ({"message": "System role not supported", "param": None, "code": 400}, SYSTEM_ROLE),
    (
        {"error": "Template error: Conversation roles must alternate user/assistant/user/assistant/..."},
        SYSTEM_ROLE,
    ),
    (
        {
            "error": {
                "message": "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                "param": "messages[0].role",
                "code": "unsupported_value",
            }
        },
        SYSTEM_ROLE,
    ),
    ({"error": {"message": "Developer instruction is not enabled for models/gemma-3-27b-it"}}, SYSTEM_ROLE),
    (
        {"error": {"message": "Unknown parameter: 'style'.", "param": "style", "code": "unknown_parameter"}},
        "style",
    ),
    (
        {
            "error": {
                "message": "litellm.UnsupportedParamsError: openai does not support parameters: ['style']"
            }
        },
        "style",
    ),
    (
        {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "style"], "msg": "Extra inputs are not permitted"}
            ]
        },
        "style",
    ),
    ({"errors": {"quality": ["is not known"]}}, "quality"),
    ({"error": {"message": 'Unknown name "seed": Cannot find field.', "status": "INVALID_ARGUMENT"}}, "seed"),
    ({"error": {"message": "seed is not supported"}}, "seed"),
    ({"error": {"message": "Invalid value: '1x1'. Supported values are: 'auto'.", "param": "size"}}, "size"),
    (
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "param": "max_tokens",
            }
        },
        "max_tokens",
    ),
    (
        {"error": {"message": "Unsupported value: 'temperature' does not support 0.7 with this model."}},
        "temperature",
    ),
    ({"message": "temperature: Extra inputs are not permitted"}, "temperature"),
    ({"error": {"message": "`stream` is unexpected"}}, "stream"),
]
#: Refusals of what was asked for, or of nothing that could be left out.
FINAL: list[Any] = [
    {"error": {"message": "Your request was rejected by our safety system.", "code": "moderation_blocked"}},
    {"error": {"message": "This style is not allowed", "code": "content_policy_violation"}},
    {"error": {"message": "The size of the prompt is not allowed", "param": "prompt"}},
    {"error": {"message": "The model 'style-9' does not exist", "param": "model"}},
    {"error": {"message": "Bad request"}},
    {"error": {"message": "Your prompt of great size and quality was read"}},
    "",
]


@pytest.mark.parametrize(("body", "field"), REFUSALS)
def test_the_field_that_is_refused_is_found(body: Any, field: str) -> None:
    objection = refusal_in(json.dumps(body).encode(), str)
    assert objection.fields([*FIELDS, SYSTEM_ROLE]) == [field]


@pytest.mark.parametrize("body", FINAL)
def test_what_is_refused_as_a_whole_names_no_field(body: Any) -> None:
    assert refusal_in(json.dumps(body).encode(), str).fields([*FIELDS, SYSTEM_ROLE]) == []


def refusing(works: Script, **answers: Any) -> Script:
    """Return a script that refuses requests with one of the fields; ``server`` is set by the test."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = answers["server"].requests[-1].json
        roles = [message["role"] for message in request.get("messages", [])]
        for name, body in answers.items():
            if name in request or (name == "system" and "system" in roles):
                await answer(body, 400)(reader, writer)
                return
        await works(reader, writer)

    return play


def unknown(name: str) -> Any:
    return {"error": {"message": f"Unknown parameter: '{name}'.", "param": name}}


async def test_a_refused_style_goes_into_the_prompt(server: AIServer, make: Make) -> None:
    server.on(IMAGES, refusing(image(), server=server, style=unknown("style")))
    processor = make()
    for style in ("vivid", "natural"):
        await processor(ai_job("image", parameters={"style": style, "size": "1024x1024"}))
    first, again, later = [request.json for request in server.requests]
    assert first["style"] == "vivid"
    assert again == {"model": "pictures", "prompt": "a bee\n\nStyle: vivid", "n": 1, "size": "1024x1024"}
    assert later["prompt"] == "a bee\n\nStyle: natural"
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] != keys[1]


async def test_a_server_may_refuse_field_after_field(server: AIServer, make: Make) -> None:
    server.on(
        CHAT,
        refusing(
            chat(json.dumps(SCRIPT)),
            server=server,
            response_format={"error": "'response_format.type' must be 'json_schema' or 'text'"},
            system={"message": "System role not supported"},
            max_tokens={"error": {"message": "Use 'max_completion_tokens'.", "param": "max_tokens"}},
            temperature=unknown("temperature"),
        ),
    )
    processor = make()
    parameters = {"genre": "nature", "maxTokens": 900, "temperature": 0.5, "seed": 7}
    assert await processor(ai_job("script", parameters=parameters)) == SCRIPT
    assert len(server.requests) == 5
    last = server.requests[-1].json
    (message,) = last.pop("messages")
    assert message["role"] == "user"
    assert '"scenes"' in message["content"]
    assert message["content"].endswith('a bee\n\nParameters, in JSON:\n{"genre":"nature"}')
    assert last == {"model": "texts", "stream": False, "max_completion_tokens": 900, "seed": 7}

    assert await processor(ai_job("script", parameters=parameters)) == SCRIPT
    assert len(server.requests) == 6
    await processor(ai_job("script", modelId="another"))  # it may take what the first refuses
    assert "response_format" in server.requests[6].json


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refusal_that_goes_on_ends_the_job_unremembered(
    server: AIServer, make: Make, status: int
) -> None:
    server.on(IMAGES, answer(unknown("style"), status))
    processor = make()
    for _ in range(2):
        server.requests.clear()
        with pytest.raises(Discard, match="Unknown parameter: 'style'"):
            await processor(ai_job("image", parameters={"style": "vivid"}))
        assert ["style" in request.json for request in server.requests] == [True, False]


@pytest.mark.parametrize("body", FINAL)
async def test_a_refusal_of_the_prompt_ends_at_once(server: AIServer, make: Make, body: Any) -> None:
    server.on(IMAGES, answer(body, 400))
    with pytest.raises(Discard, match="status 400"):
        await make()(ai_job("image", parameters={"style": "vivid", "size": "1024x1024", "quality": "hd"}))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "text", ["Invalid value: '1x1'. Supported values are: 'auto'.", "The size 1x1 is not supported"]
)
async def test_a_refused_value_leaves_the_field_to_other_values(
    server: AIServer, make: Make, text: str
) -> None:
    refusal = {"error": {"message": text, "param": "size"}}
    server.on(IMAGES, answer(refusal, 400), image())
    processor = make()
    for size in ("1x1", "auto", "1x1"):
        await processor(ai_job("image", parameters={"size": size}))
    assert [request.json.get("size") for request in server.requests] == ["1x1", None, "auto", None]


async def test_what_is_remembered_is_bounded(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beeq.ai.dialect.dialects._MAX_MODELS", 2)
    server.on(IMAGES, refusing(image(), server=server, style=unknown("style")))
    processor = make()
    for model in "abca":
        await processor(ai_job("image", parameters={"style": "vivid"}, modelId=model))
    assert len(server.requests) == 8


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("script", {"maxTokens": 5, "reasoningEffort": "max_tokens.unknown"}),
        ("script", {"maxTokens": 5, "reasoningEffort": "MAX-TOKENS.unknown"}),
        ("image", {"style": "x  unknown 'size' 'quality'", "size": "1x1", "quality": "hd"}),
        ("image", {"style": "unknown \\u0073ize &quot;size&quot;", "size": "1x1", "quality": "hd"}),
    ],
)
async def test_a_jobs_own_words_take_nothing_from_others(
    server: AIServer, make: Make, kind: str, parameters: dict[str, Any]
) -> None:
    """A server that repeats what it was sent says the names of other fields, too."""
    word = parameters.get("style") or parameters["reasoningEffort"]
    refusal = answer({"error": {"message": f"Bad value '{word}' of the request"}}, 400)
    works = image() if kind == "image" else chat(json.dumps(SCRIPT))
    server.on(IMAGES, refusal, works)
    server.on(CHAT, refusal, works)
    processor = make()
    with contextlib.suppress(Discard):
        await processor(ai_job(kind, parameters=parameters))
    server.requests.clear()
    clean = {"maxTokens": 7, "size": "2x2", "quality": "hd"}
    await processor(ai_job(kind, parameters=clean))
    (request,) = server.requests
    sent = request.json
    assert (sent["max_tokens"] if kind == "script" else (sent["size"], sent["quality"])) in (7, ("2x2", "hd"))
    assert ("response_format" in sent) == (kind == "script")


async def test_what_bounds_the_costs_is_never_left_out(server: AIServer, make: Make) -> None:
    message = "Unsupported: 'max_tokens', 'max_completion_tokens' unknown"
    server.on(CHAT, answer({"error": {"message": message}}, 400))
    with pytest.raises(Discard):
        await make()(ai_job("script", parameters={"maxTokens": 5}))
    for request in server.requests:
        assert {"max_tokens", "max_completion_tokens"} & {*request.json}


# --- Fields ---------------------------------------------------------------------------------


async def test_parameters_of_the_api_are_sent_as_its_fields(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("A meadow."))
    server.on(IMAGES, image())
    text = {
        "maxTokens": 90,
        "temperature": 0,
        "topP": 0.5,
        "seed": -7,
        "reasoningEffort": "low",
        "size": "big",
    }
    await make()(ai_job("scene-description", parameters={**text, "frequencyPenalty": None}))
    picture = {"size": "1024X768", "quality": "hd", "seed": 7, "background": "opaque", "outputFormat": "png"}
    await make()(ai_job("image", parameters=picture))
    chat_request, image_request = (request.json for request in server.requests)
    del chat_request["messages"][0]
    assert chat_request == {
        "model": "texts",
        "messages": [{"role": "user", "content": 'a bee\n\nParameters, in JSON:\n{"size":"big"}'}],
        "stream": False,
        "max_tokens": 90,
        "temperature": 0,
        "top_p": 0.5,
        "seed": -7,
        "reasoning_effort": "low",
    }
    assert image_request == {
        "model": "pictures",
        "prompt": "a bee",
        "n": 1,
        "size": "1024x768",
        "quality": "hd",
        "seed": 7,
        "background": "opaque",
        "output_format": "png",
    }


@pytest.mark.parametrize(
    ("job_type", "name", "value"),
    [
        ("script", "maxTokens", "90"),
        ("script", "maxTokens", 0),
        ("script", "maxTokens", True),
        ("script", "maxTokens", 1.5),
        ("script", "temperature", "hot"),
        ("script", "temperature", 2.1),
        ("script", "temperature", float("nan")),
        ("scene-description", "topP", -0.1),
        ("scene-description", "seed", 2**63),
        ("scene-description", "reasoningEffort", ["low"]),
        ("image", "size", "big"),
        ("image", "size", "0x0"),
        ("image", "size", 1024),
        ("image", "quality", ""),
        ("image", "seed", "x"),
        ("image", "style", {}),
    ],
)
async def test_a_parameter_that_the_api_would_misread_is_refused(
    server: AIServer, make: Make, job_type: str, name: str, value: Any
) -> None:
    with pytest.raises(Discard, match=f"bad job: parameters: {name} must be"):
        await make()(ai_job(job_type, parameters={name: value}))
    assert server.requests == []


# --- Waits and accounts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ({"retry_after_ms": "2500"}, 2500),
        ({"retry_after_ms": "2500.2", "retry_after": "9"}, 2501),
        ({"retry_after_ms": "soon", "retry_after": "1.25"}, 1250),
        ({"retry_after_ms": "9" * 11}, 86_400_000),
    ],
)
async def test_a_delay_in_ms_or_with_a_fraction_is_kept(
    server: AIServer, make: Make, headers: dict[str, str], expected_ms: int
) -> None:
    from beeq.errors import Retry

    server.on(CHAT, answer({"error": "busy"}, 429, **headers))
    with pytest.raises(Retry) as caught:
        await make()(ai_job("script"))
    assert caught.value.after == expected_ms


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize(
    "error",
    [
        {"message": "You exceeded your current quota", "code": "insufficient_quota"},
        {"message": "no", "type": "insufficient_quota", "code": None},
        {"message": "RateLimitError: Error code: 429 - {'code': 'insufficient_quota'}", "code": "429"},
        {"message": "Your account is not active", "code": "billing_not_active"},
    ],
)
async def test_an_account_without_credit_ends_the_job(
    server: AIServer, make: Make, status: int, error: dict[str, Any]
) -> None:
    server.on(CHAT, answer({"error": error}, status, retry_after="1"))
    with pytest.raises(Discard, match=error["message"][:2]):
        await make()(ai_job("script"))
    assert len(server.requests) == 1


async def test_a_quota_by_the_minute_is_waited_for(server: AIServer, make: Make) -> None:
    message = "You exceeded your current quota, please check your plan and billing details"
    server.on(CHAT, answer({"error": {"message": message, "status": "RESOURCE_EXHAUSTED"}}, 429))
    with pytest.raises(AIFailed, match="status 429"):
        await make()(ai_job("script"))
