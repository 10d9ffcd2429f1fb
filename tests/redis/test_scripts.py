"""A script's header says what it takes; a call is checked against it before Redis is asked."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import hiredis
import pytest

from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.scripts import Script

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
KEYS = Keys("bq", "q")

HEADER = """\
-- Does this and that.
--
-- KEYS[1] earlierDelayed  a channel
-- KEYS[2] claims          hash
-- ARGV[1]  job_id  the job
-- ARGV[2]  limit   how many
-- ARGV[3…] pairs   two
--                  of each
--
-- Returns KEYS[7], say.
return 1
-- ARGV[9] is not in the header
"""
SCRIPT = Script.parse("sample", HEADER.encode())


def words_of(command: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(command)
    words: list[bytes] = reader.gets()
    return words


HEAD = [b"EVALSHA", SCRIPT.sha.encode(), b"2", b"bq:q:earlierDelayed", b"bq:q:beeq:claims"]


class Recorder:
    """Runs nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Script, bytes]] = []

    async def run(self, script: Script, command: bytes) -> str:
        self.calls.append((script, command))
        return "the reply"


# What a header says.


def test_a_header_names_keys_and_arguments_in_their_order():
    assert SCRIPT.keys == ("earlier_delayed", "claims")
    assert SCRIPT.arguments == ("job_id", "limit")
    assert SCRIPT.rest == "pairs"


def test_a_script_without_header_takes_nothing():
    script = Script.parse("bare", b"return 1\n-- KEYS[1] claims  hash\n")
    assert (script.keys, script.arguments, script.rest) == ((), (), "")


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("-- KEYS[2] jobs  hash", r"KEYS\[2\] is out of order"),
        ("-- KEYS[1] jobs  hash\n-- KEYS[3] claims  hash", r"KEYS\[3\] is out of order"),
        ("-- KEYS[1] jobs  hash\n-- KEYS[1] claims  hash", r"KEYS\[1\] is out of order"),
        ("-- ARGV[0] job_id  the job", r"ARGV\[0\] is out of order"),
        ("-- ARGV[1] a  x\n-- ARGV[3…] b  x", r"ARGV\[3…\] is out of order"),
        ("-- KEYS[1] jobs  hash\n-- KEYS[2] jobs  hash", "'jobs' is named twice"),
        ("-- ARGV[1] a  x\n-- ARGV[2…] a  x", "'a' is named twice"),
        ("-- KEYS[1] job  hash", "'job' is not a key of a queue"),
        ("-- KEYS[1] prefix  text", "'prefix' is not a key of a queue"),
        ("-- KEYS[1] every  list", "'every' is not a key of a queue"),
        ("-- KEYS[1] beeq:claims  hash", "'beeq:claims' is not a key of a queue"),
        ("-- KEYS[1]", "'' is not a key of a queue"),
        ("-- KEYS[1…] jobs  hash", "'jobs' is not a key of a queue"),
        ("-- ARGV[1]", "'' is not a name"),
        ('-- ARGV[1] "1" for the first call', "'\"1\"' is not a name"),
        ("-- ARGV[1] from  where to begin", "'from' is not a name"),
        ("-- ARGV[1] job-id  the job", "'job-id' is not a name"),
        ("-- ARGV[1…] pairs  two\n-- ARGV[2] a  x", r"ARGV\[2\] follows pairs"),
        ("-- ARGV[1…] pairs  two\n-- ARGV[2…] more  two", r"ARGV\[2…\] follows pairs"),
    ],
)
def test_a_fault_in_a_header_is_refused_with_its_place(lines, fault):
    with pytest.raises(ValueError, match=f"^odd.lua: .*{fault}"):
        Script.parse("odd", f"-- Does it.\n{lines}\nreturn 1\n".encode())


# Calls.


async def test_a_call_hands_the_packed_command_to_its_runner():
    recorder = Recorder()
    reply = await SCRIPT(recorder, KEYS, pairs=[("a", b"b"), ("c", 1.5)], limit=3, job_id="1")
    assert reply == "the reply"
    [(script, command)] = recorder.calls
    assert script is SCRIPT
    assert words_of(command) == [*HEAD, b"1", b"3", b"a", b"b", b"c", b"1.5"]


def test_an_open_ended_argument_takes_any_iterable():
    assert words_of(SCRIPT.pack(KEYS, job_id="1", limit=3, pairs=())) == [*HEAD, b"1", b"3"]
    pairs = ((name, name) for name in "xy")
    assert words_of(SCRIPT.pack(KEYS, job_id="1", limit=3, pairs=pairs))[7:] == [b"x", b"x", b"y", b"y"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "lacks the argument 'job_id'"),
        ({"job_id": "1", "pairs": ()}, "lacks the argument 'limit'"),
        ({"job_id": "1", "limit": 3}, "lacks the argument 'pairs'"),
        ({"job_id": "1", "limit": 3, "pairs": (), "more": 1}, "takes no argument 'more'"),
        ({"job_id": "1", "limits": 3, "pairs": ()}, "lacks the argument 'limit'"),
        ({"job_id": "1", "limit": 3, "pairs": (), "": 1}, "takes no argument ''"),
        ({"job_id": "1", "limit": 3, "pairs": (), "claims": "x"}, "takes no argument 'claims'"),
        ({"job_id": object(), "limit": 3, "pairs": ()}, None),  # cannot be packed
    ],
)
def test_a_wrong_call_is_a_type_error_and_sends_nothing(arguments, fault):
    recorder = Recorder()
    with pytest.raises(TypeError, match=None if fault is None else rf"^sample\(\) {fault}"):
        _ = SCRIPT(recorder, KEYS, **arguments)
    assert recorder.calls == []


