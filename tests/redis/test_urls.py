"""Redis URLs: which are understood, which are refused without being repeated, and what is shown of one."""

from __future__ import annotations

import pytest

from beeq.redis.connector import Connector
from beeq.redis.urls import (
    ServerGroup,
    check_hash_tag,
    check_url,
    parse_server_group,
    redact,
    scheme_of,
    secrets_in,
    shown_url,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379",
        "redis://localhost",
        "redis://localhost/",
        "redis://localhost/3",
        "redis://user:word@redis.example:6380/0",
        "redis://:word@redis.example",
        "redis://[::1]:6379/1",
        "rediss://redis.example:6380/0?ssl_cert_reqs=required",
        "REDIS://localhost",
        "unix:///run/redis.sock",
        "unix://user:word@/run/redis.sock?db=2",
        "redis+sentinel://h1:26379,h2:26379/main/0",
        "redis+sentinel://h1/main",
        "redis+cluster://h1:6379,h2",
        "embedded:",
        "embedded:folder/of/mine",
    ],
)
def test_a_url_of_a_known_kind_is_taken_as_it_is(url):
    assert check_url(url) == url


@pytest.mark.parametrize("url", ["", " ", "\n", None, 5, b"redis://localhost"], ids=repr)
def test_no_url_is_called_empty(url):
    with pytest.raises(ValueError, match="^the Redis URL is empty$"):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:6379",
        "http://localhost",
        "//localhost",
        ":hunter2@host",
        "memcached://x:hunter2@y",
    ],
)
def test_a_url_of_another_kind_is_refused_by_naming_those_known(url):
    with pytest.raises(
        ValueError, match=r"^the Redis URL must begin with one of redis, rediss, unix, "
    ) as refused:
        check_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:///0",
        "redis://:hunter2@",
        "redis://u:hunter2@host:port",
        "redis://u:hunter2@host:0",
        "redis://u:hunter2@host:70000",
        "redis://u:hunter2@host/name",
        "redis://u:hunter2@host/0/1",
        "redis://u:hunter2@[::1",
        "unix://",
        "redis+sentinel://u:hunter2@h1:26379",
        "redis+sentinel://u:hunter2@h1/main/x",
        "redis+sentinel://u:hunter2@h1:port/main",
        "redis+sentinel:///main",
        "redis+sentinel://h1,,h2/main",
        "redis+sentinel://h1:0/main",
        "redis+cluster://h1:99999",
        "redis+cluster://",
        "redis+cluster://u:hunter2@h1/1",
        "redis+cluster://h1/name",
    ],
)
def test_a_malformed_url_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="^the Redis URL is malformed") as refused:
        check_url(url)
    assert refused.value.__cause__ is None
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis+sentinel://h1:26379", "names its master, and maybe a database: redis+sentinel://host:26379,"),
        ("redis+cluster://h1/1", "a cluster has one database and no name: redis+cluster://host:6379,"),
        ("redis+cluster://h1?db=2", "a cluster has one database"),
        ("redis+cluster://h1?sentinel_password=hunter2", "a cluster has no Sentinels"),
        (
            "redis://h1:6379,h2:6379",
            "several hosts are redis+cluster://host:6379,host:6379 or redis+sentinel://",
        ),
        ("redis+sentinel://:a#hunter2@h1/main", "a # in a password is written %23"),
        ("unix://", "it names no socket, as in unix:///run/redis.sock"),
    ],
)
def test_a_malformed_url_is_refused_with_what_to_write(url, hint):
    with pytest.raises(ValueError, match="^the Redis URL is malformed: ") as refused:
        check_url(url)
    assert hint in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "fleet"),
    [
        (
            "redis+sentinel://h1/main",
            ServerGroup([("h1", 26379)], "main", "redis://h1:26379/", "redis://h1:26379"),
        ),
        (
            "redis+sentinel://h1:1,h2:2,h3/main/5",
            ServerGroup([("h1", 1), ("h2", 2), ("h3", 26379)], "main", "redis://h1:1/5", "redis://h1:1"),
        ),
        (
            "redis+sentinel://us%40er:pass%2Fword@[::1]:1/main",
            ServerGroup([("::1", 1)], "main", "redis://us%40er:pass%2Fword@[::1]:1/", "redis://[::1]:1"),
        ),
        (
            "rediss+sentinel://:word@h1/main/2?sentinel_username=w%26x&sentinel_password=a%2Fb&ssl_keyfile=%2Fc",
            ServerGroup(
                [("h1", 26379)],
                "main",
                "rediss://:word@h1:26379/2?ssl_keyfile=%2Fc",
                "rediss://w%26x:a%2Fb@h1:26379?ssl_keyfile=%2Fc",
            ),
        ),
        (
            "redis+sentinel://h1/main?password=word&db=3&sentinel_password=other",
            ServerGroup(
                [("h1", 26379)], "main", "redis://h1:26379/?password=word&db=3", "redis://:other@h1:26379"
            ),
        ),
        ("redis+cluster://h1,h2:7000", ServerGroup([("h1", 6379), ("h2", 7000)], "", "redis://h1:6379/")),
        ("redis+cluster://u:p@h1/0", ServerGroup([("h1", 6379)], "", "redis://u:p@h1:6379/")),
        (
            "rediss+cluster://h1/?ssl_check_hostname=false",
            ServerGroup([("h1", 6379)], "", "rediss://h1:6379/?ssl_check_hostname=false"),
        ),
    ],
)
def test_a_fleets_url_names_its_servers(url, fleet):
    assert parse_server_group(url) == fleet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:hunter2@host", "redis://***@host"),
        ("rediss://hunter2@host", "rediss://***@host"),
        ("unix://u:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis+sentinel://u:hunter2@h1,h2/main", "redis+sentinel://***@h1,h2/main"),
        (
            "Error connecting to redis://u:hunter2@host:1 twice: redis://v:hunter2@other.",
            "Error connecting to redis://***@host:1 twice: redis://***@other.",
        ),
        ("embedded:folder", "embedded:folder"),
        ("redis://user:hun ter2@host:6379/0", "redis://***@host:6379/0"),
        ("at redis://u:hun\tter2@host and redis://v:p@other", "at redis://***@other"),
        ("redis://u:p@hun ter2@host", "redis://***@host"),
        ("no URL, but an @ sign", "no URL, but an @ sign"),
    ],
)
def test_what_is_shown_of_a_url_holds_neither_user_nor_password(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:p@hunter2@host:6379/0",  # only the last @ ends the password
        "redis://user:@hunter2@host",
        "redis://:a/hunter2@host",
        "redis://host:6379/0?password=hunter2",  # redis-py reads it there as well
        "redis://host?db=1&password=hunter2&timeout=5",
        "redis+sentinel://host/main?sentinel_username=hunter2&sentinel_password=hunter2",
        "rediss://host?ssl_password=hunter2",
        "unix:///run/redis.sock?db=1&password=hunter2",
        "rediss://host?ssl_password=my hunter2 is long",
        "redis://host?pass%77ord=hunter2",
        "redis://host?db=1 and redis://other?password=hunter2",
        "https://host/v1?api-key=hunter2&access_token=hunter2",
    ],
)
def test_no_part_of_a_password_is_shown_wherever_it_stands(text):
    assert "hunter2" not in redact(text)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("redis://x", "redis"), ("UNIX:///x", "unix"), ("embedded:", "embedded"), ("x", ""), ("", "")],
)
def test_a_scheme_is_what_stands_before_the_first_colon(url, scheme):
    assert scheme_of(url) == scheme


