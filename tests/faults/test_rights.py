"""A Redis user who lacks a right, or has lost it: a clear error, soon, where the right was needed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from beeq import RedisRefused, RedisUnavailable
from tests.support.proxy import proxy_to
from tests.support.waiting import pause

pytestmark = pytest.mark.more_rights("users of its own")

SOON_S = 3.0
EVERYTHING = ("~*", "&*", "+@all")


@pytest.fixture
async def admin(own_valkey):
    async with own_valkey.client(decode_responses=True) as client:
        yield client


async def allow(admin, *rights: str) -> None:
    """Let the user ``bee`` do this and nothing else."""
    await admin.execute_command("ACL", "SETUSER", "bee", "reset", "on", ">pw", *rights)


def url_of(server, user: str = "bee:pw") -> str:
    return str(server.url.replace("redis://", f"redis://{user}@"))


async def refusal_of(call: Any) -> Any:
    with pytest.raises((RedisRefused, RedisUnavailable)) as refused:
        await asyncio.wait_for(call, SOON_S)
    assert "pw" not in str(refused.value)
    return refused.value


def every_call(queue) -> dict[str, Any]:
    return {
        "connect": queue.connect,
        "enqueue": lambda: queue.enqueue("x"),
        "own id": lambda: queue.enqueue("x", id="own"),
        "save_all": lambda: queue.save_all([queue.create_job(1), queue.create_job(2)]),
        "get_job": lambda: queue.get_job("1"),
        "get_jobs": lambda: queue.get_jobs("waiting"),
        "check_health": queue.check_health,
        "cancel": lambda: queue.cancel_job("1"),
        "remove": lambda: queue.remove_job("1"),
        "clean": lambda: queue.clean("failed", 0),
        "destroy": queue.destroy,
    }


async def test_without_the_right_to_a_channel_each_call_says_so(own_valkey, admin, make_queue):
    await allow(admin, "~*", "+@all")
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    for name, call in every_call(queue).items():
        refused = await refusal_of(call())
        assert isinstance(refused, RedisRefused), name
        assert refused.code == "NOPERM"
        assert f"&{queue.keys.events} " in str(refused)
    assert await admin.keys("*") == []


async def test_the_right_to_a_channel_can_be_given_later(own_valkey, admin, make_queue, eventually):
    await allow(admin, "~*", "+@all")
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    await refusal_of(queue.enqueue("x"))
    await allow(admin, *EVERYTHING)
    job = await asyncio.wait_for(queue.enqueue("x"), SOON_S)
    heard: list[Any] = []
    job.on("succeeded", heard.append)
    worker = make_queue(redis=own_valkey.url)
    worker.process(lambda job: job.data)
    assert await asyncio.wait_for(job.result(), SOON_S) == "x"
    await eventually(lambda: heard)  # the result may have been looked up before
    assert heard == ["x"]


async def test_without_events_no_right_to_a_channel_is_needed(own_valkey, admin, make_queue):
    await allow(admin, "~*", "+@all")
    queue = make_queue(
        redis=url_of(own_valkey), is_worker=False, get_events=False, activate_delayed_jobs=False
    )
    job = await queue.enqueue("x")
    job.on("succeeded", print)
    worker = make_queue(redis=own_valkey.url)
    worker.process(lambda job: job.data)
    assert await asyncio.wait_for(job.result(), SOON_S) == "x"
    assert queue.event_hub.jobs == queue.event_hub._kept == {}


async def test_a_worker_without_rights_to_channels_says_so_and_works(own_valkey, admin, make_queue, recorder):
    await allow(admin, "~*", "&*:events", "+@all")
    worker = make_queue(redis=url_of(own_valkey), activate_delayed_jobs=True)
    record = recorder(worker, "error")
    worker.process(lambda job: job.data)
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    assert await asyncio.wait_for((await producer.enqueue("x")).result(), SOON_S) == "x"
    ((error,), *_) = await record.until("error", within_s=SOON_S)
    assert isinstance(error, RedisRefused)
    assert f"&{worker.keys.earlier_delayed} " in str(error)


async def test_rights_that_are_taken_are_reported_and_come_back(
    own_valkey, admin, make_queue, recorder, eventually
):
    """Meanwhile the queue saves; ends that were missed are delivered when its events are heard again."""
    await allow(admin, *EVERYTHING)
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    record = recorder(queue, "error")
    heard: list[Any] = []
    await queue.create_job("before").on("succeeded", heard.append).save()
    await admin.execute_command("ACL", "SETUSER", "bee", "resetchannels")
    await eventually(lambda: any("may not hear" in str(error) for (error,) in record.of("error")))
    await queue.create_job("meanwhile").on("succeeded", heard.append).save()
    worker = make_queue(redis=own_valkey.url)
    worker.process(lambda job: job.data)

    async def is_done() -> bool:
        return bool((await queue.check_health()).succeeded == 2)

    await eventually(is_done)
    assert heard == []
    await admin.execute_command("ACL", "SETUSER", "bee", "&*")
    await eventually(lambda: len(heard) == 2)
    assert sorted(heard) == ["before", "meanwhile"]


@pytest.mark.parametrize(
    ("rights", "word"),
    [
        (("~other:*", "&*", "+@all"), "key"),
        (("~*", "&*", "+@all", "-evalsha"), "evalsha"),
        (("~*", "&*", "+@all", "-script"), "script"),
        (("~*", "&*", "+@all", "-subscribe"), "subscribe"),
        (("~*", "&*", "-@all"), "ping"),
    ],
)
async def test_a_missing_right_is_named_by_each_call_that_needs_it(
    own_valkey, admin, make_queue, expect_errors, rights, word
):
    await allow(admin, *rights)
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    refused = await refusal_of(queue.enqueue("x"))
    assert refused.code == "NOPERM"
    assert word in str(refused)
    for name, call in every_call(queue).items():
        began = time.monotonic()
        outcome = (await asyncio.gather(call(), return_exceptions=True))[0]
        assert time.monotonic() - began < SOON_S, name
        assert not isinstance(outcome, Exception) or isinstance(outcome, RedisRefused), name
    assert queue.event_hub._expected == queue.event_hub._kept == {}


async def test_rights_lost_under_way_are_refusals_and_no_waits(own_valkey, admin, make_queue):
    await allow(admin, *EVERYTHING)
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    job = await queue.enqueue("x")
    waits = asyncio.ensure_future(job.result())
    await pause(0.15)
    await allow(admin, "&*", "+@all")
    for name, call in every_call(queue).items():
        if name not in ("connect", "save_all"):
            assert (await refusal_of(call())).code == "NOPERM", name
    assert all(isinstance(error, RedisRefused) for error in (await every_call(queue)["save_all"]()).values())
    assert (await refusal_of(waits)).code == "NOPERM"


@pytest.mark.parametrize("user", ["bee:wrong", "nobody:pw", ":wrong"])
async def test_wrong_credentials_are_said_soon(own_valkey, admin, make_queue, user):
    await allow(admin, *EVERYTHING)
    queue = make_queue(redis=url_of(own_valkey, user), is_worker=False)
    for call in every_call(queue).values():
        assert isinstance(await refusal_of(call()), RedisUnavailable)


async def test_a_server_that_wants_a_password_says_so_soon(own_valkey, admin, make_queue):
    await admin.config_set("requirepass", "secret")
    queue = make_queue(redis=own_valkey.url, is_worker=False)
    for call in every_call(queue).values():
        refused = await refusal_of(call())
        assert "Authentication required" in str(refused)
        assert "secret" not in str(refused)


async def test_a_password_that_changes_before_events_are_heard_is_said(
    own_valkey, admin, make_queue, expect_errors
):
    """The connection for commands works; the one for events cannot be made."""
    await allow(admin, *EVERYTHING)
    queue = make_queue(redis=url_of(own_valkey), is_worker=False)
    await queue.pipeline.connect()
    await admin.execute_command("ACL", "SETUSER", "bee", "resetpass", ">another")
    refused = await refusal_of(queue.enqueue("x"))
    assert isinstance(refused, RedisUnavailable)
    assert "username-password" in str(refused)


async def test_where_redis_is_away_the_error_says_just_that(valkey, make_queue, expect_errors):
    async with proxy_to(valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False, redis_timeout=500)
        await queue.pipeline.connect()
        proxy.swallow = lambda request: b"SUBSCRIBE" in request
        away = await refusal_of(queue.enqueue("x"))
        proxy.swallow = lambda _request: False
        proxy.mute = lambda request: b"SUBSCRIBE" in request
        silent = await refusal_of(queue.enqueue("x"))
        await queue.close()
    for error in (away, silent):
        assert isinstance(error, RedisUnavailable)
        assert "NOPERM" not in str(error)
