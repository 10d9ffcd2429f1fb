"""A worker's webhooks, attacked by one of their receivers; and the command that prints an endpoint's key."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.cli.command import Beeq
from tests.webhooks.receiver import Receiver, Request, reply

MASTER = "whsec_" + base64.b64encode(b"a master that nobody else has").decode()
OLD = "whsec_" + base64.b64encode(b"the master before that one..").decode()
HOOK = "https://hooks.example.com/films"
Deliver = Callable[..., Any]


def verifies(request: Request, key: str) -> bool:
    """Return whether the standard's own library accepts a delivery with this key."""
    try:
        Webhook(key).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


def key_of(beeq: Beeq, url: str, *options: str, **environment: str) -> str:
    ran = beeq.run("webhook-secret", url, *options, **environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.strip()


@asynccontextmanager
async def delivered(beeq: Beeq, prefix: str, *urls: str, **environment: str) -> AsyncIterator[None]:
    """Have a worker with this environment deliver a webhook to each URL."""
    environment |= {"BEEQ_WEBHOOK_ALLOW_HOSTS": "127.0.0.1"}
    for number, url in enumerate(urls):
        fields = (f"webhookUrl={url}", 'payload:={"film": 1}', "--id", f"v1.{number}")
        ran = await asyncio.to_thread(beeq.run, "enqueue", "webhook-processing", *fields, "-p", prefix)
        assert ran.returncode == 0, ran.stderr
    words = ("worker", "webhook-processing", "--burst", "-p", prefix)
    ran = await asyncio.to_thread(lambda: beeq.run(*words, **environment))
    assert ran.returncode == 0, ran.stderr
    yield


async def test_a_delivery_to_one_receiver_is_refused_by_another(beeq: Beeq, queue_name: str) -> None:
    settings = {"BEEQ_WEBHOOK_SECRET": MASTER}
    async with Receiver() as one, Receiver() as other:
        # Two at one host and port, and one at another port.
        urls = [one.url("/ada"), one.url("/bob?token=7"), other.url("/ada")]
        async with delivered(beeq, queue_name, *urls, **settings):
            pass
    requests = [*one.requests, *other.requests]
    by_path = {request.headers["host"] + request.line.split()[1]: request for request in requests}
    keys = {url: await asyncio.to_thread(partial(key_of, beeq, url, **settings)) for url in urls}
    assert len(set(keys.values())) == len(urls)
    for url in urls:
        request = by_path[url.removeprefix("http://")]
        for reader in urls:
            assert verifies(request, keys[reader]) is (reader == url)
        assert not verifies(request, MASTER), "nobody but the sender has it"


async def test_a_receiver_with_the_one_secret_is_served_by_shared(beeq: Beeq, queue_name: str) -> None:
    settings = {"BEEQ_WEBHOOK_SECRET": MASTER, "BEEQ_WEBHOOK_KEYS": "shared"}
    async with Receiver() as receiver, delivered(beeq, queue_name, receiver.url(), **settings):
        assert verifies(receiver.requests[0], MASTER)
        assert receiver.requests[0].headers["webhook-id"] == "v1%2E0"


async def test_while_a_secret_is_replaced_both_keys_verify(beeq: Beeq, queue_name: str) -> None:
    settings = {"BEEQ_WEBHOOK_SECRET": f"{MASTER} {OLD}", "BEEQ_WEBHOOK_SIGNATURES": "v1,v1a"}
    async with Receiver() as receiver, delivered(beeq, queue_name, url := receiver.url(), **settings):
        request = receiver.requests[0]
        new = await asyncio.to_thread(lambda: key_of(beeq, url, **settings))
        old = await asyncio.to_thread(lambda: key_of(beeq, url, BEEQ_WEBHOOK_SECRET=OLD))
        public = await asyncio.to_thread(lambda: key_of(beeq, url, "--public", BEEQ_WEBHOOK_SECRET=MASTER))
    assert new != old
    assert verifies(request, new)
    assert verifies(request, old)

    sent_id, sent_at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signatures = [each.split(",") for each in request.headers["webhook-signature"].split(" ")]
    assert [version for version, _ in signatures] == ["v1", "v1", "v1a", "v1a"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    text = f"{sent_id}.{sent_at}.".encode() + request.body
    key.verify(base64.b64decode(signatures[2][1]), text)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signatures[3][1]), text)


