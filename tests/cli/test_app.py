"""``beeq worker --app``: which queues it works on, where, and what is said of a module that does not load."""

from __future__ import annotations

import json
import signal
import uuid

import pytest
import redis

from tests.cli.command import Beeq, said
from tests.support.server import Server

STARTED = "Queue worker started"
KEEPS = "keeps 10000 succeeded jobs for 7d (its own) and 10000 failed jobs for 30d (its own)"
APP = """
import os
from beeq import Queue

async def handle(job):
    return "done"

plain = Queue(os.environ["TEST_QUEUE"])
plain.process(handle)
bound = Queue("bound", redis=os.environ.get("BOUND_URL", "redis://:hush@127.0.0.1:1"), prefix="own")
bound.process(handle, concurrency=3)
both = [plain, bound]
"""


@pytest.fixture
def app(beeq: Beeq, queue_name: str) -> Beeq:
    """The command in a folder with an app."""
    beeq.app(APP)
    beeq.environment["TEST_QUEUE"] = queue_name
    return beeq


def started_line(beeq: Beeq, *arguments: str, **environment: str) -> str:
    """Return the line by which a worker says that it works; it is ended then."""
    worker = beeq.start("worker", *arguments, **environment)
    line = worker.until(STARTED)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    return said(line)


# Which queues.


def test_an_app_is_worked_on_and_no_built_in_queue(app: Beeq, own_valkey: Server, queue_name: str) -> None:
    line = started_line(app, "--app", "app:plain", "-u", own_valkey.url)
    assert line == f"{STARTED}: {queue_name} (1 place) on {own_valkey.url}, prefix bq; 1 process; {KEEPS}"
    with own_valkey.sync_client() as client:
        assert {key.split(":")[1] for key in client.scan_iter("bq:*")} <= {queue_name, "beeq"}


def test_a_built_in_queue_beside_an_app_is_named(app: Beeq, own_valkey: Server, queue_name: str) -> None:
    names = (queue_name, "webhook-processing", "--app", "app:plain", "-u", own_valkey.url)
    line = started_line(app, *names)
    assert f": {queue_name} (1 place), webhook-processing (1 place) on " in line


def test_without_an_app_the_four_built_in_queues_are_worked_on(beeq: Beeq, own_valkey: Server) -> None:
    line = started_line(beeq, "-c", "2", "-w", "2", "-u", own_valkey.url)
    names = ("ai-generation", "media-processing", "video-assembly", "webhook-processing")
    places = ", ".join(f"{name} (2 places)" for name in names)
    assert line == f"{STARTED}: {places} on {own_valkey.url}, prefix bq; 2 processes; {KEEPS}"


# Where.


def test_an_apps_queue_keeps_its_own_redis_and_prefix(app: Beeq, own_valkey: Server, queue_name: str) -> None:
    app.ok("enqueue", "bound", "-u", own_valkey.url, "-p", "own")
    app.ok("enqueue", queue_name)
    environment = {"BOUND_URL": own_valkey.url, "BEEQ_PREFIX": "elsewhere", "BEEQ_CONCURRENCY": "9"}
    ran = app.run("worker", "--app", "app:both", "--burst", **environment)
    assert ran.returncode == 0, ran.stderr
    assert f"{queue_name} (1 place) on redis://" in ran.stderr
    assert f"bound (3 places) on {own_valkey.url}, prefix own; 1 process" in ran.stderr
    assert app.stats(queue_name)["succeeded"] == 1
    shown = app.ok("stats", "bound", "--json", "-u", own_valkey.url, "-p", "own")
    assert json.loads(shown)["bound"]["succeeded"] == 1


def test_options_of_the_command_line_win_over_the_apps(app: Beeq, own_valkey: Server) -> None:
    app.ok("enqueue", "bound", "-u", own_valkey.url, "-p", "mine")
    options = ("-u", own_valkey.url, "-p", "mine", "-c", "7")
    ran = app.run("worker", "--app", "app:bound", "--burst", *options)
    assert ran.returncode == 0, ran.stderr
    started = f"{STARTED}: bound (7 places) on {own_valkey.url}, prefix mine; 1 process; {KEEPS}"
    assert said(ran.stderr.splitlines()[0]) == started
    shown = app.ok("stats", "bound", "--json", "-u", own_valkey.url, "-p", "mine")
    assert json.loads(shown)["bound"]["succeeded"] == 1


