"""What a type checker makes of a user's program: the types of jobs, handlers, results and settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from pydantic import BaseModel, Field, RootModel

from beeq import Queue, Settings
from beeq.protocol.events import QueueEventName
from beeq.settings import Duration, Keep, QueueSettings

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
from datetime import timedelta
from typing import Any, TypedDict

import beeq.sync
from beeq import Job, Queue
from beeq.service import QueueService
from pydantic import BaseModel


class Letter(TypedDict):
    to: str


class Form(BaseModel):
    to: str


mail = Queue[Letter, bool]("mail", stall_interval="5s", prefix="my", result_ttl=timedelta(hours=1))
plain: Queue = Queue("plain", max_hung=None)
blocking = beeq.sync.Queue[Letter, bool]("mail", remove_on_success=True)
service = QueueService(redis_timeout="2s")


@mail.process(concurrency=3)
async def send(job: Job[Letter, bool]) -> bool:
    reveal_type(job.data)
    return bool(job.data["to"])


@mail.process
def alone(job: beeq.sync.Job[Letter, bool]) -> bool:
    return job.data["to"] == ""


reveal_type(send)
reveal_type(alone)


async def main() -> None:
    job = await mail.enqueue({"to": "Ada"}, timeout="30s", backoff=("fixed", "2s"), delay_until="5m")
    reveal_type(job)
    reveal_type(await job.result("5s"))
    reveal_type(await mail.get_job(7))
    reveal_type(await mail.get_jobs("waiting"))
    reveal_type(await mail.enqueue(Form(to="Ada")))
    reveal_type((await plain.enqueue([1])).data)
    reveal_type(await (await plain.enqueue([1])).result())
    mail.on("failed:fatal", print).once("job progress", print)
    job.on("succeeded", print)
    await mail.clean("failed", "7d")


def wait() -> None:
    job = blocking.enqueue({"to": "Ada"})
    reveal_type(job.data)
    reveal_type(job.result("5s"))
    reveal_type(blocking.get_job(7))
"""
REVEALED = [
    "Letter",
    "def (job: Job[Letter, bool]) -> Coroutine[Any, Any, bool]",
    "def (job: BlockingJob[Letter, bool]) -> bool",
    "Job[Letter, bool]",
    "bool",
    "Job[Letter, bool] | None",
    "list[Job[Letter, bool]]",
    "Job[Letter, bool]",
    "Any",
    "Any",
    "Letter",
    "bool",
    "BlockingJob[Letter, bool] | None",
]
#: Each line is refused.
BAD = """
from beeq import Queue
from bad_letter import Letter
mail = Queue[Letter, bool]("mail", stall_intervall=5)
mail = Queue[Letter, bool]("mail", is_worker="yes")
async def main() -> None:
    await mail.enqueue("text")
    await mail.get_jobs("waitng")
    await mail.clean("waiting", 5)
    (await mail.enqueue({"to": "Ada"})).on("suceeded", print)
    mail.on("job succeded", print)
    number: int = await (await mail.enqueue({"to": "Ada"})).result() + "text"
"""


def check(folder: Path) -> list[str]:
    """Return what mypy says of the folder's programs, a line each."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--no-error-summary",
            "good.py",
            "bad.py",
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "users")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert not ran.stderr, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.external
def test_a_checker_knows_the_types_and_refuses_mistakes(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "bad_letter.py").write_text(
        "from typing import TypedDict\n\nclass Letter(TypedDict):\n    to: str\n"
    )
    said = check(tmp_path)
    good = [line for line in said if line.startswith("good.py")]
    revealed = [line.split('"')[1] for line in good if "Revealed type" in line]
    assert len(revealed) == len(good), good
    assert [_plain(text) for text in revealed] == REVEALED
    faulty = {int(line.split(":")[1]) for line in said if line.startswith("bad.py") and ": error: " in line}
    assert faulty == {4, 5, 7, 8, 9, 10, 11, 12}


def _plain(text: str) -> str:
    """Return a type without modules, and without what versions of mypy write differently."""
    text = re.sub(r"beeq\.job\.|beeq\.blocking\.|builtins\.|typing\.|good\.|'|\?", "", text)
    text = re.sub(r"TypedDict\(Letter, \{to: str\}\)", "Letter", text)
    return re.sub(r"Union\[(.*), None\]", r"\1 | None", text)


def test_the_settings_a_checker_knows_are_those_there_are():
    known = get_type_hints(QueueSettings)
    assert known.keys() == {setting.name for setting in fields(Settings)}
    durations = {name for name, hint in known.items() if hint == Duration}
    assert durations == {
        "stall_interval", "near_term_window", "delayed_debounce", "initial_redis_failure_retry_delay",
        "result_ttl", "redis_timeout", "job_timeout", "claim_ahead_ms",
    }  # fmt: skip
    keeps = {name for name, hint in known.items() if hint == Keep | int | timedelta | str | None}
    assert keeps == {"keep_succeeded", "keep_failed"}
    for name in known.keys() - durations - keeps - {"prefix"}:
        assert known[name] == get_type_hints(Settings)[name], name


def test_the_events_a_checker_knows_are_those_documented():
    documented = " ".join((Queue.on.__doc__ or "").split()).partition("It sees")[0]
    names = {name.partition("(")[0] for name in re.findall(r"``([^`]+)``", documented)}
    assert set(get_args(QueueEventName)) == names - {
        "fn",
        "event",
        "supervision/error_reports.py",
        "max_hung",
    }


class Address(BaseModel):
    street: str
    zip_code: str = Field(alias="zipCode")


class Letter(BaseModel):
    to: Address
    copies: int = 1


async def test_a_pydantic_model_is_taken_as_data(make_queue):
    queue = make_queue()
    queue.process(lambda job: job.data)
    letter = Letter(to=Address(street="Hill", zipCode="12"))
    stored = {"to": {"street": "Hill", "zipCode": "12"}, "copies": 1}
    job = await queue.enqueue(letter)
    assert job.data == stored
    assert Letter.model_validate(await job.result(timeout=5000)) == letter
    saved = await queue.create_job(letter).save()
    assert await saved.result(timeout=5000) == stored


async def test_a_pydantic_root_model_is_its_root(make_queue):
    queue = make_queue(is_worker=False)
    assert (await queue.enqueue(RootModel[list[int]]([1, 2]))).data == [1, 2]
    assert (await queue.enqueue(RootModel[int](0))).data == 0
    assert queue.create_job(RootModel[int](0)).data == {}


def test_a_blocking_queue_takes_a_pydantic_model(valkey, queue_name):
    from beeq import sync

    with sync.Queue(queue_name, redis=valkey.url) as queue:
        job = queue.enqueue(Letter(to=Address(street="Hill", zipCode="12"), copies=2))
        found = queue.get_job(job.id)
        assert found is not None
        assert found.data["copies"] == 2
        queue.destroy()
