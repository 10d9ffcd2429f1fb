"""``--app module:attr``: the user's own queues, with the handlers that their module gave them."""

import os
import sys
from importlib import import_module
from typing import Any

from beeq import Queue


def load_queues(path: str, *, redis_url: str) -> list[Queue]:
    """Import the module, which may lie in the current folder, and return its queue or queues.

    A queue made there without ``redis=`` takes ``redis_url``. A ValueError says why there is none to take.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attr")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        raise ValueError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        raise ValueError(f"{module_name} has no {attribute}") from None
    queues = list(found) if isinstance(found, list | tuple) else [found]
    for queue in queues:
        if not isinstance(queue, Queue):
            raise ValueError(f"{path} holds {type(queue).__name__}, not a beeq.Queue")  # noqa: TRY004 - a usage error
        if queue.handler is None:
            raise ValueError(f"queue {queue.name} of {path} has no handler: call its process()")
        if not queue.has_own_redis:
            queue.use_redis(redis_url)
    if not queues:
        raise ValueError(f"{path} is an empty list")
    return queues
