"""What the buttons do: to one job, to those selected, to all that match; said, logged, once."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from beeq import RedisUnavailable
from beeq.web.page import runs
from beeq.web.page.screens import acts
from tests.web.page.conftest import client_of
from tests.web.page.forms import buttons_of, form_with, jobs_of, text_of


async def counts(queue) -> dict[str, int]:
    health = await queue.check_health()
    names = ("waiting", "active", "delayed", "failed", "succeeded")
    return {name: getattr(health, name) for name in names if getattr(health, name)}


@pytest.fixture
async def five_failed(redis, put):
    """A queue with five failed jobs that nobody works on; 1 to 3 timed out."""
    queue = await put("hooks")
    for n in range(1, 6):
        trace = f"TimeoutError: after {n} s" if n <= 3 else "ValueError: no"
        options = {"timestamp": 1, "stacktraces": [trace]}
        record = {"data": {"n": n}, "options": options, "status": "failed", "progress": 0}
        await redis.hset(queue.keys.jobs, str(n), json.dumps(record))
        await redis.sadd(queue.keys.failed, str(n))
    return queue


async def test_each_state_has_its_buttons(client, put, five_failed):
    await put("mail", {"n": 1})
    await put("later", {"n": 1}, delay_until="1h")
    assert buttons_of(await client.get("/q/hooks/failed")) == ["Pause", "Retry", "Remove"]
    assert buttons_of(await client.get("/q/mail/waiting")) == ["Pause", "Cancel", "Remove"]
    assert buttons_of(await client.get("/q/later/delayed")) == ["Pause", "Run now", "Cancel", "Remove"]
    assert buttons_of(await client.get("/q/hooks/jobs/1")) == ["Retry", "Remove", "Duplicate"]


async def test_selected_jobs_are_retried_and_the_others_left(client, five_failed):
    form = form_with(await client.get("/q/hooks/failed"), "Retry")
    assert {value for name, value in form.boxes if name == "id"} == {"1", "2", "3", "4", "5"}
    done = await form.press(client, "Retry", id=["1", "4"])
    assert "2 jobs retried" in text_of(done)
    assert sorted(jobs_of(done)) == ["2", "3", "5"]
    assert await counts(five_failed) == {"waiting": 2, "failed": 3}
    assert "retried" not in text_of(await client.get("/q/hooks/failed"))


async def test_what_was_done_before_redis_failed_is_in_the_log(client, five_failed, monkeypatch, caplog):
    form = form_with(await client.get("/q/hooks/failed"), "Retry")
    retry = acts._ONE["retry"]

    async def retry_until_4(queue, job_id):
        if job_id == "4":
            raise RedisUnavailable("gone")
        return await retry(queue, job_id)

    monkeypatch.setitem(acts._ONE, "retry", retry_until_4)
    with caplog.at_level(logging.INFO, "beeq.web"):
        assert (await form.press(client, "Retry", id=["1", "2", "4", "5"])).status_code == 503
    assert "retry of 4 jobs of hooks (1, 2, 4, 5): 2 done" in caplog.text
    assert await counts(five_failed) == {"waiting": 2, "failed": 3}


async def test_an_action_on_many_that_stops_is_said_and_logged(client, five_failed, monkeypatch, caplog):
    async def fails(*_, **__):
        raise RedisUnavailable("redis://ann:hush@host is away")

    monkeypatch.setitem(runs.MANY, "retry", fails)
    form = form_with(await client.get("/q/hooks/failed", params={"error": "timeout"}), "Retry")
    shown = text_of(await form.press(client, "Retry", all="1"))
    assert "It stopped" in shown
    assert "redis://***@host is away" in shown
    assert "retry of many jobs of hooks failed: " in caplog.text
    assert "hush" not in shown + caplog.text


async def test_nothing_selected_does_nothing_and_says_so(client, five_failed):
    done = await form_with(await client.get("/q/hooks/failed"), "Remove").press(client, "Remove")
    assert "Select jobs first" in text_of(done)
    assert await counts(five_failed) == {"failed": 5}


async def test_what_moved_meanwhile_is_left_and_counted(client, five_failed):
    form = form_with(await client.get("/q/hooks/failed"), "Retry")
    await five_failed.remove_job("1")
    done = await form.press(client, "Retry", id=["1", "2"])
    assert "1 job retried; 1 not: moved, ended or removed meanwhile" in text_of(done)


async def test_all_that_match_are_counted_and_asked_about(client, five_failed):
    listed = await client.get("/q/hooks/failed", params={"error": "timeout"})
    assert sorted(jobs_of(listed)) == ["1", "2", "3"]
    asks = await form_with(listed, "Retry").press(client, "Retry", all="1")
    assert "Retry 3 jobs of hooks ?" in text_of(asks)
    assert await counts(five_failed) == {"failed": 5}
    done = await form_with(asks, "Retry 3 jobs").press(client, "Retry 3 jobs")
    assert "3 jobs retried" in text_of(done)
    assert await counts(five_failed) == {"waiting": 3, "failed": 2}
    again = await client.post(
        done.url.path, data=form_with(asks, "Retry 3 jobs").fields, follow_redirects=True
    )
    assert "3 jobs retried" in text_of(again)
    assert await counts(five_failed) == {"waiting": 3, "failed": 2}


async def test_a_whole_state_is_removed_after_asking(client, five_failed):
    asks = await form_with(await client.get("/q/hooks/failed"), "Remove").press(client, "Remove", all="1")
    assert "Remove 5 jobs" in text_of(asks)
    done = await form_with(asks, "Remove 5 jobs").press(client, "Remove 5 jobs")
    assert "5 jobs removed" in text_of(done)
    assert await counts(five_failed) == {}


async def test_a_group_of_failures_is_retried_and_no_other(client, five_failed):
    shown = await client.get("/failures")
    assert "3 TimeoutError: after # s" in text_of(shown)
    asks = await form_with(shown, "Retry").press(client, "Retry")
    assert "Retry 3 jobs of hooks ?" in text_of(asks)
    await form_with(asks, "Retry 3 jobs").press(client, "Retry 3 jobs")
    assert await counts(five_failed) == {"waiting": 3, "failed": 2}
    assert "2 of 2 failed jobs" in text_of(await client.get("/failures"))


async def test_delayed_jobs_are_run_now_or_cancelled(client, put):
    queue = await put("later", {"n": 1}, {"n": 2}, {"n": 3}, delay_until="1h")
    listed = await client.get("/q/later/delayed")
    assert "1 job queued to run now" in text_of(
        await form_with(listed, "Run now").press(client, "Run now", id="1")
    )
    assert "1 job cancelled" in text_of(await form_with(listed, "Cancel").press(client, "Cancel", id="2"))
    assert await counts(queue) == {"waiting": 1, "delayed": 1}


async def test_a_running_job_is_cancelled(client, put):
    queue = await put("films")
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(job):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    queue.process(handler)
    job = await queue.enqueue({"n": 1})
    await begun.wait()
    shown = await client.get(f"/q/films/jobs/{job.id}")
    assert "1 job cancelled" in text_of(await form_with(shown, "Cancel").press(client, "Cancel"))
    async with asyncio.timeout(10):
        await ended.wait()


async def test_after_its_removal_a_jobs_screen_leads_to_its_queue(client, five_failed):
    shown = await client.get("/q/hooks/jobs/1")
    done = await form_with(shown, "Remove").press(client, "Remove")
    assert done.url.path == "/q/hooks"
    assert "1 job removed" in text_of(done)


async def test_a_duplicate_has_the_data_and_limits_and_a_new_id(client, put):
    queue = await put("mail")
    data = {"big": 2**70, "to": "anna@example.com"}
    job = await queue.enqueue(data, id="first", retries=3, timeout="30s", backoff=("exponential", "1s"))
    done = await form_with(await client.get("/q/mail/jobs/first"), "Duplicate").press(client, "Duplicate")
    new_id = done.url.path.rpartition("/")[2]
    copy = await queue.get_job(new_id)
    assert copy.id != job.id
    assert copy.data == data
    assert {k: copy.options[k] for k in ("retries", "timeout", "backoff")} == {
        k: job.options[k] for k in ("retries", "timeout", "backoff")
    }
    assert (await queue.get_job("first")).data == data


@pytest.mark.parametrize("job_id", ["a/b", "..", "x\ny", "x\r\ny", "<b>", "%41", "~.", " ", "\u202e"])
async def test_odd_ids_are_acted_on_exactly(client, put, job_id):
    queue = await put("odd", {"n": 1})
    await queue.enqueue({}, id=job_id)
    form = form_with(await client.get("/q/odd/waiting"), "Remove")
    boxes = [value for name, value in form.boxes if name == "id" and value != "1"]
    assert "1 job removed" in text_of(await form.press(client, "Remove", id=boxes))
    assert await queue.get_job(job_id) is None
    assert await queue.get_job("1") is not None


async def test_a_queue_is_paused_with_a_reason_and_resumed(client, put):
    queue = await put("mail", {"n": 1})
    form = form_with(await client.get("/q/mail"), "Pause")
    shown = text_of(await form.press(client, "Pause", reason="the provider <b>is</b> down", **{"for": "2h"}))
    assert "The queue is paused" in shown
    assert "by somebody on this machine, on the page, until" in shown
    assert "the provider <b>is</b> down" in shown
    pause = await queue.paused()
    assert pause.reason == "the provider <b>is</b> down"
    assert 7_190_000 < pause.until_ms - pause.since_ms <= 7_200_000
    assert "paused, and 1 wait" in text_of(await client.get("/"))
    assert "paused" in text_of(await client.get("/q/mail/jobs/1"))
    resumed = await form_with(await client.get("/q/mail"), "Resume").press(client, "Resume")
    assert "The queue goes on" in text_of(resumed)
    assert await queue.paused() is None


@pytest.mark.parametrize("fields", [{"for": "soon"}, {"for": "0"}, {"reason": "x" * 600}, {"everyone": "1"}])
async def test_a_pause_that_cannot_be_is_explained(client, put, fields):
    queue = await put("mail", {"n": 1})
    shown = await form_with(await client.get("/q/mail"), "Pause").press(client, "Pause", **fields)
    assert "Not paused: " in text_of(shown)
    assert await queue.paused() is None


@pytest.mark.parametrize(
    "fields",
    [
        {"verb": "destroy"},
        {"verb": "retry", "all": "1", "state": "waiting"},
        {"verb": "retry", "all": "1", "state": "nowhere"},
        {"verb": "remove", "all": "1", "state": "failed", "since": "soon"},
        {"verb": "remove", "id": [str(n) for n in range(1500)]},
        {"verb": "remove", "id": "%ff"},
        {},
    ],
)
async def test_a_request_that_no_button_sends_is_refused(client, five_failed, fields):
    form = form_with(await client.get("/q/hooks/failed"), "Remove")
    data = {"form_token": form.fields["form_token"], **fields}
    assert (await client.post(form.action, data=data)).status_code == 400
    assert await counts(five_failed) == {"failed": 5}


async def test_other_bodies_than_forms_are_refused(client, five_failed):
    answer = await client.post("/q/hooks/act", json={"verb": "remove", "id": "1"})
    assert answer.status_code == 415
    large = await client.post("/q/hooks/act", data={"id": "x" * 2_000_000})
    assert large.status_code == 413


async def test_each_act_is_one_line_in_the_log(client, five_failed, caplog):
    caplog.set_level(logging.INFO, logger="beeq.web")
    form = form_with(await client.get("/q/hooks/failed"), "Retry")
    await form.press(client, "Retry", id=["1", "2"])
    asks = await form.press(client, "Remove", all="1")
    await form_with(asks, "Remove 3 jobs").press(client, "Remove 3 jobs")
    lines = [record.getMessage() for record in caplog.records if record.name == "beeq.web"]
    assert len(lines) == 2
    assert lines[0] == "somebody on this machine: retry of 2 jobs of hooks (1, 2): 2 done"
    assert lines[1].startswith("somebody on this machine: remove of many jobs of hooks by")
    assert lines[1].endswith("3 removed")


async def test_a_long_action_shows_how_far_it_is(make_page, put, redis, monkeypatch):
    monkeypatch.setattr("beeq.web.page.runs._PATIENCE_S", 0.0)
    queue = await put("hooks")
    record = {
        "data": {},
        "options": {"timestamp": 1, "stacktraces": ["E: x"]},
        "status": "failed",
        "progress": 0,
    }
    await redis.hset(queue.keys.jobs, mapping={str(n): json.dumps(record) for n in range(3000)})
    await redis.sadd(queue.keys.failed, *map(str, range(3000)))
    async with client_of(make_page()) as client:
        form = form_with(await client.get("/q/hooks/failed", params={"error": "x"}), "Retry")
        shown = await form.press(client, "Retry", all="1")
        assert 'http-equiv="refresh"' in shown.text
        async with asyncio.timeout(30):
            while 'http-equiv="refresh"' in shown.text:
                await asyncio.sleep(0)  # Redis's turn: a client without a socket lets nobody else in
                shown = await client.get(str(shown.url))
        assert "Retry 3\u202f000 jobs of hooks ?" in text_of(shown)
        shown = await form_with(shown, "Retry 3\u202f000 jobs").press(client, "Retry 3\u202f000 jobs")
        async with asyncio.timeout(30):
            while 'http-equiv="refresh"' in shown.text:
                await asyncio.sleep(0)  # Redis's turn: a client without a socket lets nobody else in
                shown = await client.get(str(shown.url))
    assert "3\u202f000 jobs retried" in text_of(shown)
    assert await counts(queue) == {"waiting": 3000}