async def test_a_receiver_that_refuses_its_key_is_named_the_command(beeq: Beeq, queue_name: str) -> None:
    async with Receiver(reply(401)) as receiver:
        fields = (f"webhookUrl={receiver.url()}", "payload:={}", "--retries", "0", "--wait=30s")
        worker = beeq.start(
            *("worker", "webhook-processing", "-p", queue_name),
            BEEQ_WEBHOOK_SECRET=MASTER,
            BEEQ_WEBHOOK_ALLOW_HOSTS="127.0.0.1",
        )
        await asyncio.to_thread(worker.until, "Queue worker started")
        ran = await asyncio.to_thread(beeq.run, "enqueue", "webhook-processing", *fields, "-p", queue_name)
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.ended) == 0
    assert "webhook answered 401" in ran.stderr
    assert "beeq webhook-secret URL" in ran.stderr


def test_the_command_needs_no_redis_and_prints_a_key_only(bare_beeq: Beeq) -> None:
    key = key_of(bare_beeq, HOOK, BEEQ_WEBHOOK_SECRET=MASTER, REDIS_URL="redis://127.0.0.1:1")

    assert key.startswith("whsec_")
    assert key != MASTER
    assert list(bare_beeq.folder.iterdir()) == []


def test_the_command_prints_the_key_that_is_in_use(bare_beeq: Beeq) -> None:
    mapped = {"BEEQ_WEBHOOK_SECRET": MASTER, "BEEQ_WEBHOOK_ENDPOINT_KEYS": json.dumps({HOOK: OLD})}
    assert key_of(bare_beeq, HOOK, **mapped) == OLD
    shared = bare_beeq.run("webhook-secret", HOOK, BEEQ_WEBHOOK_SECRET=MASTER, BEEQ_WEBHOOK_KEYS="shared")
    assert (shared.returncode, shared.stdout) == (0, f"{MASTER}\n")
    assert "all receivers have this key" in shared.stderr


@pytest.mark.parametrize(
    ("words", "environment", "complaint"),
    [
        ((HOOK,), {}, "BEEQ_WEBHOOK_SECRET"),
        ((HOOK,), {"BEEQ_WEBHOOK_SECRET": "hunter2"}, "BEEQ_WEBHOOK_SECRET"),
        ((HOOK,), {"BEEQ_WEBHOOK_SECRET": MASTER, "BEEQ_WEBHOOK_KEYS": "hunter2"}, "BEEQ_WEBHOOK_KEYS"),
        ((HOOK, "--public"), {"BEEQ_WEBHOOK_ENDPOINT_KEYS": json.dumps({HOOK: OLD})}, "no public key"),
        (("hooks.example.com/hunter2",), {"BEEQ_WEBHOOK_SECRET": MASTER}, "http"),
        (("https://u:hunter2@hooks.example.com",), {"BEEQ_WEBHOOK_SECRET": MASTER}, "password"),
        ((), {"BEEQ_WEBHOOK_SECRET": MASTER}, "URL"),
    ],
)
def test_what_has_no_key_is_a_usage_error(
    bare_beeq: Beeq, words: tuple[str, ...], environment: dict[str, str], complaint: str
) -> None:
    ran = bare_beeq.run("webhook-secret", *words, **environment)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    for secret in (MASTER, OLD, "hunter2"):
        assert secret.removeprefix("whsec_") not in ran.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BEEQ_WEBHOOK_KEYS", "every"),
        ("BEEQ_WEBHOOK_SIGNATURES", "v9"),
        ("BEEQ_WEBHOOK_ENDPOINT_KEYS", "tops3cret"),
    ],
)
def test_a_worker_with_a_bad_setting_does_not_start(beeq: Beeq, variable: str, value: str) -> None:
    ran = beeq.run("worker", "webhook-processing", **{variable: value})

    assert ran.returncode == 2
    assert variable in ran.stderr
    assert "tops3cret" not in ran.stderr
