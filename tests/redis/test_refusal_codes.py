"""What a server refuses is known by its code, in the form that each version writes, in a script and outside."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beeq import Queue, RedisRefused, RedisUnavailable
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.error_codes import NOT_HERE, coded
from beeq.redis.resp import pack
from tests.support.server import Server
from tests.support.topologies import until

KEY = "bq:codes:waiting"
#: How a command's refusal may come: its own reply, raised in a script, returned by one, or inside what one returns.
SHAPES = {
    "sent": None,
    "raised": "return redis.call(unpack(ARGV))",
    "returned": "return redis.pcall(unpack(ARGV))",
    "nested": "return {1, redis.pcall(unpack(ARGV))}",
}
#: Refusals that pass: a call whose every try met one says that Redis is away.
PASSING = {*NOT_HERE, "LOADING", "BUSY"}


def configure(server: Server, **values: Any) -> None:
    with server.sync_client() as client:
        for name, value in values.items():
            client.config_set(name.replace("_", "-"), value)


@contextlib.contextmanager
def is_replica(server: Server) -> Iterator[None]:
    with server.sync_client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def is_cut_off(server: Server) -> Iterator[None]:
    configure(server, replica_serve_stale_data="no")
    with is_replica(server):
        yield


@contextlib.contextmanager
def is_full(server: Server) -> Iterator[None]:
    configure(server, maxmemory=1)
    yield
    configure(server, maxmemory=0)


@contextlib.contextmanager
def lacks_replicas(server: Server) -> Iterator[None]:
    configure(server, min_replicas_to_write=1)
    yield
    configure(server, min_replicas_to_write=0)


@contextlib.contextmanager
def cannot_save(server: Server) -> Iterator[None]:
    """The dump's name is taken by a folder that is not empty."""
    (server._folder / "dump.rdb" / "taken").mkdir(parents=True)
    configure(server, save="3600 1")
    with server.sync_client() as client:
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield
    configure(server, save="")
    shutil.rmtree(server._folder / "dump.rdb")


