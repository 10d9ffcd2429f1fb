"""The table of rights: complete, and nothing in it that nobody needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import beeq
from beeq.redis import rights, scripts

PACKAGE = Path(beeq.__file__).parent
#: Whose scripts a queue without a handler runs; the others are a worker's.
QUEUE_SCRIPTS = {
    "add_jobs", "apply_pause", "cancel_job", "clean_jobs", "count_jobs", "inspect_job", "measure_jobs", "note_queue", "page_ids", "pause",
    "raise_delayed", "read_outcome", "read_records", "remove_job", "report_progress", "retry_job", "retry_jobs", "run_jobs", "survey_jobs",
    "waiting_ids", "withdraw_jobs",
}  # fmt: skip
#: What scripts do in another way where the user may not run it.
OPTIONAL = {"rename"}
#: Commands whose rights are given by subcommand.
CONTAINERS = {"CONFIG", "CLIENT", "SCRIPT", "XGROUP", "XINFO", "CLUSTER", "ACL"}
#: What only an administrator of the server may do, and no queue's user should: ``beeq doctor`` says so where it may not.
ADMINISTRATORS = {"config|get", "config|set"}
#: Codes of errors that are commands' names, too.
CODES = {"readonly"}


def commands_in(script: scripts.Script) -> set[str]:
    return {name.lower() for name in re.findall(r"(?:call|write)\('([A-Z]+)'", script.source.decode())}


def needed_by(*parts: str) -> set[str]:
    return set(rights.needed_by(*parts))


def test_a_script_needs_nothing_that_is_not_in_the_table():
    missing = {}
    for script in scripts.ALL:
        part = "queue" if script.name in QUEUE_SCRIPTS else "worker"
        missing[script.name] = commands_in(script) - needed_by(part, "mirrored") - OPTIONAL
    assert {name: commands for name, commands in missing.items() if commands} == {}


def words_sent(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each word in capitals that follows the opening of a call or a tuple, and the next one."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        words = [part.value if isinstance(part, ast.Constant) else "" for part in parts]
        if words and isinstance(words[0], str) and re.fullmatch("[A-Z]{3,}", words[0]):
            yield words[0], str(words[1]) if len(words) > 1 else ""


def sent_by(path: Path, known: set[str]) -> set[str]:
    return {
        f"{word}|{following}".lower() if word in CONTAINERS else word.lower()
        for word, following in words_sent(path)
        if word.lower() in known
    }


async def test_a_module_sends_nothing_that_is_not_in_the_table(redis):
    known = set(await redis.command()) - CODES
    sent = set()
    rooms = [
        PACKAGE.joinpath(name).rglob("*.py")
        for name in ("redis", "client", "operations", "worker", "maintenance", "mirror")
    ]
    for path in chain(PACKAGE.glob("*.py"), *rooms):
        if path.name != "rights.py":
            sent |= sent_by(path, known)
    table = {right.command for right in rights.RIGHTS}
    assert sent - table - ADMINISTRATORS == set(), "a line in beeq/redis/rights.py is missing"
    in_scripts = set().union(*(commands_in(script) for script in scripts.ALL))
    by_redis_py = {"select", "client|setname"}
    assert table - sent - in_scripts - by_redis_py == set(), "a line there is not needed any more"
