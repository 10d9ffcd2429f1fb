"""The README's recipes work, with the real frameworks and tools, as somebody who copies them sees it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cli.command import Beeq, Running, eventually

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def chapter(heading: str) -> str:
    """Return the text below a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    text = README.partition(f"\n{heading}\n")[2]
    return re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def programs(heading: str) -> list[str]:
    return re.findall(r"```py\n(.*?)```", chapter(heading), re.DOTALL)


@pytest.fixture
def folder(bare_beeq: Beeq) -> Path:
    """A folder with the quick start's jobs.py, where the environment names the embedded server."""
    bare_beeq.environment["BEEQ_REDIS_URL"] = "embedded:"
    (bare_beeq.folder / "jobs.py").write_text(programs("## Quick start")[0])
    return bare_beeq.folder


def served(server: Running, said: str) -> httpx.Client:
    """Return a client of the server that says its address after ``said``."""
    url = re.search(r"http://127\.0\.0\.1:\d+", server.until(said))
    assert url is not None
    return httpx.Client(base_url=url[0], timeout=60)


def run_python(beeq: Beeq, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*beeq.python, *arguments],
        cwd=beeq.folder,
        env=beeq.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_fastapi_enqueues_and_tells_the_result(bare_beeq: Beeq, folder: Path):
    (program,) = programs("### FastAPI")
    (folder / "app.py").write_text(program)
    bare_beeq.start("worker", "--app", "jobs:queue").until("started")
    server = bare_beeq.start_module("uvicorn", "app:app", "--port", "0")
    post, answer, get, result = re.findall(r"```console\n(.*?)```", chapter("### FastAPI"), re.DOTALL)[
        0
    ].splitlines()
    with served(server, "Uvicorn running on") as client:
        _dollar, _curl, _silent, url, _json, body = shlex.split(post)
        posted = client.post(url.partition("8000")[2], json=json.loads(body))
        assert (posted.status_code, posted.text) == (202, answer)
        path = get.partition("8000")[2]
        eventually(lambda: client.get(path).json()["state"] == "succeeded")
        assert client.get(path).text == result
        assert client.get("/greetings/99").status_code == 404


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("flask", "run", "--port", "0"), "Running on"),
        (("gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0", "app:app"), "Listening at"),
    ],
    ids=["flask run", "gunicorn"],
)
def test_flask_enqueues_and_tells_the_result(
    bare_beeq: Beeq, folder: Path, command: tuple[str, ...], said: str
):
    (program,) = programs("### Flask")
    (folder / "app.py").write_text(program)
    bare_beeq.start("worker", "--app", "jobs:queue").until("started")
    with served(bare_beeq.start_module(*command), said) as client:
        posted = client.post("/greetings", json={"name": "Ada"})
        assert (posted.status_code, posted.json()) == (202, {"id": "1"})
        eventually(lambda: client.get("/greetings/1").json()["state"] == "succeeded")
        assert client.get("/greetings/1").json()["result"] == "Hello, Ada!"
        assert client.get("/greetings/99").status_code == 404


def test_django_enqueues_once_the_commit_is_through(bare_beeq: Beeq, folder: Path):
    jobs, urls = programs("### Django")
    assert run_python(bare_beeq, "-m", "django", "startproject", "mysite", ".").returncode == 0
    (folder / "mysite" / "jobs.py").write_text(jobs)
    (folder / "mysite" / "urls.py").write_text(urls)
    migrated = run_python(bare_beeq, "manage.py", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    bare_beeq.start("worker", "--app", "mysite.jobs:queue").until("started")
    server = bare_beeq.start_module("gunicorn", "-b", "127.0.0.1:0", "mysite.wsgi")
    with served(server, "Listening at") as client:
        posted = client.post("/users", data={"name": "Ada"})
        assert (posted.status_code, posted.json()) == (202, {"id": "welcome-1"})
        eventually(lambda: client.get("/welcomes/welcome-1").json()["state"] == "succeeded")
        assert client.get("/welcomes/welcome-1").json()["result"] == "Welcome, Ada!"
        assert client.post("/users", data={"name": "Ada"}).status_code == 500, "the name is taken"
        assert client.get("/welcomes/welcome-2").status_code == 404, "nothing was enqueued"


def test_the_tests_of_handlers_pass_and_leave_no_server(bare_beeq: Beeq, folder: Path):
    del bare_beeq.environment["BEEQ_REDIS_URL"]
    (program,) = programs("## Testing your handlers")
    (folder / "test_jobs.py").write_text(program)
    tested = run_python(bare_beeq, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=tmp")
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    assert not (folder / ".beeq").exists()


def test_a_handlers_test_may_use_fakeredis(bare_beeq: Beeq, folder: Path):
    (folder / "program.py").write_text(
        "import asyncio, threading, fakeredis\n"
        "from jobs import queue\n"
        "server = fakeredis.TcpFakeServer(('127.0.0.1', 0), server_type='redis')\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "queue.use(redis=f'redis://127.0.0.1:{server.server_address[1]}')\n"
        "async def main():\n"
        "    async with queue:\n"
        "        job = await queue.enqueue({'name': 'Ada'})\n"
        "        await queue.run(burst=True)\n"
        "        print(await job.result())\n"
        "asyncio.run(main())\n"
        "server.shutdown()\n"
    )
    ran = run_python(bare_beeq, "program.py")
    assert (ran.returncode, ran.stdout) == (0, "Hello, Ada!\n"), ran.stderr


def test_the_commands_for_jobs_that_failed_work_in_turn(bare_beeq: Beeq, folder: Path):
    del bare_beeq.environment["BEEQ_REDIS_URL"]
    (block,) = re.findall(r"```sh\n(.*?)```", chapter("## When jobs fail"), re.DOTALL)
    seen = {}
    for line in block.splitlines():
        ran = run_python(bare_beeq, "-m", "beeq_cli", *shlex.split(line)[1:])
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
        seen[line.split()[1]] = ran
    assert "KeyError: 'name'" in seen["jobs"].stdout
    assert "3 failed attempts" in seen["show"].stdout
    assert "1 of 1" in seen["retry"].stdout + seen["retry"].stderr