@pytest.mark.parametrize("key", ["{bq}:mail:id", "bq:{mail}:id", "{a}{b}:mail:id", "x{y}z:mail:id"])
def test_a_key_with_a_hash_tag_fits_a_cluster(key):
    check_hash_tag(key)


@pytest.mark.parametrize("key", ["bq:mail:id", "{}:mail:id", "bq:{mail:id", "bq:mail}:id", "{}{bq}:mail:id"])
def test_a_key_without_a_hash_tag_does_not(key):
    """An empty pair of braces makes Redis hash the whole key."""
    with pytest.raises(ValueError, match="needs a hash tag"):
        check_hash_tag(key)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("REDIS://me:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:hun ter2@host", "redis://***@host"),
        ("redis://:hun\tter2@host", "redis://***@host"),
        ("redis://:hun\n\x1bter2@host", "redis://***@host"),
        ("redis://hunter2@[::1]:6379/1", "redis://***@[::1]:6379/1"),
        ("redis://host?password=hunter2&db=1", "redis://host?db=1&***"),
        ("rediss://host?ssl_password=hunter2&protocol=3", "rediss://host?protocol=3&***"),
        ("redis://host?pass%77ord=hunter2", "redis://host?***"),
        ("redis://host?db=hunter2%20", "redis://host?***"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("unix://:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        (
            "rediss+sentinel://u:hunter2@h1,h2:3/main/0?sentinel_password=hunter2",
            "rediss+sentinel://***@h1,h2:3/main/0?***",
        ),
        ("redis+cluster://u:hunter2@h1:1,h2:2", "redis+cluster://***@h1:1,h2:2"),
        ("embedded:folder", "embedded:folder"),
        # What can be read in two ways, or not at all.
        ("redis://:a/hunter2@host", "redis:***"),
        ("redis://user:12#hunter2@host", "redis:***"),
        ("redis://user:12?hunter2@host", "redis:***"),
        ("redis://[hunter2", "redis:***"),
        ("redis://hunter2\x1b[2J", "redis:***"),
        ("hunter2://hunter2", "***"),
        ("hunter2", "***"),
    ],
)
def test_a_shown_url_is_put_together_from_what_is_no_secret(url, shown):
    assert shown_url(url) == shown


def test_long_texts_without_a_url_are_redacted_in_a_moment():
    for text in ("//" * 300_000, "@" * 300_000, "?a" * 300_000, "&a=" * 300_000, "//a " * 200_000):
        assert redact(text) == text


def test_the_secrets_in_a_url_are_found_in_both_spellings():
    found = set(secrets_in("mongodb://me:p%40ss@host/db?tlsCertificateKeyFilePassword=s3cret&w=1"))
    assert found == {"p%40ss", "p@ss", "s3cret"}
    assert set(secrets_in("redis://token@host")) == {"token"}
    assert list(secrets_in("redis://[")) == []


def test_nothing_that_is_made_of_a_url_shows_its_secrets():
    url = "rediss+sentinel://me:hunter2@h1/main?sentinel_password=hunter2&ssl_password=hunter2"
    assert "hunter2" not in repr(parse_server_group(url))
    for text in (url, "redis://me:hun ter2@host", "redis://host?password=hunter2 ter2"):
        shown = repr(Connector(text, timeout_ms=1000, slot_key="bq:{q}"))
        assert "ter2" not in shown
        assert shown.startswith("Connector(redis")
