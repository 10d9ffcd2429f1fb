"""``--app module:attr``: the user's own queues, with the handlers of their module."""

import os
import sys
import traceback
from importlib import import_module
from typing import Any

from beeq import Queue
from beeq.errors import escaped, kind_of, text_of
from beeq.redis.urls import redact
from beeq_cli.options import Common

#: So many of the last calls that led to an import's failure are shown.
_FRAMES = 3


class AppNotLoaded(ValueError):
    """The app has no usable queues; ``lines`` say where in its own code that comes from."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


def load_queues(path: str, common: Common) -> list[Queue]:
    """Import the module, which may lie in the current folder, and return its queue or queues.

    A queue made there without ``redis=`` uses the command's Redis; ``-u`` and ``-p`` of the command line
    override its own. A ValueError says why there is no usable queue.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attr, such as jobs:queue for queue in jobs.py")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    try:
        found: Any = import_module(module_name)
    except (Exception, SystemExit) as error:
        reason = redact(f"{kind_of(error)}: {text_of(error)}")
        raise AppNotLoaded(f"{module_name} cannot be imported: {reason}", _own_lines(error)) from error
    module = found
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        raise ValueError(f"{module_name} has no attribute {attribute!r}{_instead(module)}") from None
    queues = list(found) if isinstance(found, list | tuple) else [found]
    for queue in queues:
        if not isinstance(queue, Queue):
            kind = (
                "a beeq.sync.Queue, which works on no jobs" if _is_blocking(queue) else type(queue).__name__
            )
            raise ValueError(f"{path} holds {kind}, not a beeq.Queue{_instead(module)}")  # noqa: TRY004 - a usage error
        if queue.handler is None:
            raise ValueError(f"queue {queue.name} of {path} has no handler: call its process()")
        url = None if queue.has_own_redis and common.redis_option is None else common.redis_url()
        if url is not None or common.prefix_option is not None:
            queue.use(redis=url, prefix=common.prefix_option)
    if not queues:
        raise ValueError(f"{path} is an empty list")
    return queues


def _is_blocking(value: Any) -> bool:
    """Return whether it is a queue of ``beeq.sync``, which is not loaded for this."""
    return type(value).__module__ == "beeq.sync"


def _instead(module: Any) -> str:
    """Return the attributes of the module that could be used, as the end of a sentence."""
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Queue))
    return f"; there is {', '.join(f'{module.__name__}:{name}' for name in names[:3])}" if names else ""


def _own_lines(error: BaseException) -> list[str]:
    """Return the last lines of the traceback that are the app's, each call with file and line."""
    calls = [
        call
        for call in traceback.extract_tb(error.__traceback__)
        if call.filename != __file__ and "importlib" not in call.filename
    ]
    shown = traceback.format_list(calls[-_FRAMES:])
    if isinstance(error, SyntaxError):
        shown += traceback.format_exception_only(error)[:-1]  # the file, the line, and where in it
    return [escaped(redact(line)) for line in "".join(shown).splitlines()]
