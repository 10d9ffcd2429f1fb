"""The Python half of ``bee.js``: a handler whose job's data says what is to be done."""

from __future__ import annotations

import asyncio
from typing import Any

from beeq import Job


async def handle(job: Job) -> Any:
    """Do what ``job.data["act"]`` says."""
    data = job.data
    value = data.get("value")
    match data.get("act"):
        case "return":
            return value
        case "throw":
            raise ValueError(value)
        case "flaky":
            if len(job.options["stacktraces"]) < data["times"]:
                raise ValueError(f"attempt {len(job.options['stacktraces']) + 1}")
            return value
        case "progress":
            for step in data["steps"]:
                await job.report_progress(step)
            return value
        case "amend":
            data.update(value)
        case "hang":
            await asyncio.Event().wait()
    return None
