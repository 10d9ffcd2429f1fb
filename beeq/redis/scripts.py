"""beeq's Lua scripts as calls by keyword: ``await scripts.read_outcome(pipeline, keys, job_id=…)``.

Each file in ``lua/`` is one operation. Its header names the keys it touches and the arguments it takes, one
a line (``…`` marks a last argument that takes any number of tuples):

    -- KEYS[1] stalling  set of ids that have to give a sign of life
    -- ARGV[1]  worker   the worker process
    -- ARGV[2…] jobs     id and claim of each job it runs

The headers are read and checked when this module is imported. They are found in the package, or beside it in
a checkout.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from beeq.protocol.keys import Key, Keys
from beeq.redis.resp import CommandPrefix, pack
from beeq.redis.rights import know_script

_HEADER = re.compile(r"(?:--.*\n)*")
_ENTRY = re.compile(r"^-- (KEYS|ARGV)\[(\d+)(…?)\] *(\S*)", re.MULTILINE)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class ScriptRunner(Protocol):
    """Executes a script: a ``Connection`` or the ``Pipeline``."""

    def run(self, script: Script, command: bytes) -> Coroutine[Any, Any, Any]:
        """Send the packed call and return its reply; load the script first if Redis does not know it."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """One script, known to Redis by its digest ``sha``."""

    name: str
    source: bytes
    sha: str
    #: The attributes of ``Keys`` that it is given, in its order.
    keys: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    #: The name of a last argument that takes any number of tuples, or "".
    rest: str = ""
    #: Whether a call whose reply was lost may be sent again.
    is_repeatable: bool = False
    #: Whether its callers wait for ``wait_replicas``.
    awaits_replicas: bool = False
    #: Whether it goes ahead of the calls that already wait in a pipeline.
    goes_ahead: bool = False

    @classmethod
    def parse(
        cls,
        name: str,
        source: bytes,
        *,
        is_repeatable: bool = False,
        awaits_replicas: bool = False,
        goes_ahead: bool = False,
    ) -> Script:
        """Return the script, with what its header says. Raises ValueError where the header is wrong."""
        header = _HEADER.match(source.decode())
        entries = _ENTRY.findall(header[0] if header else "")
        names: dict[str, list[str]] = {"KEYS": [], "ARGV": []}
        rest = ""
        for kind, number, dots, entry in entries:
            where = f"{name}.lua: {kind}[{number}{dots}]"
            if int(number) != len(names[kind]) + 1:
                raise ValueError(f"{where} is out of order")
            if rest and kind == "ARGV":
                raise ValueError(f"{where} follows {rest}, which takes all the rest")
            argument = _HUMP.sub("_", entry).lower() if kind == "KEYS" else entry
            if kind == "KEYS" and (dots or not isinstance(vars(Keys).get(argument), Key)):
                raise ValueError(f"{where}: {entry!r} is not a key of a queue")
            if not argument.isidentifier() or keyword.iskeyword(argument):
                raise ValueError(f"{where}: {entry!r} is not a name for an argument")
            if argument in names[kind]:
                raise ValueError(f"{where}: {entry!r} is named twice")
            names[kind].append(argument)
            rest = argument if dots else rest
        return cls(
            name,
            source,
            hashlib.sha1(source, usedforsecurity=False).hexdigest(),  # Redis's own choice of digest
            tuple(names["KEYS"]),
            tuple(names["ARGV"][:-1] if rest else names["ARGV"]),
            rest,
            is_repeatable,
            awaits_replicas,
            goes_ahead,
        )

    def __call__(self, runner: ScriptRunner, keys: Keys, /, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Run the script; the coroutine returns its reply, and raises what ``runner.run`` raises.

        The arguments are those that the header names: text, bytes or a number; for the last one of a header
        with ``…`` an iterable of tuples. One that is missing, or not in the header, is a TypeError.
        """
        return runner.run(self, self.pack(keys, **arguments))

    def pack(self, keys: Keys, /, **arguments: Any) -> bytes:
        """Return the packed call."""
        self._check(arguments, (*self.arguments, self.rest) if self.rest else self.arguments)
        tuples: Iterable[Iterable[Any]] = arguments[self.rest] if self.rest else ()
        return pack(
            *self._head(keys), *(arguments[name] for name in self.arguments), *chain.from_iterable(tuples)
        )

    def prefix(self, keys: Keys, last_key: str = "", /, **arguments: Any) -> CommandPrefix:
        """Return the part of a call that is the same each time, packed once.

        It has the first arguments of the header; ``CommandPrefix.pack`` takes the others, as bytes, in order.
        With ``last_key``, one of ``self.keys``, it has the keys up to that one: the calls touch no other.
        """
        first = self.arguments[: len(arguments)]
        self._check(arguments, first)
        return CommandPrefix(*self._head(keys, last_key), *(arguments[name] for name in first))

    def _head(self, keys: Keys, last_key: str = "") -> tuple[Any, ...]:
        names = self.keys[: self.keys.index(last_key) + 1] if last_key else self.keys
        return ("EVALSHA", self.sha, len(names), *(getattr(keys, name) for name in names))

    def _check(self, given: dict[str, Any], expected: tuple[str, ...]) -> None:
        for name in expected:
            if name not in given:
                raise TypeError(f"{self.name}() lacks the argument {name!r}")
        for name in given:
            if name not in expected:
                raise TypeError(f"{self.name}() takes no argument {name!r}")