@contextlib.contextmanager
def is_loading(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It reads 30 values of 1 MB, 100 ms each, and answers after every second one."""
    with server.sync_client() as client:
        client.config_set("rdbcompression", "no")
        client.mset({f"long-{n}": "x" * 1_100_000 for n in range(30)})
        client.save()
    server.kill()

    def is_told() -> bool:
        with (
            server.sync_client(retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.RedisError) as reported,
        ):
            client.ping()
        return isinstance(reported.value, redis.exceptions.BusyLoadingError)

    with monkeypatch.context() as patch:
        patch.setattr(server, "_wait_until_it_answers", lambda: until(is_told))
        server.start("--key-load-delay", "100000")
    yield
    with server.sync_client() as client:
        until(client.ping)


@contextlib.contextmanager
def is_busy(server: Server) -> Iterator[None]:
    configure(server, lua_time_limit=20)

    def spin() -> None:
        with server.sync_client() as client, pytest.raises(redis.ResponseError):
            client.eval("while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    with server.sync_client() as client:

        def refuses() -> bool:
            with contextlib.suppress(redis.ResponseError):
                return not client.get(KEY) and False
            return True

        until(refuses)
        yield
        client.script_kill()
    spinning.join()


@contextlib.contextmanager
def holds_another_type(server: Server) -> Iterator[None]:
    with server.sync_client() as client:
        client.set(KEY, "text")
        yield
        client.delete(KEY)


@contextlib.contextmanager
def user_lacks_a_command(server: Server) -> Iterator[None]:
    with server.sync_client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-lpush")
        yield
        client.execute_command("ACL", "SETUSER", "few", "+lpush")


@contextlib.contextmanager
def user_lacks_a_key(server: Server) -> Iterator[None]:
    with server.sync_client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "resetkeys", "~other", "&*", "+@all")
        yield
        client.execute_command("ACL", "SETUSER", "few", "~*")


CAUSES: dict[str, tuple[str, Callable[..., Any]]] = {
    "a replica": ("READONLY", is_replica),
    "no master": ("MASTERDOWN", is_cut_off),
    "no memory": ("OOM", is_full),
    "no replicas": ("NOREPLICAS", lacks_replicas),
    "no disk": ("MISCONF", cannot_save),
    "a script that runs": ("BUSY", is_busy),
    "another type": ("WRONGTYPE", holds_another_type),
    "no right to the command": ("NOPERM", user_lacks_a_command),
    "no right to the key": ("NOPERM", user_lacks_a_key),
}


def url_of(server: Server, code: str) -> str:
    return server.url.replace("redis://", "redis://few:pw@") if code == "NOPERM" else server.url


@pytest.mark.more_rights("users of its own")
@pytest.mark.parametrize("cause", CAUSES)
async def test_a_refusal_has_its_code_in_every_shape(each_server, cause):
    code, is_so = CAUSES[cause]
    connector = Connector(url_of(each_server, code), timeout_ms=5000, slot_key=KEY)
    command = ("GET" if code == "MASTERDOWN" else "LPUSH", KEY, "x")[: 2 if code == "MASTERDOWN" else 3]
    with is_so(each_server):
        for shape, source in SHAPES.items():
            connection = Connection(connector, timeout_ms=5000)
            packed = pack(*command) if source is None else pack("EVAL", source, 0, *command)
            (reply,) = await connection.request((packed,))
            refused = reply[1] if isinstance(reply, list) else reply
            assert isinstance(refused, RedisRefused), shape
            assert (refused.code, str(refused)[:1]) == (code, code[0]), (shape, str(refused))
            assert connection.is_connected == (code not in NOT_HERE), shape
            await connection.close()
    await connector.close()


@pytest.mark.more_rights("users of its own")
@pytest.mark.parametrize("cause", CAUSES)
async def test_saves_raise_the_code_and_go_on_once_it_passes(each_server, cause):
    code, is_so = CAUSES[cause]
    with each_server.sync_client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all")
    async with Queue("codes", redis=url_of(each_server, code), is_worker=False, get_events=False) as queue:
        kind = RedisUnavailable if code in PASSING else RedisRefused
        with is_so(each_server):
            with pytest.raises(kind, match=f"^{code} "):
                await queue.enqueue(1)
            many = [queue.create_job(n) for n in range(3)]
            if code in PASSING:
                with pytest.raises(RedisUnavailable, match=f"^{code} "):
                    await queue.save_all(many)
            else:
                assert {getattr(error, "code", None) for error in (await queue.save_all(many)).values()} == {
                    code
                }
        await queue.enqueue(2)
        assert (await queue.check_health()).waiting == 1


@pytest.mark.external
@pytest.mark.more_rights("sends GET to a key of no queue")
async def test_a_server_that_loads_its_data_is_away_for_now(each_server, monkeypatch):
    with is_loading(each_server, monkeypatch):
        connector = Connector(each_server.url, timeout_ms=5000, slot_key=KEY)
        connection = Connection(connector, timeout_ms=5000)
        for source in SHAPES.values():
            packed = pack("GET", KEY) if source is None else pack("EVAL", source, 0, "GET", KEY)
            (refused,) = await connection.request((packed,))
            assert refused.code == "LOADING"
        with pytest.raises(RedisUnavailable, match="^LOADING "):
            await connection.call("GET", KEY)
        await connection.close()
        await connector.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("READONLY You can't write.", "READONLY"),
        ("@user_script: 45: -READONLY You can't write.", "READONLY"),
        ("ERR Error running script (call to f_0a): @user_script:45: @user_script: 45: -OOM command", "OOM"),
        ("ERR Error running script (call to f_0a): @user_script:45: WRONGTYPE Operation", "WRONGTYPE"),
        (
            "ERR Error running script (call to f_0a): @user_script:1: user_script:1: attempt to add a nil",
            "ERR",
        ),
        ("@user_script: 1: Unknown Redis command called from Lua script", "ERR"),
        ("@user_script: 1: The user executing the script can't run this command or subcommand", "NOPERM"),
        ("ERR The user executing the script can't access at least one of the keys mentioned", "NOPERM"),
        ("ERR ACL failure in script: User u has no permissions to run the 'set' command", "NOPERM"),
        ("ERR value is not an integer or out of range script: 3c44, on @user_script:1.", "ERR"),
        ("ERR the counter of ids cannot count (-READONLY is no number)", "ERR"),
        ("no code", "ERR"),
    ],
)
def test_the_first_word_of_an_error_is_its_code(text, code):
    assert coded(text).split(" ")[0] == code
    assert coded(text).endswith(text[-10:])
