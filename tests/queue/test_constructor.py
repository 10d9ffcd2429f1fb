"""What a queue is made of: its settings, its connections, its keys."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from beeq import Queue

pytestmark = pytest.mark.fast


async def queue_connections(redis, before):
    return [c for c in await redis.client_list() if c["id"] not in before]


def test_without_a_url_the_queue_is_on_this_machines_redis():
    assert "redis://127.0.0.1:6379" in repr(Queue("addition").connector)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?db=hunter2",
        "redis://h?socket_timeout=hunter2",
        "redis://h?hunter2=1",
        "rediss://h?ssl_cert_reqs=hunter2",
    ],
)
def test_a_meaningless_url_option_is_refused_at_once(url):
    with pytest.raises(ValueError, match="the Redis URL has an option") as refused:
        Queue("addition", redis=url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.real_redis("fakeredis's CLIENT LIST names no command and no database")
async def test_host_and_database_of_the_url_reach_every_connection(
    valkey, other_database, make_queue, redis, eventually
):
    before = {client["id"] for client in await redis.client_list()}
    worker = make_queue(redis=f"{valkey.url}/{other_database}")

    @worker.process
    async def handler(job):
        return job.data

    job = await worker.enqueue({"x": 1})
    assert await job.result(timeout=5000) == {"x": 1}

    async def has_all():
        made = await queue_connections(redis, before)
        return {c["cmd"] for c in made} >= {"blmove", "subscribe"} and made

    for connection in await eventually(has_all):
        assert connection["db"] == str(other_database)


@pytest.mark.real_redis("fakeredis's CLIENT LIST names no command and no database")
async def test_a_queue_that_is_no_worker_has_no_blocking_connection(make_queue, redis):
    before = {client["id"] for client in await redis.client_list()}
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    commands = {c["cmd"] for c in await queue_connections(redis, before)}
    assert "subscribe" in commands
    assert not commands & {"blmove", "brpoplpush"}


async def test_a_given_client_decides_where_the_queue_lives(valkey, other_database, queue_name, redis):
    async with valkey.client(db=other_database) as client:
        queue = Queue(queue_name, redis=client)
        job = await queue.enqueue({"x": 1})
        assert await client.hget(queue.keys.jobs, job.id)
        assert not await redis.exists(queue.keys.jobs)
        await queue.close()


async def test_a_client_that_has_not_connected_yet_works(valkey, make_queue):
    async with valkey.client() as client:
        queue = make_queue(redis=client)
        assert (await queue.enqueue({})).id == "1"
        await queue.close()


async def test_a_clients_decoding_option_changes_nothing(valkey, make_queue):
    async with valkey.client(decode_responses=True) as client:
        queue = make_queue(redis=client)

        @queue.process
        async def handler(job):
            return job.data["text"]

        job = await queue.enqueue({"text": "größe"})
        assert await job.result(timeout=5000) == "größe"
        await queue.close()


async def test_one_client_serves_many_queues(valkey, make_queue, queue_name):
    async with valkey.client() as client:
        queues = [make_queue(f"{queue_name}-{n}", redis=client) for n in range(3)]
        jobs = await asyncio.gather(*(queue.enqueue({"n": n}) for n, queue in enumerate(queues)))
        assert [job.id for job in jobs] == ["1", "1", "1"]
        for queue in queues:
            await queue.close()


@pytest.mark.parametrize("target", [b"redis://127.0.0.1:6379", 6379, {"host": "127.0.0.1"}, object()])
def test_a_redis_that_is_neither_url_nor_client_is_refused(target):
    """bee-queue connects to this machine's Redis instead, without a word."""
    with pytest.raises(TypeError, match="redis"):
        Queue("addition", redis=target)


@pytest.mark.parametrize(
    "url", ["", " ", "127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis://h:port", "redis://h/x"]
)
def test_a_malformed_url_is_refused_at_once(url):
    with pytest.raises(ValueError, match="URL"):
        Queue("addition", redis=url)


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_queue_without_a_name_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        Queue(name)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("stall_interval", 0),
        ("stall_interval", -1),
        ("stall_interval", 1.5),
        ("stall_interval", "5000"),
        ("near_term_window", 0),
        ("delayed_debounce", -1),
        ("redis_scan_count", 0),
        ("initial_redis_failure_retry_delay", 0),
        ("is_worker", 1),
        ("get_events", "yes"),
        ("remove_on_success", None),
        ("prefix", 5),
        ("max_stalls", -1),
        ("result_ttl", 0),
        ("quit_command_client", "no"),
        ("stallInterval", 5000),
    ],
)
def test_a_bad_setting_is_refused_by_name(setting, value):
    """bee-queue takes a stall interval of 0, and its worker never starts."""
    with pytest.raises((TypeError, ValueError), match=setting):
        Queue("addition", **{setting: value})


def test_a_nonpositive_window_is_refused_in_bee_queues_words():
    with pytest.raises(ValueError, match="maximum delay must be a positive integer"):
        Queue("addition", near_term_window=0)


def test_the_defaults_are_bee_queues_but_for_delayed_jobs():
    """In bee-queue nobody raises delayed jobs by default."""
    settings = Queue("addition").settings
    assert (settings.prefix, settings.stall_interval, settings.near_term_window) == ("bq", 5000, 1_200_000)
    assert (settings.delayed_debounce, settings.redis_scan_count) == (1000, 100)
    assert settings.initial_redis_failure_retry_delay == 1000
    assert settings.is_worker
    assert settings.get_events
    assert settings.send_events
    assert settings.store_jobs
    assert settings.activate_delayed_jobs
    assert not settings.remove_on_success
    assert not settings.remove_on_failure


def test_settings_are_frozen_and_take_timedeltas():
    settings = Queue("addition", stall_interval=timedelta(seconds=2)).settings
    assert settings.stall_interval == 2000
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.stall_interval = 1  # type: ignore[misc]  # the mistake under test


@pytest.mark.parametrize(
    ("prefix", "name", "key"),
    [
        ("bq", "mail", "bq:mail:jobs"),
        ("", "mail", "bq:mail:jobs"),
        ("other", "mail", "other:mail:jobs"),
        ("bq", "a:b", "bq:a:b:jobs"),
        ("{tag}", "größe", "{tag}:größe:jobs"),
    ],
)
def test_keys_are_prefix_queue_and_suffix_with_nothing_escaped(prefix, name, key):
    assert Queue(name, prefix=prefix).to_key("jobs") == key


@pytest.mark.more_rights("another prefix")
async def test_queues_of_one_name_and_two_prefixes_share_nothing(make_queue):
    first, second = make_queue(prefix="bq-a"), make_queue(prefix="bq-b")
    await first.enqueue({"x": 1})
    assert (await first.check_health()).waiting == 1
    assert (await second.check_health()).waiting == 0
    await first.destroy()
    await second.destroy()
