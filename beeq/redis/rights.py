"""The rights that beeq's Redis user needs, each with its reason; and what a refusal says of a missing one.

A user needs the keys and channels of its queues, ``~<prefix>:<queue>:*`` and ``&<prefix>:<queue>:*``, and
those commands of the table below whose parts its processes play. A command of no part is optional: beeq does
without it, as the reason says. The key ``<prefix>:beeq:queues``, by which commands find queues, is optional,
too. README.md has the rules for ACL SETUSER that are made of this table.

``advice_on`` says which right a refusal is about. Most servers do not name the command that a script may not
run; they name the script and the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from beeq.errors import RedisRefused

#: The parts of a process: a queue without a handler saves, reads, cancels, hears events, raises delayed jobs;
#: a worker also runs jobs; a ``mirrored`` queue notes changes; a mirror writes them to MongoDB.
PARTS = ("queue", "worker", "mirrored", "mirror")
_BOTH = ("queue", "worker")
_ALL = ("queue", "worker", "mirror")
_WORKER = ("worker",)
_MIRROR = ("mirror",)
_OPTIONAL: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Right:
    """One command that a user may need the right to.

    Attributes:
        command: as an ACL rule has it, without its plus: ``hset``, ``script|load``.
        parts: those of ``PARTS`` that need it; empty if it is optional.
        why: its purpose; for an optional one, what happens without it.
        trial: a call that changes nothing where KEY is a string; empty if it cannot be tried in a script.
    """

    command: str
    parts: tuple[str, ...]
    why: str
    trial: str = ""


RIGHTS = (
    # Connections and scripts.
    Right("ping", _ALL, "to see that Redis is there", "PING"),
    Right("script|load", _ALL, "nearly everything is done by scripts"),
    Right("evalsha", _ALL, "nearly everything is done by scripts"),
    Right("subscribe", _ALL, "events, delayed jobs, cancelled jobs"),
    Right("publish", _BOTH, "events, delayed jobs, cancelled jobs", "PUBLISH KEY x"),
    Right("time", _ALL, "due times follow Redis's clock", "TIME"),
    # Keys of any type.
    Right("exists", _BOTH, "whether a key is there", "EXISTS KEY"),
    Right("set", _ALL, "marks and leases with a TTL", "SET KEY 1 PX 1000"),
    Right("get", _ALL, "marks, leases, the counter", "GET KEY"),
    Right("pexpireat", _BOTH, "results that go by themselves", "PEXPIREAT KEY 9999999999999"),
    Right("pexpire", _ALL, "keys that go by themselves", "PEXPIRE KEY 1000"),
    Right("pttl", _BOTH, "results that go by themselves", "PTTL KEY"),
    # The counter of automatic ids.
    Right("incr", _BOTH, "automatic ids", "INCR KEY"),
    Right("incrby", _BOTH, "automatic ids", "INCRBY KEY 1"),
    Right("decr", _BOTH, "an automatic id that was not used", "DECR KEY"),
    Right("decrby", _BOTH, "automatic ids that were not used", "DECRBY KEY 1"),
    # Records, claims, results.
    Right("hget", _ALL, "records, claims, results", "HGET KEY f"),
    Right("hset", _BOTH, "records, claims, results", "HSET KEY f v"),
    Right("hsetnx", _BOTH, "records of new jobs", "HSETNX KEY f v"),
    Right("hmget", _BOTH, "several records or claims", "HMGET KEY f"),
    Right("hdel", _BOTH, "removed records, ended claims", "HDEL KEY f"),
    Right("hexists", _ALL, "whether a job has a record", "HEXISTS KEY f"),
    Right("hlen", _BOTH, "how many claims and records there are", "HLEN KEY"),
    Right("hstrlen", _ALL, "how long a record is", "HSTRLEN KEY f"),
    Right("hscan", _ALL, "what runs on workers; claims of lost calls; records to compare", "HSCAN KEY 0"),
    Right("hrandfield", _WORKER, "claims that nobody holds any more", "HRANDFIELD KEY"),
    # waiting and active.
    Right("llen", _BOTH, "how many jobs wait and run", "LLEN KEY"),
    Right("lindex", _BOTH, "the oldest job, the newest claim", "LINDEX KEY 0"),
    Right("lrange", _ALL, "jobs that wait and run", "LRANGE KEY 0 0"),
    Right("lpos", _ALL, "whether a job waits or runs", "LPOS KEY x"),
    Right("lpush", _BOTH, "new and due jobs", "LPUSH KEY x"),
    Right("rpush", _BOTH, "jobs handed back, or hidden by a pause before", "RPUSH KEY x"),
    Right("lrem", _BOTH, "jobs that ended, or were removed", "LREM KEY 1 x"),
    Right("lset", _BOTH, "jobs removed from a long queue, many at once", "LSET KEY 0 x"),
    Right("lmove", _WORKER, "jobs taken", "LMOVE KEY KEY LEFT LEFT"),
    Right("ltrim", _BOTH, "several jobs taken, or hidden, at once", "LTRIM KEY 0 0"),
    # succeeded, failed, stalling.
    Right("sadd", _WORKER, "jobs that ended", "SADD KEY m"),
    Right("srem", _BOTH, "jobs that were removed, or run again", "SREM KEY m"),
    Right("scard", _BOTH, "how many jobs have ended", "SCARD KEY"),
    Right("sismember", _ALL, "whether a job has ended", "SISMEMBER KEY m"),
    Right("smismember", _WORKER, "which jobs have stalled", "SMISMEMBER KEY m"),
    Right("sscan", _BOTH, "jobs that have ended: get_jobs, clean", "SSCAN KEY 0"),
    # delayed, and the registry of workers.
    Right("zadd", _BOTH, "delayed jobs", "ZADD KEY 1 m"),
    Right("zrem", _BOTH, "jobs that are not delayed any more", "ZREM KEY m"),
    Right("zscore", _ALL, "whether a job is delayed", "ZSCORE KEY m"),
    Right("zrank", _BOTH, "the next page of delayed jobs", "ZRANK KEY m"),
    Right("zmscore", _WORKER, "which jobs were cancelled", "ZMSCORE KEY m"),
    Right("zrange", _ALL, "the next delayed job", "ZRANGE KEY 0 0"),
    Right("zrangebyscore", _BOTH, "delayed jobs that are due", "ZRANGEBYSCORE KEY 0 1"),
    Right("zrevrangebyscore", _BOTH, "due times close together", "ZREVRANGEBYSCORE KEY 1 0"),
    Right("zremrangebyscore", _BOTH, "old marks", "ZREMRANGEBYSCORE KEY 0 1"),
    Right("zcard", _BOTH, "how many jobs are delayed", "ZCARD KEY"),
    Right("zcount", _BOTH, "how many workers live", "ZCOUNT KEY 0 1"),
    # The mirror's outbox.
    Right("xadd", ("mirrored", "mirror"), "changes for the mirror", "XADD KEY * f v"),
    Right("xlen", ("mirrored", "mirror"), "how many changes are not mirrored yet", "XLEN KEY"),
    Right("xgroup|create", _MIRROR, "reading the outbox"),
    Right("xgroup|delconsumer", _MIRROR, "writers that are gone"),
    Right("xinfo|consumers", _MIRROR, "writers that are gone"),
    Right("xinfo|stream", _MIRROR, "the newest change"),
    Right("xreadgroup", _MIRROR, "reading the outbox"),
    Right("xautoclaim", _MIRROR, "what a dead writer has left"),
    Right("xrange", _MIRROR, "whether a change is mirrored"),
    Right("xack", _MIRROR, "changes that are mirrored"),
    Right("xdel", _MIRROR, "changes that are mirrored"),
    # Last, because trials run in this order, and these end the key.
    Right("del", _BOTH, "destroy()", "DEL KEY"),
    Right("unlink", _BOTH, "marks and results that have had their time", "UNLINK KEY"),
    # Optional.
    Right("blmove", _OPTIONAL, "an idle worker waits for a job; without it, it asks every half second"),
    Right("rename", _OPTIONAL, "a pause for everyone, of a long queue; without it, ids are moved in steps"),
    Right("client|id", _OPTIONAL, "ends that wait; without it, a wait lasts half a second"),
    Right("client|unblock", _OPTIONAL, "ends that wait; without it, a wait lasts half a second"),
    Right("scan", _OPTIONAL, "commands that find queues by themselves; without it, name the queue"),
    Right("select", _OPTIONAL, "a database other than 0; without it, only that one can be used"),
    Right("wait", _OPTIONAL, "the setting wait_replicas; without it, leave that out"),
    Right("client|setname", _OPTIONAL, "?client_name=… in a URL; without it, leave that out"),
    Right("hello", _OPTIONAL, "whether a server is still the master; without it, ROLE or INFO is asked"),
    Right("role", _OPTIONAL, "whether a server is still the master; without it, INFO is asked"),
    Right("info", _OPTIONAL, "whether a server is still the master; without it, a refused write shows it"),
    Right("cluster|slots", _OPTIONAL, "who owns the queue; without it, no cluster can be used"),
)


def needed_by(*parts: str) -> list[str]:
    """Return the commands that these parts need, sorted."""
    return sorted(right.command for right in RIGHTS if set(parts) & set(right.parts))


def optional() -> list[str]:
    """Return the commands that no part needs, sorted."""
    return sorted(right.command for right in RIGHTS if not right.parts)


def acl_rules(prefix: str, queue_name: str, *commands: str) -> list[str]:
    """Return the rules of ACL SETUSER for one queue; ``*`` as a name means all queues of the prefix."""
    scope = f"{prefix}:*" if queue_name == "*" else f"{prefix}:{queue_name}:*"
    return [f"~{scope}", f"&{scope}", *(f"+{command}" for command in commands)]


def acl_lines(prefix: str, queue_name: str) -> list[tuple[str, str]]:
    """Return the purpose and the rules of each call of ACL SETUSER; every user needs the first."""
    lines: list[tuple[str, str]] = []
    before: set[str] = set()
    for about, commands in (
        ("every queue: saves, reads, listens", needed_by("queue")),
        ("workers", needed_by("worker")),
        ("queues that are mirrored, and the mirror's writers", needed_by("mirrored", "mirror")),
        ("optional, see below", optional()),
    ):
        user = [] if lines else ["reset", "resetchannels", "on", ">PASSWORD", *acl_rules(prefix, queue_name)]
        lines.append((about, " ".join((*user, *(f"+{name}" for name in commands if name not in before)))))
        before = before or set(commands)
    return lines


def trials_of(*parts: str) -> list[str]:
    """Return the calls that try the commands of these parts, in an order in which they change nothing."""
    return [right.trial for right in RIGHTS if right.trial and set(parts) & set(right.parts)]


_COMMAND = re.compile(r"run the '([a-z|]+)' command")
_IN_SCRIPT = re.compile(r"(?:call to f_|script: )([0-9a-f]{40}).*?@?user_script: ?(\d+)", re.DOTALL)
_CALLED = re.compile(r"(?:call|write)\('([A-Z]+)'")
_KEY = re.compile(r"access (?:a key|(?:at least )?one of the keys)")
_CHANNEL = re.compile(r"publish to the channel|ACL failure in script: .*a channel")
#: Where an error sends its reader.
WHERE = 'ACL SETUSER; README, "Rights"'
#: Digest → lines of the script.
_lines: dict[str, list[str]] = {}


def know_script(sha: str, source: bytes) -> None:
    """Let ``advice_on`` find the command in a line of this script."""
    _lines[sha] = source.decode().splitlines()


def advice_on(text: str) -> str:
    """Return the advice to add to a server's error; empty if it is not about a right."""
    if named := _COMMAND.search(text):
        return _advice(named[1])
    if "can't run this command" in text:
        place = _IN_SCRIPT.search(text)
        lines = _lines.get(place[1], []) if place else []
        line = lines[int(place[2]) - 1] if place and int(place[2]) <= len(lines) else ""
        return _advice(*(command.lower() for command in _CALLED.findall(line)))
    if _KEY.search(text):
        return f"; the Redis user needs the keys of its queues, ~<prefix>:<queue>:* ({WHERE})"
    if _CHANNEL.search(text):
        return f"; the Redis user needs the channels of its queues, &<prefix>:<queue>:* ({WHERE})"
    return ""


def _advice(*commands: str) -> str:
    rights = " ".join(f"+{command}" for command in commands)
    return f"; the Redis user needs {rights or 'more commands'} ({WHERE})"


def is_lack_of_right(refused: RedisRefused) -> bool:
    """Return whether the user may not run the command, or the server does not have it."""
    return refused.code == "NOPERM" or "unknown command" in str(refused).lower()
