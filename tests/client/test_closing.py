"""Waits for the ends of tasks."""

from __future__ import annotations

import asyncio

from beeq.client.closing import end_tasks


async def test_a_task_ends_though_a_cancellation_was_lost():
    """``asyncio.gather`` raises the error of a call that has just failed instead."""
    fails, errors = asyncio.Event(), []

    async def fail() -> None:
        await fails.wait()
        raise ZeroDivisionError

    async def go_on() -> None:
        try:
            await asyncio.gather(fail(), asyncio.Event().wait())
        except ZeroDivisionError as error:
            errors.append(error)
        await asyncio.Event().wait()

    task = asyncio.create_task(go_on())
    await asyncio.sleep(0.01)  # it waits
    fails.set()
    await asyncio.sleep(0)  # the call fails now, and ``gather`` hears of it after the cancellation
    async with asyncio.timeout(30):
        await end_tasks(task)
    assert task.cancelled()
    assert len(errors) == 1


async def test_tasks_that_end_by_an_error_are_no_matter(caplog):
    async def fail() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60))]
    await end_tasks(*tasks)
    await end_tasks(*tasks)
    assert [task.done() for task in tasks] == [True, True]
    del tasks
    assert caplog.records == []
