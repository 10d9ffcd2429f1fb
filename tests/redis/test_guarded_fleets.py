"""Sentinels and clusters behind TLS and passwords, by URL and by client: a queue gets through to its server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio
import valkey.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot

from beeq import Queue, RedisUnavailable
from tests.support.certificate import CERTIFICATE, write_pem
from tests.support.server import Server, free_port
from tests.support.topologies import NAME, Cluster, Sentinel

pytestmark = pytest.mark.external

#: Every character that URLs give a meaning to.
PASSWORD = "a:b/c@d?e#f&g=h%20+i"
QUOTED = quote(PASSWORD, safe="")
#: The only one that speaks TLS.
TLS = "system"


class GuardedSentinel(Sentinel):
    """A Sentinel that lets in the default user with a password, and one named ``watcher``."""

    def __init__(self, folder: Path, primary: Server, *lines: str) -> None:
        super().__init__(folder, primary, kind=TLS)
        more = (
            f"requirepass {PASSWORD}",
            f"user watcher on >{PASSWORD} allchannels +@all",
            *lines,
        )
        with self._configuration.open("a") as file:
            file.writelines(f"{line}\n" for line in more)

    def sync_client(self, **options: Any) -> redis.Redis:
        return super().sync_client(password=PASSWORD, **options)


@pytest.fixture
def pem(tmp_path) -> Path:
    return write_pem(tmp_path)


@pytest.fixture
def tls_options(tmp_path, pem) -> str:
    """What a URL says of the certificate, which is for another host."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    return (
        f"ssl_ca_certs={quote(str(tmp_path / 'ca.pem'), safe='')}&ssl_check_hostname=false"
        f"&ssl_certfile={quote(str(pem), safe='')}&ssl_keyfile={quote(str(pem), safe='')}"
    )


def tls_lines(pem: Path, port: int) -> dict[str, str]:
    """Return a server's settings for a TLS port that asks for a certificate, too."""
    return {
        "tls-port": str(port),
        "tls-cert-file": str(pem),
        "tls-key-file": str(pem),
        "tls-ca-cert-file": str(pem),
        "tls-auth-clients": "yes",
    }


def as_options(lines: dict[str, str]) -> list[str]:
    return [word for name, value in lines.items() for word in (f"--{name}", value)]


