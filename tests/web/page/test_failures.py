"""Which errors failed jobs have, and what the overview says of that."""

from __future__ import annotations

import asyncio
import time

from beeq.web.page import waits
from beeq.web.page.charts.histories import Histories
from beeq.web.page.failures import FailureGroup, Failures, FailureSurvey, group_of
from beeq.web.page.store import QueueCounts
from tests.web.page.forms import jobs_of, links_of, text_of


async def test_the_overview_says_which_error_most_failures_have(client, fail):
    errors = {str(n): ConnectionError(f"host {n} is away") for n in range(1, 6)}
    await fail("hooks", {**errors, "x": ValueError("no")})
    shown = text_of(await client.get("/"))
    assert "6 failed in 10 min, ConnectionError: host # is away 5×" in shown
    assert "1 queue needs somebody" in shown


async def test_failures_are_grouped_by_kind_across_queues(client, fail):
    await fail("hooks", {str(n): ConnectionError(f"cannot reach 10.0.0.{n}:80") for n in range(1, 5)})
    await fail("mail", {"m": ValueError("no address")})
    shown = await client.get("/failures")
    text = text_of(shown)
    assert "4 4 in 10 min ConnectionError: cannot reach # hooks" in text
    assert "5 of 5 failed jobs were read" in text
    listed = await client.get(links_of(shown)["ConnectionError: cannot reach #"])
    assert sorted(jobs_of(listed)) == ["1", "2", "3", "4"]


async def test_no_failures_are_said(client):
    assert "No job has failed" in text_of(await client.get("/failures"))


async def test_a_single_failure_shows_its_own_numbers(client, fail):
    await fail("hooks", {"h": ConnectionError("webhook answered 410")})
    assert "ConnectionError: webhook answered 410 1×" in text_of(await client.get("/"))
    shown = await client.get("/failures")
    assert "ConnectionError: webhook answered 410 hooks" in text_of(shown)
    listed = await client.get(links_of(shown)["ConnectionError: webhook answered 410"])
    assert jobs_of(listed) == ["h"], "the link finds it by its kind"


async def test_before_failed_jobs_are_read_nothing_is_called_well(client, fail, monkeypatch):
    await fail("hooks", {"h": ValueError("no")})
    go_on, has_read = asyncio.Event(), asyncio.Event()
    read = Failures._read

    async def slowly(*given):
        await go_on.wait()
        await read(*given)
        has_read.set()

    monkeypatch.setattr(Failures, "_read", slowly)
    monkeypatch.setattr(waits, "OVERVIEWS_FAILURES_S", 0.01)
    trends = Histories.trends

    async def trends_when_read(self, queues):
        go_on.set()  # the survey ends between the weights and the writing of the screen
        await has_read.wait()
        return await trends(self, queues)

    monkeypatch.setattr(Histories, "trends", trends_when_read)
    shown = await client.get("/")
    assert "Nothing that needs a person was found so far" in text_of(shown)
    assert "Nothing needs a person" not in text_of(shown)
    assert 'http-equiv="refresh"' in shown.text
    monkeypatch.setattr(waits, "OVERVIEWS_FAILURES_S", 20.0)
    shown = await client.get("/")
    assert "1 queue needs somebody" in text_of(shown)
    assert 'http-equiv="refresh"' not in shown.text


async def test_no_more_jobs_are_said_to_be_read_than_there_were(client, fail, put, monkeypatch):
    await fail("hooks", {"h": ValueError("no"), "i": ValueError("no")})
    read = Failures._read

    async def counted_early(failures, survey, queues):
        for each in queues:
            object.__setattr__(each.stats, "failed", 1)
        await read(failures, survey, queues)

    monkeypatch.setattr(Failures, "_read", counted_early)
    assert "2 of 2 failed jobs were read" in text_of(await client.get("/failures"))


def test_failures_of_many_queues_are_told_apart_at_once():
    survey = FailureSurvey()
    for n in range(3000):
        survey.add(FailureGroup("bq", f"queue-{n}", "ValueError: no", count=n))
    survey.add(FailureGroup("bq", "queue-7", "OSError", count=9))
    began_s = time.thread_time()
    found = [survey.of("bq", f"queue-{n}") for n in range(3000)]
    assert time.thread_time() - began_s < 1
    assert [each.kind for each in found[7]] == ["OSError", "ValueError: no"]
    assert survey.of("bq", "nobody") == []


def test_many_errors_of_one_queue_hide_none_of_another():
    survey = FailureSurvey()
    for n in range(300):
        group_of(survey, QueueCounts("bq", "busy", None), f"Error: {chr(0x4E00 + n)}")
    assert group_of(survey, QueueCounts("bq", "mail", None), "OSError: no").kind == "OSError: no"
    assert len(survey.of("bq", "busy")) == 201, "two hundred, and one for the others"
    assert [each.is_kind for each in survey.of("bq", "busy")].count(False) == 1
