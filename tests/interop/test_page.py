"""The page shows and steers queues that only npm's bee-queue has ever touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from beeq import Queue
from beeq.web import Policy, dashboard
from tests.support.node_bee import NodeBee
from tests.support.server import Server
from tests.web.page.conftest import be_patient, client_of
from tests.web.page.forms import Form, buttons_of, form_with, jobs_of, links_of, text_of

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]
FAR_MS = 4_000_000_000_000


@pytest.fixture
async def client(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    be_patient(monkeypatch)
    page = dashboard(redis=valkey.url, policy=Policy())
    async with page.running(), client_of(page) as client:
        yield client


@pytest.fixture
async def fleet(make_node: MakeNode) -> NodeBee:
    """A Node worker whose queue has a job in each state."""
    node = await make_node(concurrency=1, activateDelayedJobs=True)
    await node.save({"act": "return", "value": {"sum": 3}}, id="good")
    await node.save({"act": "flaky", "times": 1, "value": 7}, id="bad")
    await node.until("job succeeded")
    await node.until("job failed")
    await node.save({"act": "return", "value": 1}, id="late", delayUntil=FAR_MS)
    await node.save({"act": "slow", "ms": 600_000}, id="long")
    await node.until("handling", 3)
    await node.save({"act": "return", "value": 2}, id="next")
    return node


async def act(client: httpx.AsyncClient, address: str, button: str) -> str:
    """Press a button of a job's screen; return what the next screen says."""
    return text_of(await form_of(await client.get(address), button).press(client, button))


def form_of(screen: httpx.Response, button: str) -> Form:
    return form_with(screen, button)


async def states(client: httpx.AsyncClient, queue_name: str) -> dict[str, list[str]]:
    """Return the jobs of each state, as the queue's screens list them."""
    names = ("waiting", "active", "delayed", "failed", "succeeded")
    return {name: jobs_of(await client.get(f"/q/{queue_name}/{name}")) for name in names}


async def test_a_fleet_of_node_alone_is_on_every_screen(client, fleet, queue_name):
    overview = await client.get("/")
    assert links_of(overview)[queue_name] == f"/q/{queue_name}/failed", "it needs an operator"
    assert await states(client, queue_name) == {
        "waiting": ["next"],
        "active": ["long"],
        "delayed": ["late"],
        "failed": ["bad"],
        "succeeded": ["good"],
    }
    assert "attempt 1" in text_of(await client.get(f"/q/{queue_name}/failed"))
    bad = text_of(await client.get(f"/q/{queue_name}/jobs/bad"))
    assert "attempt 1" in bad
    assert "flaky" in bad
    assert "bee.js" in bad, "the newest trace is Node's"
    assert "attempt" in text_of(await client.get("/failures"))
    workers = text_of(await client.get("/workers"))
    assert queue_name in workers
    assert "long" in workers
    found = await client.get("/search", params={"q": "late"}, follow_redirects=True)
    assert str(found.url).endswith(f"/q/{queue_name}/jobs/late")


async def test_a_fleet_of_node_alone_is_steered(client, fleet: NodeBee, queue_name):
    job = f"/q/{queue_name}/jobs"
    assert "Cancel" in buttons_of(await client.get(f"{job}/long"))
    assert "1 job removed" in await act(client, f"{job}/next", "Remove")
    assert "1 job retried" in await act(client, f"{job}/bad", "Retry")
    assert "1 job" in await act(client, f"{job}/late", "Run now")
    assert (await states(client, queue_name))["waiting"] == ["bad", "late"]
    assert "1 job" in await act(client, f"{job}/long", "Remove")
    await fleet.call("removeJob", id="good")
    assert (await states(client, queue_name))["succeeded"] == []


async def test_node_works_off_what_the_page_retried_and_ran(client, make_node, queue_name):
    node: NodeBee = await make_node(concurrency=1)
    await node.save({"act": "flaky", "times": 1, "value": 7}, id="bad")
    await node.save({"act": "return", "value": 1}, id="late", delayUntil=FAR_MS)
    await node.until("job failed")
    for name, button in (("bad", "Retry"), ("late", "Run now")):
        await act(client, f"/q/{queue_name}/jobs/{name}", button)
        await node.until("job succeeded", where=lambda job_id, _value, name=name: job_id == name)
    assert set((await states(client, queue_name))["succeeded"]) == {"bad", "late"}


async def test_a_pause_for_everyone_holds_node_where_beeq_works_too(
    client, fleet, make_queue: MakeQueue, queue_name
):
    async def pause() -> str:
        form = form_of(await client.get(f"/q/{queue_name}"), "Pause")
        checked: dict[str, Any] = {"everyone": "1", "reason": "the provider is down"}
        return text_of(await form.press(client, "Pause", **checked))

    assert "Not paused: " in await pause()
    queue = make_queue(name=queue_name)
    queue.process(lambda _job: "by beeq")
    await queue.ready()
    paused = await pause()
    while "Not paused: " in paused:  # the worker has not shown itself yet
        paused = await pause()
    assert "the provider is down" in paused
    assert "next" not in str(await fleet.call("getJobs", type="waiting", page={"start": 0, "end": 9}))
    resumed = await form_of(await client.get(f"/q/{queue_name}"), "Resume").press(client, "Resume")
    assert "The queue goes on" in text_of(resumed)
    await fleet.until("job succeeded", where=lambda job_id, _value: job_id == "next")
