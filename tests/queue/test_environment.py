"""Where the commands find Redis."""

from __future__ import annotations

import pytest

from beeq import Queue, RedisUnavailable, sync
from beeq.environment import library_redis_url, mongo_url, redis_url
from beeq.service import QueueService

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "embedded:"),
        ({"REDIS_PASSWORD": ""}, "embedded:"),
        ({"REDIS_URL": "redis://plain"}, "redis://plain"),
        ({"BEEQ_REDIS_URL": "redis://beeq", "REDIS_URL": "redis://plain", "REDIS_DB": "3"}, "redis://beeq"),
        ({"BEEQ_REDIS_URL": "embedded:some/dir"}, "embedded:some/dir"),
        ({"REDIS_HOST": "h"}, "redis://h:6379"),
        ({"REDIS_PORT": "7"}, "redis://localhost:7"),
        ({"REDIS_DB": "2"}, "redis://localhost:6379/2"),
        ({"REDIS_PASSWORD": "p@ss/word"}, "redis://:p%40ss%2Fword@localhost:6379"),
        ({"REDIS_HOST": "::1", "REDIS_PORT": "7"}, "redis://[::1]:7"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_PASSWORD": "p", "REDIS_DB": "1"}, "redis://:p@h:7/1"),
        ({"REDIS_URL": "redis://h", "REDIS_PASSWORD": "p", "REDIS_DB": "3"}, "redis://:p@h/3"),
        ({"REDIS_URL": "redis://u@h:1/", "REDIS_PASSWORD": "p"}, "redis://u:p@h:1/"),
        ({"REDIS_URL": "redis://:x@h/0", "REDIS_PASSWORD": "p", "REDIS_DB": "3"}, "redis://:x@h/0"),
        ({"REDIS_URL": "rediss://h?db=1", "REDIS_DB": "3"}, "rediss://h?db=1"),
        ({"REDIS_URL": "unix:///a.sock", "REDIS_DB": "3"}, "unix:///a.sock?db=3"),
        ({"REDIS_URL": "redis+sentinel://a:1,b:2/main", "REDIS_DB": "3"}, "redis+sentinel://a:1,b:2/main/3"),
        ({"REDIS_URL": "redis+sentinel://a:1/main/0", "REDIS_DB": "3"}, "redis+sentinel://a:1/main/0"),
        ({"REDIS_URL": "embedded:", "REDIS_PASSWORD": "p", "REDIS_DB": "3"}, "embedded:"),
    ],
)
def test_the_environment_says_where_redis_is(environment: dict[str, str], url: str) -> None:
    assert redis_url(None, environment) == url


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "redis://127.0.0.1:6379"),
        ({"BEEQ_REDIS_URL": "redis://beeq", "REDIS_URL": "redis://plain"}, "redis://beeq"),
        ({"REDIS_URL": "redis://plain", "REDIS_HOST": "h"}, "redis://plain"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "7"}, "redis://h:7"),
        ({"REDIS_URL": "embedded:"}, "embedded:"),
        ({"BEEQ_REDIS_URL": "embedded:data"}, "embedded:data"),
    ],
)
def test_the_library_finds_redis_as_the_commands_do(
    monkeypatch, environment: dict[str, str], url: str
) -> None:
    for name in ("BEEQ_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert library_redis_url(environment) == url
    assert Queue("mail").connector.shown == url
    assert QueueService().queues["webhook-processing"].connector.shown == url
    assert sync.Queue("mail")._twin.connector.shown == url
    assert Queue("mail", redis="redis://own").connector.shown == "redis://own"


def test_a_bad_variable_is_named_where_a_queue_is_made(monkeypatch) -> None:
    monkeypatch.setenv("BEEQ_REDIS_URL", "http://:hush@h")
    with pytest.raises(ValueError, match="^BEEQ_REDIS_URL: ") as caught:
        Queue("mail")
    assert "hush" not in str(caught.value)
    assert Queue("mail", redis="redis://own").connector.shown == "redis://own"


def test_the_option_wins() -> None:
    assert redis_url("redis://option", {"BEEQ_REDIS_URL": "redis://beeq"}) == "redis://option"


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"BEEQ_REDIS_URL": "", "REDIS_URL": "redis://h"}, "BEEQ_REDIS_URL"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL"),
        ({"REDIS_URL": "http://:secret@h"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:secret@h:port"}, "REDIS_URL"),
        ({"REDIS_HOST": ""}, "REDIS_HOST"),
        ({"REDIS_HOST": "a@b"}, "REDIS_HOST"),
        ({"REDIS_HOST": "a/b"}, "REDIS_HOST"),
        ({"REDIS_PORT": ""}, "REDIS_PORT"),
        ({"REDIS_PORT": "0"}, "REDIS_PORT"),
        ({"REDIS_PORT": "65536"}, "REDIS_PORT"),
        ({"REDIS_DB": "one"}, "REDIS_DB"),
        ({"REDIS_DB": "-1"}, "REDIS_DB"),
    ],
)
def test_a_useless_value_is_an_error_and_no_embedded_server(environment: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as refusal:
        redis_url(None, environment)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("option", "environ", "url"),
    [
        (None, {}, None),
        (None, {"MONGODB_URI": "mongodb://a/x"}, "mongodb://a/x"),
        (None, {"MONGODB_URI": "mongodb://a/x", "BEEQ_MONGO_URL": "mongodb+srv://b"}, "mongodb+srv://b"),
        ("mongodb://c", {"MONGODB_URI": "mongodb://a/x", "BEEQ_MONGO_URL": "nonsense"}, "mongodb://c"),
    ],
)
def test_the_mirror_is_where_option_then_environment_say(option, environ, url):
    assert mongo_url(option, environ) == url


@pytest.mark.parametrize("source", ["BEEQ_MONGO_URL", "MONGODB_URI"])
@pytest.mark.parametrize("text", ["", "mongodb:", "mongodb://", "http://u:hunter2@h", "mongodb://u:hunter2@"])
def test_a_malformed_mongo_url_is_named_by_source_not_repeated(source, text):
    with pytest.raises(ValueError, match=f"^{source}: the Mongo URL must begin") as refused:
        mongo_url(None, {source: text})
    assert "hunter2" not in str(refused.value)


async def test_without_configuration_an_error_says_what_to_set(monkeypatch):
    for name in ("BEEQ_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("beeq.environment.DEFAULT_URL", "redis://127.0.0.1:1")

    async def refused(**settings):
        queue = Queue("mail", initial_redis_failure_retry_delay=1, **settings)
        with pytest.raises(RedisUnavailable) as caught:
            await queue.connect()
        await queue.close()
        return str(caught.value)

    assert "set REDIS_URL, or BEEQ_REDIS_URL=embedded:" in await refused()
    assert "set REDIS_URL" not in await refused(redis="redis://127.0.0.1:1")