def test_a_closed_script_takes_no_nameless_argument():
    with pytest.raises(TypeError, match="takes no argument ''"):
        scripts.read_outcome.pack(KEYS, job_id="1", longest=1000, with_record="", **{"": ()})


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_prefix_and_the_rest_make_the_same_call(count):
    first = dict(list({"job_id": "1", "limit": 3}.items())[:count])
    rest = [b"1", b"3", b"a", b"b"][count:]
    assert SCRIPT.prefix(KEYS, **first).pack(rest) == SCRIPT.pack(
        KEYS, job_id="1", limit=3, pairs=[("a", "b")]
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"limit": 3}, "lacks the argument 'job_id'"),
        ({"job_id": "1", "pairs": ()}, "lacks the argument 'limit'"),
        ({"job_id": "1", "limit": 3, "pairs": ()}, "takes no argument 'pairs'"),
        ({"more": 1}, "lacks the argument 'job_id'"),
    ],
)
def test_a_prefix_takes_the_first_arguments_only(arguments, fault):
    with pytest.raises(TypeError, match=rf"^sample\(\) {fault}"):
        SCRIPT.prefix(KEYS, **arguments)


# The scripts in lua/.


def test_every_script_is_loaded_and_no_other():
    assert sorted(script.name for script in scripts.ALL) == sorted(
        path.stem for path in (ROOT / "lua").glob("*.lua")
    )
    for script in scripts.ALL:
        assert script.source == (ROOT / "lua" / f"{script.name}.lua").read_bytes()
        assert getattr(scripts, script.name) is script


def parts_of(script: Script) -> tuple[str, str]:
    """Return a script's header and what follows it."""
    header = re.match(r"(?:--.*\n)+", script.source.decode())
    assert header, "a script opens with a comment"
    return header[0], script.source.decode()[header.end() :]


def breaking(
    rule: Callable[[Script, str, str], bool | str | None], among: Iterable[Script] = scripts.ALL
) -> list[str]:
    """Return the names of the scripts whose header and body do not keep a rule."""
    return [script.name for script in among if not rule(script, *parts_of(script))]


def test_a_header_says_what_its_script_does_and_returns():
    def says_both(_script, header, _body):
        return re.match(r"-- [A-Z].*[.\w)]\n", header) and re.search(r"^-- Returns ", header, re.MULTILINE)

    assert breaking(says_both) == []
    assert breaking(lambda script, *_: script.keys and (script.arguments or script.rest)) == []


def test_a_header_explains_each_key_and_argument():
    def explains_each(script, header, _body):
        entries = re.findall(r"^-- (?:KEYS|ARGV)\[\d+…?\] +\w+( +\S.*)?$", header, re.MULTILINE)
        expected = len(script.keys) + len(script.arguments) + bool(script.rest)
        return all(entries) and len(entries) == expected

    assert breaking(explains_each) == []


def test_a_script_binds_its_headers_keys_in_that_order():
    def binds_keys(script, _header, body):
        bound = re.search(r"^local ([\w, ]+) =\s+unpack\(KEYS\)", body, re.MULTILINE)
        named = ["counter" if name == "id" else name for name in script.keys]
        return bound and bound[1].split(", ") == named

    assert breaking(binds_keys) == [], "the first line binds all keys"
    assert breaking(lambda _script, _header, body: not re.search(r"\bKEYS\[", body)) == [], (
        "below the first line a key has a name"
    )


#: These run for every job: they read what they need where they need it.
HOT = (scripts.add_jobs, scripts.exchange)


def test_a_script_binds_its_headers_arguments_in_that_order():
    def binds_arguments(script, _header, body):
        bound = re.search(r"^local ([\w, ]+) = unpack\(ARGV(?:, 1, (\d+))?\)", body, re.MULTILINE)
        last = str(len(script.arguments)) if script.rest else None
        return bound and (tuple(bound[1].split(", ")), bound[2]) == (script.arguments, last)

    cold = [one for one in scripts.ALL if one.arguments and one not in HOT]
    assert breaking(binds_arguments, cold) == [], "the second line binds all arguments"
    assert breaking(lambda _script, _header, body: not re.search(r"ARGV\[\d", body), cold) == [], (
        "below that line an argument has a name"
    )


def test_a_hot_script_reads_only_arguments_of_its_header():
    def reads_its_own(script, _header, body):
        read = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body)}
        return read <= set(range(1, len(script.arguments) + 1))

    assert breaking(reads_its_own, HOT) == []


def test_the_open_end_begins_after_the_named_arguments():
    def begins_after_them(script, _header, body):
        first = re.search(r"^local FIRST, STEP = (\d+), ", body, re.MULTILINE)
        first = first or re.search(r"^for at = (\d+), #ARGV, ", body, re.MULTILINE)
        return (int(first[1]) if first else None) == (len(script.arguments) + 1 if script.rest else None)

    assert breaking(begins_after_them) == []


# Who calls them.


def calls_of_scripts() -> Iterator[tuple[str, ast.Call, str]]:
    """Yield place, call and attribute of each ``scripts.name(…)`` and ``scripts.name.prefix(…)`` in the package."""
    for path in sorted((ROOT / "beeq").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.startswith("scripts."):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, called.removeprefix("scripts.")


def test_every_call_in_the_package_suits_its_header():
    """Not every call site is on a path that tests of the queue take."""
    called = set()
    for place, node, target in calls_of_scripts():
        name, _, verb = target.partition(".")
        script: Script = getattr(scripts, name)
        check = script.prefix if verb == "prefix" else script.pack
        try:
            check(KEYS, **{keyword.arg or "**": "" for keyword in node.keywords})
        except TypeError as error:
            raise AssertionError(f"{place}: {error}") from error
        called.add(name)
    assert called == {script.name for script in scripts.ALL}, "a script that nothing calls"
