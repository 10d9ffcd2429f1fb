"""Handlers of a program that logs by a logger of its own, in a file: child processes import them."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from beeq import Discard, Queue, Retry

logger = logging.getLogger("program.mail")


async def says_in_coroutine(job: Any) -> None:
    logger.info("said %s", job.data)


def says_in_thread(job: Any) -> None:
    logger.info("said %s", job.data)


def says(job: Any) -> Any:
    """What a job asks for."""
    match job.data["do"]:
        case "say":
            logger.info("said by the program")
        case "discard":
            raise Discard("as expected")
        case "retry":
            raise Retry(after=1, reason="as expected")
        case "surprise":
            raise ValueError("redis://ann:hush@host\n\x1b[2Jforged: line\u202e")
        case "long":
            raise ValueError("x" * 1_000_000 + "\nsurprise: forged")
        case "thread":
            thread = threading.Thread(target=_ends_badly, name="own")
            thread.start()
            thread.join()
        case "die":
            os._exit(3)
    return None


def _ends_badly() -> None:
    raise LookupError("in a thread")


def queues(names: str, executors: tuple[str, ...]) -> list[Queue]:
    """Return a queue for each executor, for ``beeq worker --app``."""
    made = []
    for executor in executors:
        queue = Queue(f"{names}-{executor}")
        queue.process(says, executor=executor)  # type: ignore[call-overload]  # one of the words
        made.append(queue)
    return made