_PACKAGE = Path(str(files("beeq")))
#: In an installed package, or beside the checkout's package.
_FOLDER = _PACKAGE / "lua" if (_PACKAGE / "lua").is_dir() else _PACKAGE.parent / "lua"


def _load(name: str, **traits: bool) -> Script:
    return Script.parse(name, (_FOLDER / f"{name}.lua").read_bytes(), **traits)


# These do not await replicas: writes of background duties, which repeat them; a running job's outcome,
# progress and memory: if they are lost the job runs again, and would more often if a slow replica failed the
# attempt; ``clean`` and other commands on many jobs: a second call finds what has come back.
add_jobs = _load("add_jobs", awaits_replicas=True)
apply_pause = _load("apply_pause", is_repeatable=True)
beat = _load("beat")
begin_stall_check = _load("begin_stall_check", is_repeatable=True)
begin_retention = _load("begin_retention")
cancel_job = _load("cancel_job", awaits_replicas=True)
check_events = _load("check_events", is_repeatable=True, goes_ahead=True)
clean_jobs = _load("clean_jobs", is_repeatable=True)
count_jobs = _load("count_jobs", is_repeatable=True)
drop_finished = _load("drop_finished", is_repeatable=True)
exchange = _load("exchange")
find_places = _load("find_places", is_repeatable=True)
give_back = _load("give_back")
inspect_job = _load("inspect_job", is_repeatable=True)
keep_record = _load("keep_record", is_repeatable=True)
measure_jobs = _load("measure_jobs", is_repeatable=True)
mark_stalling = _load("mark_stalling", is_repeatable=True)
note_history = _load("note_history")
note_queue = _load("note_queue", is_repeatable=True)
note_finished = _load("note_finished", is_repeatable=True)
note_running = _load("note_running", is_repeatable=True)
page_ids = _load("page_ids", is_repeatable=True)
pause = _load("pause", is_repeatable=True, awaits_replicas=True)
peek_active = _load("peek_active")
raise_delayed = _load("raise_delayed")
read_history = _load("read_history", is_repeatable=True)
read_outcome = _load("read_outcome", is_repeatable=True)
read_records = _load("read_records", is_repeatable=True)
remove_job = _load("remove_job", is_repeatable=True, awaits_replicas=True)
repair_jobs = _load("repair_jobs")
report_progress = _load("report_progress", is_repeatable=True)
requeue_stalled = _load("requeue_stalled")
return_overdue = _load("return_overdue")
retry_job = _load("retry_job", awaits_replicas=True)
retry_jobs = _load("retry_jobs", is_repeatable=True)
run_jobs = _load("run_jobs", is_repeatable=True)
scan_strays = _load("scan_strays", is_repeatable=True)
survey_jobs = _load("survey_jobs", is_repeatable=True)
sweep = _load("sweep", is_repeatable=True)
sweep_finished = _load("sweep_finished", is_repeatable=True)
try_commands = _load("try_commands", is_repeatable=True)
waiting_ids = _load("waiting_ids", is_repeatable=True)
withdraw_jobs = _load("withdraw_jobs", is_repeatable=True)

#: Every script, for loading them ahead of use.
ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
for _script in ALL:
    know_script(_script.sha, _script.source)
