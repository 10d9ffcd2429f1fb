"""What all processors share: settings from an environment, the check of a job, and progress."""

from __future__ import annotations

import asyncio
import functools
import logging
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard, RedisUnavailable
from beeq.job import RunningJob
from beeq.jobs import JOB_TYPES, WebhookJob
from beeq.processors import build
from beeq.processors.base import Processor, ProcessorSettings, Progress
from tests.support.waiting import eventually

pytestmark = pytest.mark.fast


class FakeJob:
    """A job whose reports can be held up, or refused."""

    def __init__(self, data: Any = None) -> None:
        self.id: str | None = "job-1"
        self.data = data
        self.options: dict[str, Any] = {}
        self.reports: list[int] = []
        self.may_report = asyncio.Event()
        self.may_report.set()
        self.error: Exception | None = None

    async def report_progress(self, value: int) -> None:
        await self.may_report.wait()
        if self.error is not None:
            raise self.error
        self.reports.append(value)


class Echo(Processor[WebhookJob]):
    """Returns what it was given."""

    queue_name = "webhook-processing"

    async def perform(self, job: RunningJob, data: WebhookJob) -> Any:
        return job.id, data.webhook_url


async def test_a_processor_gets_the_checked_fields() -> None:
    assert await Echo()(FakeJob({"webhookUrl": "http://a", "payload": {}})) == ("job-1", "http://a")


async def test_a_bad_job_is_discarded_with_every_fault_named() -> None:
    with pytest.raises(Discard, match=r"bad job: webhookUrl: must be an http.*; payload: field required"):
        await Echo()(FakeJob({"webhookUrl": "x"}))


def has_heard(job: FakeJob, percent: int) -> bool:
    return job.reports[-1:] == [percent]


async def test_progress_never_falls_and_says_each_percent_once() -> None:
    job = FakeJob()
    async with Progress(job) as progress:
        for percent, heard in ((0.5, 0), (7, 7), (7.9, 7), (3, 7), (250, 99)):
            progress.reach(percent)
            await eventually(functools.partial(has_heard, job, heard))
    assert job.reports == [0, 7, 99, 100]


async def test_work_does_not_wait_for_its_progress_to_be_heard() -> None:
    job = FakeJob()
    async with Progress(job) as progress:
        job.may_report.clear()
        for percent in range(90):
            progress.reach(percent)
        job.may_report.set()
    assert job.reports == sorted(set(job.reports))
    assert job.reports[-1] == 100
    assert len(job.reports) < 5


async def test_work_that_fails_never_reports_100() -> None:
    job = FakeJob()

    async def work() -> None:
        async with Progress(job) as progress:
            progress.reach(50)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    assert 100 not in job.reports


async def test_unheard_progress_is_logged_and_the_work_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = FakeJob()
    job.error = RedisUnavailable("away")
    with caplog.at_level(logging.WARNING):
        async with Progress(job) as progress:
            progress.reach(50)
    assert "job 'job-1': progress 100% not reported: away" in caplog.text


async def test_a_fault_of_the_report_itself_is_not_hidden() -> None:
    job = FakeJob()
    job.error = TypeError("not JSON")
    with pytest.raises(TypeError, match="not JSON"):
        async with Progress(job):
            pass


def test_settings_come_from_the_environment_that_is_given(tmp_path: Path) -> None:
    settings = ProcessorSettings.from_environment(
        {
            "BEEQ_MEDIA_ROOT": str(tmp_path),
            "BEEQ_MEDIA_URL": "https://user:hidden@media.example/v1",
            "BEEQ_WEBHOOK_SECRET": "whsec_hidden",
            "BEEQ_WEBHOOK_ALLOW_HOSTS": "localhost",
            "BEEQ_WEBHOOK_PORTS": "443",
            "BEEQ_WEBHOOK_DENY_NETS": "203.0.113.0/24",
        }
    )
    assert settings == ProcessorSettings(
        media_root=tmp_path,
        media_url="https://user:hidden@media.example/v1",
        webhook_secret="whsec_hidden",
        webhook_allow_hosts="localhost",
        webhook_ports="443",
        webhook_deny_nets="203.0.113.0/24",
    )
    assert "hidden" not in repr(settings)


def test_nothing_set_means_the_current_folder_and_ffmpeg() -> None:
    assert ProcessorSettings.from_environment({}) == ProcessorSettings(media_root=Path.cwd())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BEEQ_MEDIA_ROOT", ""),
        ("BEEQ_MEDIA_ROOT", "/nowhere/at/all"),
        ("BEEQ_MEDIA_ROOT", "a\0b"),
        ("BEEQ_MEDIA_URL", ""),
        ("BEEQ_MEDIA_URL", "user:hidden@media.example"),
        ("BEEQ_MEDIA_URL", "ftp://user:hidden@media.example"),
        ("BEEQ_MEDIA_URL", "http://user:hidden@[::1"),
        ("BEEQ_MEDIA_URL", "http://user:hidden@a?b"),
    ],
)
def test_a_bad_value_is_refused_by_its_variables_name(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable) as refused:
        ProcessorSettings.from_environment({variable: value})
    assert "hidden" not in str(refused.value)


def test_there_is_a_processor_for_each_built_in_queue(tmp_path: Path) -> None:
    processors = build(ProcessorSettings(media_root=tmp_path))
    assert {name: processor.queue_name for name, processor in processors.items()} == {
        name: name for name in JOB_TYPES
    }


def test_a_bad_secret_is_refused_when_the_processors_are_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_SECRET"):
        build(ProcessorSettings(media_root=tmp_path, webhook_secret="nonsense"))


async def test_a_job_without_a_project_fails_where_projects_are_apart(tmp_path: Path) -> None:
    settings = ProcessorSettings.from_environment(
        {"BEEQ_MEDIA_ROOT": str(tmp_path), "BEEQ_MEDIA_PROJECTS": "separate"}
    )
    processor = build(settings)["media-processing"]
    data = {"type": "frame-extract", "inputFiles": ["../p2/clip.mp4"], "outputPath": "x.png"}
    with pytest.raises(Discard, match="BEEQ_MEDIA_PROJECTS"):
        await processor(FakeJob(data))
    with pytest.raises(Discard, match="not inside its project's folder"):
        await processor(FakeJob({**data, "projectId": "p1"}))
    with pytest.raises(ValueError, match="BEEQ_MEDIA_PROJECTS must be shared or separate"):
        ProcessorSettings.from_environment({"BEEQ_MEDIA_PROJECTS": "yes"})
