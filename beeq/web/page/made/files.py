"""Finds the files that a job made: those that its result names, below the media root, in its project.

No part of a request is a path: it selects one of the names in the result that Redis, or the mirror, has of
the job. Names are resolved as in workers, so links and dots lead nowhere.
"""

import asyncio
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from beeq.jobs import InvalidJob, validate
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.paths import MediaRoot, safe_name
from beeq.web.page.made.kinds import FileKind, kind_of

#: Names of one result that are looked at.
_MOST_FILES = 8
#: The longest wait for opening all files: a network's files may be slow to open.
_LOOK_S = 2.0
_THREADS = 4
_LONGEST_NAME = 100
#: Larger values in a result are not true of any file.
_LONGEST_S, _MOST_PIXELS = 10**9, 10**6
_FILES_BY_FORMAT = "video-assembly"
_WITH_FILES = ("ai-generation", "media-processing", _FILES_BY_FORMAT)


class OpenedFile:
    """A file that is open for reading until ``close``, or until this object is garbage-collected."""

    def __init__(self, fd: int, kind: FileKind, name: str, threads: ThreadPoolExecutor) -> None:
        self.kind = kind
        self.name = name
        self._fd = fd
        self._threads = threads
        found = os.fstat(fd)
        self.size = found.st_size
        self.version = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
        self.close = weakref.finalize(self, os.close, fd)

    async def read(self, length: int, offset: int) -> bytes:
        """Return so many bytes, or fewer at the file's end."""
        # A cancelled caller may close the file under the thread, but does not get what that reads then.
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, os.pread, self._fd, length, offset
        )


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that a job's result names.

    Attributes:
        number: which of the names it is.
        path: as the result has it.
        facts: what the result says of it.
        kind: its kind; None if it cannot be opened, and ``problem`` says why.
        size: in bytes.
    """

    number: int
    path: str
    facts: dict[str, Any]
    kind: FileKind | None = None
    size: int = 0
    problem: str = ""

    @property
    def length_ms(self) -> float | None:
        """How long it plays, by the result."""
        seconds: Any = self.facts.get("duration")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            return None
        return seconds * 1000 if 0 < seconds < _LONGEST_S else None

    @property
    def pixels(self) -> str:
        """How large its picture is, by the result; "" if that does not say."""
        streams = self.facts.get("streams")
        for facts in (self.facts, *(streams[:8] if isinstance(streams, list) else ())):
            if isinstance(facts, dict):
                width, height = facts.get("width"), facts.get("height")
                if all(isinstance(each, int) and 0 < each < _MOST_PIXELS for each in (width, height)):
                    return f"{width} × {height}"
        return ""


class MadeFiles:
    """The files below one media root.

    Args:
        root: the folder; None: files are not shown.
        projects: ``separate`` where each project has a folder of its own below it, as workers have it.
    """

    def __init__(self, root: Path | None, projects: Literal["shared", "separate"]) -> None:
        self.root = root
        self._projects = projects
        # Threads of its own: a hanging network folder blocks only these.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="beeq page's files")

    def close(self) -> None:
        """Start no more reads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self, queue_name: str, data: Any, result: Any) -> list[MadeFile]:
        """Return the files that a job's result names, with what they are."""
        named = list(_named(queue_name, result))
        if not named or self.root is None:
            return [MadeFile(number, path, facts) for number, (path, facts) in enumerate(named)]
        try:
            async with asyncio.timeout(_LOOK_S):
                return await asyncio.gather(
                    *(self._seen(number, queue_name, data, *each) for number, each in enumerate(named))
                )
        except TimeoutError:
            problem = "the media root does not answer"
            return [
                MadeFile(number, path, facts, problem=problem) for number, (path, facts) in enumerate(named)
            ]

    async def _seen(
        self, number: int, queue_name: str, data: Any, path: str, facts: dict[str, Any]
    ) -> MadeFile:
        try:
            file = await self._open(queue_name, data, path)
        except (MediaRefused, MediaFailed) as error:
            return MadeFile(number, path, facts, problem=str(error))
        try:
            return MadeFile(number, path, facts, file.kind, file.size)
        finally:
            file.close()

    async def open(self, queue_name: str, data: Any, result: Any, number: int) -> OpenedFile | None:
        """Open one of the files that a job's result names; None if it does not name so many.

        Raises MediaRefused or MediaFailed: it may not, or cannot be opened; or TimeoutError.
        """
        named = list(_named(queue_name, result))
        if self.root is None or not 0 <= number < len(named):
            return None
        async with asyncio.timeout(_LOOK_S):
            return await self._open(queue_name, data, named[number][0])

    async def _open(self, queue_name: str, data: Any, path: str) -> OpenedFile:
        assert self.root is not None  # noqa: S101 - both callers have looked
        root = MediaRoot(self.root, self._project(queue_name, data))
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _opened, root, path, self._threads
        )

    def _project(self, queue_name: str, data: Any) -> str:
        """Return the folder of the job's project; "" where projects share the root."""
        if self._projects == "shared":
            return ""
        try:
            project_id = validate(queue_name, data).project_id
        except InvalidJob:
            project_id = None
        if project_id is None:
            raise MediaRefused("the job names no project, and each has a folder of its own")
        return safe_name(str(project_id))


def _named(queue_name: str, result: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and facts of each file that a result names; results may be anything."""
    if queue_name not in _WITH_FILES or not isinstance(result, dict):
        return
    many = list(result.values())[:_MOST_FILES] if queue_name == _FILES_BY_FORMAT else [result]
    for facts in many:
        path = facts.get("path") if isinstance(facts, dict) else None
        if isinstance(path, str) and path:
            yield path, facts


def _opened(root: MediaRoot, path: str, threads: ThreadPoolExecutor) -> OpenedFile:
    """Open a file; called in a thread."""
    with root.opened(path) as fd:
        try:
            kind = kind_of(partial(_read, fd))
            kept = os.dup(fd)
        except OSError as error:  # a bad disk, or too many open files
            raise MediaFailed(f"{shown(path)} cannot be read: {error.strerror}") from None
    if kind is None:
        os.close(kept)
        raise MediaRefused(f"{shown(path)} holds no picture, sound or film")
    return OpenedFile(kept, kind, _name_to_save(path, kind), threads)


def _read(fd: int, offset: int, length: int) -> bytes:
    return os.pread(fd, length, offset)


def _name_to_save(path: str, kind: FileKind) -> str:
    """Return a plain name with the suffix of what the file is."""
    name = path.rpartition("/")[2]
    plain = "".join(each if each.isalnum() or each in "._- " else "_" for each in name).strip(". ")
    plain = plain[-_LONGEST_NAME:] or "file"
    is_named_so = plain.lower().endswith(kind.suffix) or (
        kind.suffix == ".jpg" and plain.lower().endswith(".jpeg")
    )
    return plain if is_named_so else f"{plain}{kind.suffix}"
