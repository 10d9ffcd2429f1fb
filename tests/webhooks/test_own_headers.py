"""Headers for receivers, by origin: who gets them, and that nobody sees them."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any

import httpcore
import pytest

from beeq.http_client.addresses import AllowedHosts
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.delivery import WebhookSender
from beeq.webhooks.own_headers import ReceiverHeaders
from tests.webhooks.receiver import Receiver, reply

BASIC = "Basic " + base64.b64encode(b"beeq:hunter2").decode()


def origin_of(url: str) -> httpcore.Origin:
    return httpcore.URL(url).origin


async def test_an_origin_gets_its_headers_and_no_other_does() -> None:
    async with Receiver(reply(307, b"", location="/x")) as mine, Receiver() as other:
        headers = ReceiverHeaders.parse(
            json.dumps({mine.url(""): {"Authorization": BASIC, "X-Tenant": "7", "User-Agent": "films/2"}})
        )
        sender = WebhookSender(AllowedHosts.parse("127.0.0.1"), headers=headers)
        for receiver in (mine, other):
            await sender.deliver(receiver.url(), "7", b"{}")
        await sender.aclose()

    sent = mine.requests[0].headers
    assert (sent["authorization"], sent["x-tenant"], sent["user-agent"]) == (BASIC, "7", "films/2")
    assert sent["webhook-id"] == "7"
    assert not {"authorization", "x-tenant"} & set(other.requests[0].headers)
    assert other.requests[0].headers["user-agent"].startswith("beeq/")


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://hooks.example.com", "https://hooks.example.com/a?b"),
        ("https://hooks.example.com/", "https://hooks.example.com:443/"),
        ("HTTPS://Hooks.Example.COM:443", "https://hooks.example.com"),
        ("https://hooks.example.com.", "https://hooks.example.com"),
        ("http://[::1]:8080", "http://[::1]:8080/x"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]/x"),
        ("https://bücher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_an_origin_may_be_written_in_several_ways(written: str, url: str) -> None:
    headers = ReceiverHeaders.parse(json.dumps({written: {"A": "b"}}))
    assert headers.of(origin_of(url)) == {"a": "b"}


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example.com", "https://hooks.example.com:8443", "https://hooks.example.com.evil.example"],
)
def test_another_scheme_port_or_host_is_another_origin(url: str) -> None:
    headers = ReceiverHeaders.parse('{"https://hooks.example.com": {"authorization": "Bearer x"}}')
    assert headers.of(origin_of(url)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        '"hunter2"',
        '["hunter2"]',
        "[" * 100_000,
        '{"https://a.example": "hunter2"}',
        '{"https://a.example": ["hunter2"]}',
        '{"https://a.example": {"a": 7, "b": "hunter2"}}',
        '{"https://a.example": {"a": "hunter2\\r\\nb: c"}}',
        '{"https://a.example": {"a": "hunter2é"}}',
        '{"https://a.example": {"a": " "}}',
        '{"https://a.example": {"a b": "hunter2"}}',
        '{"https://a.example": {"": "hunter2"}}',
        '{"https://a.example": {"a": "b", "A": "hunter2"}}',
        '{"https://a.example": {"a": "b"}, "https://a.example:443": {"a": "hunter2"}}',
        '{"https://a.example": {"Host": "hunter2"}}',
        '{"https://a.example": {"webhook-id": "hunter2"}}',
        '{"https://a.example": {"Content-Length": "2"}}',
        '{"https://a.example/path": {"a": "hunter2"}}',
        '{"https://a.example?hunter2": {"a": "b"}}',
        '{"https://user:hunter2@a.example": {"a": "b"}}',
        '{"a.example": {"a": "hunter2"}}',
        '{"ftp://a.example": {"a": "hunter2"}}',
        '{"https://a.example:0": {"a": "hunter2"}}',
        '{"https://[::1": {"a": "hunter2"}}',
        '{"": {"a": "hunter2"}}',
    ],
)
def test_nonsense_is_refused_by_name_and_without_its_values(text: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_HEADERS") as caught:
        WebhookProcessor(ProcessorSettings(webhook_headers=text))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace(text, "")
    assert caught.value.__context__ is None or "hunter2" not in repr(vars(caught.value.__context__))


def test_nothing_that_is_shown_holds_a_value() -> None:
    settings = ProcessorSettings.from_environment(
        {"BEEQ_WEBHOOK_HEADERS": '{"https://a.example": {"authorization": "Bearer hunter2"}}'}
    )
    assert settings.webhook_headers is not None
    shown: list[Any] = [settings, ReceiverHeaders.parse(settings.webhook_headers)]
    shown += [vars(WebhookProcessor(settings)._sender)]
    assert "hunter2" not in repr(shown)


async def test_what_a_receiver_echoes_is_not_shown() -> None:
    echo = reply(401, b"Bearer hunter2", www_authenticate="Bearer hunter2")
    async with Receiver(echo) as receiver:
        text = json.dumps({receiver.url(""): {"authorization": "Bearer hunter2"}})
        sender = WebhookSender(AllowedHosts.parse("127.0.0.1"), headers=ReceiverHeaders.parse(text))
        answer = await sender.deliver(receiver.url(), "7", b"{}")
        await sender.aclose()

    assert receiver.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in repr(answer)
