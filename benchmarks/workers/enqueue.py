"""Puts jobs into a Python peer's queue, by its own API: ``python enqueue.py huey_worker 1000``.

Apart from the worker's module, for some libraries call a job after the module that its function is from.
"""

import asyncio
import importlib
import sys

if __name__ == "__main__":
    done = importlib.import_module(sys.argv[1]).enqueue(int(sys.argv[2]))
    if asyncio.iscoroutine(done):

        async def wait() -> None:
            """Wait for it in a loop."""
            await done

        asyncio.run(wait())