def folder_in(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


@pytest.fixture
def guarded_sentinel(tmp_path) -> Iterator[GuardedSentinel]:
    """A Sentinel with a password before a master with another user's."""
    with Server(folder_in(tmp_path, "master"), kind=TLS) as master, master.sync_client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        with GuardedSentinel(folder_in(tmp_path, "sentinel"), master) as sentinel:
            yield sentinel


@pytest.fixture
def tls_sentinel(tmp_path, pem) -> Iterator[tuple[int, GuardedSentinel]]:
    """The TLS port of a guarded Sentinel before a master that it reaches over TLS."""
    port, its_port = free_port(), free_port()
    master = Server(folder_in(tmp_path, "master"), kind=TLS)
    master.start(*as_options(tls_lines(pem, port)), "--tls-replication", "yes")
    lines = {**tls_lines(pem, its_port), "tls-replication": "yes"}
    sentinel = GuardedSentinel(
        folder_in(tmp_path, "sentinel"), master, *(f"{name} {value}" for name, value in lines.items())
    )
    text = sentinel._configuration.read_text()
    sentinel._configuration.write_text(text.replace(f"127.0.0.1 {master.port} 1", f"127.0.0.1 {port} 1"))
    with master, sentinel:
        yield its_port, sentinel


async def works(target: Any, **settings: Any) -> bool:
    """Return whether a job goes through a queue, with events."""
    async with asyncio.timeout(20), Queue("guarded", redis=target, **settings) as queue:

        @queue.process
        async def add(job: Any) -> Any:
            return job.data + 1

        return bool(await (await queue.enqueue(41)).result(timeout=10_000) == 42)


@pytest.mark.parametrize(
    "credentials", [f"sentinel_password={QUOTED}", f"sentinel_username=watcher&sentinel_password={QUOTED}"]
)
async def test_a_sentinels_password_and_the_masters_are_two(guarded_sentinel, credentials):
    port = guarded_sentinel.port
    url = f"redis+sentinel://worker:{QUOTED}@127.0.0.1:{free_port()},127.0.0.1:{port}/{NAME}/2?{credentials}&client_name=me"
    assert await works(url)
    with guarded_sentinel.sync_client() as client:
        assert client.execute_command("SENTINEL", "MASTERS")


@pytest.mark.parametrize("credentials", ["", "?sentinel_password=hunter2"])
async def test_a_sentinel_that_lets_nobody_in_is_said_in_one_sentence(guarded_sentinel, credentials):
    url = f"redis+sentinel://worker:{QUOTED}@127.0.0.1:{guarded_sentinel.port}/{NAME}{credentials}"
    queue = Queue("guarded", redis=url, redis_timeout=2000)
    with pytest.raises(
        RedisUnavailable, match=r"^no Sentinel of 127.0.0.1:\d+ names the master 'mymaster': "
    ) as away:
        await queue.connect()
    assert len(str(away.value)) < 200
    assert "hunter2" not in str(away.value)
    await queue.close()


async def test_tls_leads_to_the_sentinels_and_their_master(tls_sentinel, tls_options):
    port, _ = tls_sentinel
    url = f"rediss+sentinel://127.0.0.1:{port}/{NAME}?sentinel_password={QUOTED}&{tls_options}"
    assert await works(url)


async def test_a_client_of_tls_sentinels_works(tls_sentinel, tmp_path, pem, tls_options):
    port, _ = tls_sentinel
    tls = {
        "ssl": True,
        "ssl_ca_certs": str(tmp_path / "ca.pem"),
        "ssl_check_hostname": False,
        "ssl_certfile": str(pem),
        "ssl_keyfile": str(pem),
    }
    sentinel = redis.asyncio.Sentinel(
        [("127.0.0.1", port)], sentinel_kwargs={**tls, "password": PASSWORD}, **tls
    )
    client = sentinel.master_for(NAME)
    assert await works(client)
    await client.aclose()
    for each in sentinel.sentinels:
        await each.aclose()


@pytest.fixture
def tls_cluster(tmp_path, pem) -> Iterator[tuple[Cluster, list[int]]]:
    """A cluster whose nodes speak TLS on a second port; and these ports."""
    ports: list[int] = []

    class TLSCluster(Cluster):
        def _add_node(self) -> Any:
            ports.append(free_port())
            options = self._options
            self._options = (*options, "--tls-cluster", "yes", *as_options(tls_lines(pem, ports[-1])))
            try:
                return super()._add_node()
            finally:
                self._options = options

    with TLSCluster(folder_in(tmp_path, "cluster"), kind=TLS) as started:
        yield started, ports


@pytest.mark.parametrize("tag", ["a", "b", "c"])
async def test_tls_leads_to_the_owner_of_a_slot(tls_cluster, tls_options, tag):
    cluster, ports = tls_cluster
    assert await works(f"rediss+cluster://127.0.0.1:{ports[0]}?{tls_options}", prefix=f"{{{tag}}}")
    with cluster.owner(key_slot(tag.encode())).sync_client() as client:
        assert client.exists(f"{{{tag}}}:guarded:jobs")


async def test_a_cluster_client_over_tls_works(tls_cluster, tmp_path, pem, tls_options):
    _, ports = tls_cluster
    client = redis.asyncio.RedisCluster(
        host="127.0.0.1",
        port=ports[0],
        ssl=True,
        ssl_ca_certs=str(tmp_path / "ca.pem"),
        ssl_check_hostname=False,
        ssl_certfile=str(pem),
        ssl_keyfile=str(pem),
    )
    assert await works(client, prefix="{a}")
    await client.aclose()


async def test_cluster_clients_of_each_library_work(tmp_path):
    with Cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            with node.sync_client() as client:
                client.execute_command("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        port = cluster.nodes[0].port
        by_url = f"redis+cluster://worker:{QUOTED}@127.0.0.1:{free_port()},127.0.0.1:{port}?client_name=me"
        clients: list[Any] = [
            redis.asyncio.RedisCluster("127.0.0.1", port, username="worker", password=PASSWORD),
            redis.asyncio.RedisCluster(
                startup_nodes=[ClusterNode("127.0.0.1", free_port()), ClusterNode("127.0.0.1", port)]
            ),
            redis.asyncio.RedisCluster.from_url(f"redis://127.0.0.1:{port}"),
            valkey.asyncio.ValkeyCluster("127.0.0.1", port),
        ]
        for target in (by_url, *clients):
            for tag in ("a", "b", "c"):
                assert await works(target, prefix=f"{{{tag}}}")
        for client in clients:
            await client.aclose()
