"""The ports and networks that the configuration allows and denies, beside what the guard refuses anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beeq import JobFailed, Queue
from beeq.http_client import guard
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.guard import WebhookRefused
from beeq.http_client.network_limits import NetworkLimits
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.delivery import DeliveryFailed, WebhookSender
from tests.webhooks.receiver import Receiver

PUBLIC = "93.184.215.14"

MakeSender = Callable[..., WebhookSender]


@pytest.fixture
async def make_sender() -> AsyncIterator[MakeSender]:
    senders: list[WebhookSender] = []

    def make(allow: str = "", answers: dict[str, list[str]] | None = None, **limits: str) -> WebhookSender:
        async def resolve(host: str, _port: int) -> list[str]:
            if answers is None:
                return [host]
            if not answers.get(host):
                raise OSError(-2, "Name or service not known")
            return answers[host]

        senders.append(
            WebhookSender(AllowedHosts.parse(allow), resolve=resolve, limits=NetworkLimits.parse(**limits))
        )
        return senders[-1]

    yield make
    for sender in senders:
        await sender.aclose()


# --- Ports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [80, 443, 1024, 3000, 8080, 8443, 65535])
def test_https_own_ports_and_those_of_any_user_are_usual(port: int) -> None:
    assert NetworkLimits.parse().allows_port(port)


@pytest.mark.parametrize("port", [1, 22, 25, 53, 79, 81, 110, 389, 442, 444, 445, 465, 993, 1023])
def test_the_ports_of_other_services_are_not_called(port: int) -> None:
    assert not NetworkLimits.parse().allows_port(port)


@pytest.mark.parametrize("host", [PUBLIC, "hooks.example", "gone.example"])
async def test_a_url_at_another_port_is_refused_for_good(make_sender: MakeSender, host: str) -> None:
    sender = make_sender(answers={"hooks.example": [PUBLIC]})
    with pytest.raises(WebhookRefused, match="port 25 of the URL .* BEEQ_WEBHOOK_PORTS"):
        await sender.deliver(f"http://{host}:25/", "7", b"{}")


async def test_an_allowed_host_is_called_at_any_port(make_sender: MakeSender) -> None:
    async with Receiver() as receiver:
        sender = make_sender("127.0.0.1", ports="443")
        assert (await sender.deliver(receiver.url(), "7", b"{}")).status == 200


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ("443", [443], [80, 442, 444]),
        (" 80 , 8000-8002 ,", [80, 8000, 8001, 8002], [443, 7999, 8003]),
        ("1-65535", [1, 25, 65535], []),
        ("any", [1, 25, 65535], []),
    ],
)
def test_ports_are_those_of_the_list(text: str, allowed: list[int], refused: list[int]) -> None:
    limits = NetworkLimits.parse(text)
    assert [limits.allows_port(port) for port in allowed] == [True] * len(allowed)
    assert [limits.allows_port(port) for port in refused] == [False] * len(refused)


@pytest.mark.parametrize("word", ["0", "65536", "80-79", "-80", "80-", "http", "8 0", "80;443", "٨٠", "*"])
def test_a_word_that_is_no_port_is_refused_with_the_setting(word: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_PORTS must be any, or") as caught:
        NetworkLimits.parse(f"443,{word}")

    assert repr(word) in str(caught.value)


def test_a_list_of_no_ports_is_refused() -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_PORTS must name ports"):
        NetworkLimits.parse(" , ")


# --- Networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "93.184.215.255",
        "::ffff:93.184.215.14",
        "64:ff9b::93.184.215.14",
        "2606:4700::1",
        "9.9.9.9",
    ],
)
async def test_an_address_in_a_denied_network_is_refused(make_sender: MakeSender, address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    sender = make_sender(deny_nets="93.184.215.0/24, 2606:4700::/32, 9.9.9.9")
    with pytest.raises(WebhookRefused, match="in a network that BEEQ_WEBHOOK_DENY_NETS denies"):
        await sender.deliver(f"https://{shown}/", "7", b"{}")


@pytest.mark.parametrize("allow", ["", "127.0.0.1", "hooks.example"])
async def test_a_denied_network_wins_over_an_allowed_host(make_sender: MakeSender, allow: str) -> None:
    async with Receiver() as receiver:
        sender = make_sender(allow, {"hooks.example": ["127.0.0.1"]}, deny_nets="127.0.0.0/8")
        with pytest.raises(DeliveryFailed, match="does not resolve to an address that may be called"):
            await sender.deliver(receiver.url(host="hooks.example"), "7", b"{}")

    assert receiver.connections == 0


@pytest.mark.parametrize(
    "word", ["10.0.0.0/33", "10.0.0", "a.example", "10.0.0.1/8", "::/129", "10.0.0.0/8/8"]
)
def test_a_word_that_is_no_network_is_refused_with_the_setting(word: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_DENY_NETS must be a comma list") as caught:
        NetworkLimits.parse(deny_nets=f"10.0.0.0/8,{word}")

    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"webhook_ports": "http"}, "BEEQ_WEBHOOK_PORTS"),
        ({"webhook_deny_nets": "x"}, "BEEQ_WEBHOOK_DENY_NETS"),
    ],
)
def test_bad_limits_are_noticed_before_the_first_job(settings: dict[str, Any], variable: str) -> None:
    with pytest.raises(ValueError, match=variable):
        WebhookProcessor(ProcessorSettings(**settings))


# --- What a caller can see of internal names --------------------------------------------------

#: What the worker's resolver says of each; the URLs differ in nothing else.
ANSWERS = {"unknown.example": [], "inside.example": ["10.1.2.3"], "denied.example": ["9.9.9.9"]}


async def test_internal_names_look_like_names_that_are_not_there(make_sender: MakeSender) -> None:
    sender = make_sender(answers=ANSWERS, deny_nets="9.9.9.9")
    said = set()
    for host in ANSWERS:
        with pytest.raises(DeliveryFailed) as caught:
            await sender.deliver(f"http://{host}/", "7", b"{}")
        said.add(str(caught.value).replace(host, "HOST"))
        assert caught.value.__context__ is None

    assert len(said) == 1


async def test_the_log_tells_the_operator_what_the_caller_is_not_told(
    make_sender: MakeSender, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make_sender(answers=ANSWERS, deny_nets="9.9.9.9")
    with caplog.at_level("INFO", logger="beeq.http_client.guard"):
        for host in ANSWERS:
            with pytest.raises(DeliveryFailed):
                await sender.deliver(f"http://{host}/", "7", b"{}")

    assert [record.getMessage() for record in caplog.records] == [
        "unknown.example:80 is not called: it cannot be looked up (Name or service not known)",
        "inside.example:80 is not called: it leads to 10.1.2.3, which is not public",
        "denied.example:80 is not called: it leads to 9.9.9.9, which BEEQ_WEBHOOK_DENY_NETS denies",
    ]


async def test_records_and_attempts_tell_no_internal_name_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the embedded server keeps its folder

    def look_up(host: str, _port: int) -> list[str]:
        if not ANSWERS[host]:
            raise OSError(-2, "Name or service not known")
        return ANSWERS[host]

    monkeypatch.setattr(guard, "_addresses", look_up)
    processor = WebhookProcessor(ProcessorSettings(webhook_deny_nets="9.9.9.9"))
    seen = set()
    async with Queue("webhook-processing", redis="embedded:") as queue:
        queue.process(processor, concurrency=3)
        jobs = {
            host: await queue.enqueue(
                {"webhookUrl": f"https://{host}/hook", "payload": {}}, retries=2, backoff="immediate"
            )
            for host in ANSWERS
        }
        for host, job in jobs.items():
            with pytest.raises(JobFailed):
                await job.result(timeout=20_000)
            record = await queue.get_job(str(job.id))
            assert record is not None
            traces = [trace.replace(host, "HOST") for trace in record.options["stacktraces"]]
            assert len(traces) == 3
            seen.add((*traces, record.options["retries"]))
    await processor.close()
    await asyncio.sleep(0)

    assert len(seen) == 1