def test_options_before_the_commands_name_win_too(app: Beeq, own_valkey: Server) -> None:
    arguments = ("-u", own_valkey.url, "-p", "mine", "worker", "--app", "app:bound", "--burst")
    ran = app.run(*arguments)
    started = f"{STARTED}: bound (3 places) on {own_valkey.url}, prefix mine; 1 process; {KEEPS}"
    assert said(ran.stderr.splitlines()[0]) == started


def test_the_started_line_shows_no_password(app: Beeq, own_valkey: Server) -> None:
    with own_valkey.sync_client() as client:
        client.acl_setuser(
            "ann", enabled=True, passwords=["+hush"], commands=["+@all"], keys=["*"], channels=["*"]
        )
    url = own_valkey.url.replace("redis://", "redis://ann:hush@") + "?client_name=w"
    line = started_line(app, "--app", "app:bound", BOUND_URL=url)
    assert "hush" not in line
    assert f"on {own_valkey.url.replace('redis://', 'redis://***@')}, prefix own" in line


def test_a_script_and_the_commands_use_the_same_redis(
    beeq: Beeq, sync_redis: redis.Redis, queue_name: str
) -> None:
    """In the order of the rule; a queue of a script that is given none of its own has the environment's."""
    (beeq.folder / "script.py").write_text(
        "import sys\nfrom beeq.sync import Queue\n"
        "with Queue(sys.argv[1]) as queue:\n    print(queue.enqueue({}).id)\n"
    )
    url = beeq.environment["BEEQ_REDIS_URL"]
    host, port = url.removeprefix("redis://").split("/")[0].split(":")
    nowhere = "redis://127.0.0.1:1"
    for environment in (
        {"BEEQ_REDIS_URL": url, "REDIS_URL": nowhere},
        {"REDIS_URL": url, "REDIS_HOST": "nowhere.invalid"},
        {"REDIS_HOST": host, "REDIS_PORT": port},
    ):
        beeq.environment.pop("BEEQ_REDIS_URL", None)
        before = sync_redis.llen(f"bq:{queue_name}:waiting")
        script = beeq.start_module("script", queue_name, **environment)
        assert script.ended() == 0, script.stderr
        beeq.ok("enqueue", queue_name, **environment)
        assert sync_redis.llen(f"bq:{queue_name}:waiting") == before + 2


# What does not load.


@pytest.mark.parametrize(
    ("text", "complaint", "places"),
    [
        ("def (:\n", "SyntaxError", ['bad.py", line 1', "def (:"]),
        ("import no_such_module_here\n", "ModuleNotFoundError", ['bad.py", line 1', "import no_such"]),
        (
            "def deep():\n    raise OSError('gone')\n\ndeep()\n",
            "OSError: gone",
            ["line 4", "line 2, in deep"],
        ),
        ("import sys\n\nsys.exit('no config')\n", "SystemExit: no config", ['bad.py", line 3']),
        ("raise ValueError('redis://:hush@h')\n", "ValueError: redis://***@h", ['bad.py", line 1']),
    ],
    ids=["syntax", "missing", "deep", "exit", "secret"],
)
@pytest.mark.parametrize("processes", ["1", "3"])
def test_a_module_that_fails_shows_file_and_line(
    beeq: Beeq, text: str, complaint: str, places: list[str], processes: str
) -> None:
    (beeq.folder / "bad.py").write_text(text)
    ran = beeq.run("worker", "--app", "bad:queue", "-w", processes)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count(f"bad cannot be imported: {complaint}") == 1
    for place in places:
        assert ran.stderr.count(place) >= 1
    assert "importlib" not in ran.stderr
    assert "hush" not in ran.stderr


def test_a_fault_in_a_module_that_the_app_imports_is_shown_there(beeq: Beeq) -> None:
    (beeq.folder / "settings.py").write_text("PORT = int('x')\n")
    (beeq.folder / "bad.py").write_text("import settings\n")
    ran = beeq.run("worker", "--app", "bad:queue")
    assert 'bad.py", line 1' in ran.stderr
    assert 'settings.py", line 1' in ran.stderr


def test_a_missing_module_is_named(beeq: Beeq) -> None:
    name = f"missing_{uuid.uuid4().hex[:8]}"
    ran = beeq.run("worker", "--app", f"{name}:queue")
    assert ran.returncode == 2
    assert f"{name} cannot be imported: ModuleNotFoundError: No module named '{name}'" in ran.stderr
    assert "File" not in ran.stderr
