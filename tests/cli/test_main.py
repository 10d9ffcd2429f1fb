"""What all commands share: help, version, exit codes, and silence about passwords."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cli.command import Beeq
from tests.support.server import Server, free_port


def test_help_lists_the_commands_without_loading_the_engine(beeq: Beeq) -> None:
    script = "import sys, beeq_cli.main as m; m.cli(['--help'], standalone_mode=False); print('beeq' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", script], env=beeq.environment, capture_output=True, text=True, check=True
    )
    assert all(f"\n  {name} " in ran.stdout for name in ("worker", "enqueue", "stats", "demo"))
    assert ran.stdout.endswith("False\n")


def test_no_command_loads_the_driver_of_mongodb(beeq: Beeq) -> None:
    script = (
        "import sys, beeq_cli.commands.enqueue, beeq_cli.commands.stats, beeq_cli.commands.worker, beeq_cli.demo.command;"
        "print([name for name in sys.modules if name.split('.')[0] in ('pymongo', 'bson', 'rich')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env=beeq.environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_the_version_is_printed(beeq: Beeq) -> None:
    from beeq import __version__

    assert beeq.ok("--version") == f"beeq {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("stats", "--nope"),
        ("enqueue",),
        ("stats", ""),
        ("enqueue", ""),
        ("stats", "-u", ""),
        ("stats", "-u", "localhost"),
        ("stats", "-i", "0"),
        ("worker", "--shutdown-timeout", "30"),
        ("web", "--head-timeout", "10"),
        ("worker", "-c", "0"),
        ("worker", "-w", "0"),
        ("worker", "--shutdown-timeout", "soon"),
        ("worker", "--log-format", "xml"),
    ],
)
def test_wrong_usage_exits_with_2(beeq: Beeq, arguments: tuple[str, ...]) -> None:
    ran = beeq.run(*arguments)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Error: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_empty_url_in_the_environment_is_an_error(bare_beeq: Beeq) -> None:
    ran = bare_beeq.run("stats", REDIS_URL="")
    assert ran.returncode == 2
    assert "REDIS_URL" in ran.stderr
    assert list(bare_beeq.folder.iterdir()) == []


def test_options_have_twins_in_the_environment(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "-p", "other")
    assert (
        json.loads(beeq.ok("stats", queue_name, BEEQ_PREFIX="other", BEEQ_JSON="1"))[queue_name]["waiting"]
        == 1
    )
    assert json.loads(beeq.ok("stats", queue_name, "--json"))[queue_name]["waiting"] == 0


def test_common_options_may_stand_before_the_command(
    bare_beeq: Beeq, valkey: Server, queue_name: str
) -> None:
    assert bare_beeq.ok("-u", valkey.url, "-p", "bq", "enqueue", queue_name) == "1\n"
    assert list(bare_beeq.folder.iterdir()) == []


@pytest.mark.parametrize("command", [("stats",), ("enqueue", "q"), ("worker", "webhook-processing")])
def test_an_unreachable_redis_exits_with_3_and_one_line(beeq: Beeq, command: tuple[str, ...]) -> None:
    ran = beeq.run(*command, "-u", f"redis://:secret@127.0.0.1:{free_port()}")
    assert ran.returncode == 3
    assert ran.stdout == ""
    assert ran.stderr.startswith("Error: cannot connect to Redis: ")
    assert ran.stderr.count("\n") == 1
    assert "secret" not in ran.stderr


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:sec ret@127.0.0.1:{port}",
        "redis://me:sec\tret@127.0.0.1:{port}",
        "redis://me:sec\n\x1bret@127.0.0.1:{port}",
        "redis://me:1/sec ret@127.0.0.1:{port}",
        "redis://me:1#sec ret@127.0.0.1:{port}",
        "rediss://127.0.0.1:{port}?ssl_password=sec ret&password=sec ret",
        "redis+sentinel://:sec ret@127.0.0.1:{port}/main?sentinel_password=sec ret",
        "redis://sec ret",
        "sec ret://127.0.0.1:{port}",
    ],
)
def test_an_odd_url_shows_no_password(beeq: Beeq, url: str) -> None:
    for options in ((), ("-v",)):
        ran = beeq.run("stats", "-u", url.format(port=free_port()), *options)
        assert ran.returncode in (2, 3)
        assert "ret@" not in ran.stderr
        assert "c ret" not in ran.stderr
        assert "\\x1bret" not in ran.stderr


def test_an_unreachable_redis_ends_processes_as_well(beeq: Beeq) -> None:
    ran = beeq.run("worker", "-w", "3", "webhook-processing", "-u", f"redis://127.0.0.1:{free_port()}")
    assert ran.returncode == 3
    assert ran.stderr.count("\n") == 1


def test_a_wrong_password_exits_with_3_and_shows_none(beeq: Beeq, own_valkey: Server) -> None:
    with own_valkey.sync_client() as client:
        client.config_set("requirepass", "right")
        ran = beeq.run("stats", "-u", f"redis://:secret@127.0.0.1:{own_valkey.port}")
        client.config_set("requirepass", "")
    assert ran.returncode == 3
    assert "WRONGPASS" in ran.stderr or "password" in ran.stderr
    assert "secret" not in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where somebody accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_redis_exits_with_3_in_time(beeq: Beeq, silent_port: int) -> None:
    began = time.monotonic()
    ran = beeq.run("stats", "-u", f"redis://127.0.0.1:{silent_port}")
    assert ran.returncode == 3
    assert time.monotonic() - began < 30


def test_a_redis_that_refuses_exits_with_1(beeq: Beeq, own_valkey: Server, queue_name: str) -> None:
    with own_valkey.sync_client() as client:
        client.config_set("maxmemory", "1")
    ran = beeq.run("enqueue", queue_name, "a=1", "-u", own_valkey.url)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "OOM" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_traceback_is_shown_with_v_only(beeq: Beeq, own_valkey: Server, queue_name: str) -> None:
    with own_valkey.sync_client() as client:
        client.config_set("maxmemory", "1")
    ran = beeq.run("enqueue", "-v", queue_name, "a=1", "-u", own_valkey.url)
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr


def test_a_reader_that_goes_away_is_no_traceback(beeq: Beeq, queue_name: str) -> None:
    lines = "{}\n" * 3000
    (beeq.folder / "jobs").write_text(lines)
    ran = subprocess.run(
        f"{shlex.join(beeq.python)} -m beeq_cli enqueue {queue_name} --bulk jobs | head -1",
        shell=True,
        cwd=beeq.folder,
        env=beeq.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "1\n"
    assert "Traceback" not in ran.stderr
