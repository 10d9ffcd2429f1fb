"""Checks the Redis user's rights when a queue opens, and again when a worker begins: one call each.

Without it, a missing right would show when its command is first needed, which may be weeks later.
"""

from beeq.errors import RedisRefused
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.error_codes import coded
from beeq.redis.pipeline import Pipeline
from beeq.redis.rights import RIGHTS, WHERE, Right, is_lack_of_right, trials_of

_OF_TRIAL = {right.trial: right for right in RIGHTS}
#: The TTL of the key on which commands are tried, in case the user may not delete it.
_LIFETIME_MS = 1000


async def lack_of_rights(
    pipeline: Pipeline, keys: Keys, *parts: str, beyond: tuple[str, ...] = ()
) -> RedisRefused | None:
    """Return the rights that these parts lack, as one error, or None; not those of ``beyond``.

    Raises RedisUnavailable.
    """
    known = set(trials_of(*beyond))
    commands = [(trial,) for trial in trials_of(*parts) if trial not in known]
    try:
        failed = await scripts.try_commands(pipeline, keys, lifetime_ms=_LIFETIME_MS, commands=commands)
    except RedisRefused as error:
        return _of_keys(error, keys) if is_lack_of_right(error) else None
    lacking: dict[Right, None] = {}
    for words, text in zip(failed[::2], failed[1::2], strict=True):
        refusal = RedisRefused(coded(text.decode(errors="replace")))
        if is_lack_of_right(refusal) and "channel" not in str(refusal):
            lacking[_OF_TRIAL[words.decode()]] = None  # channels are checked by subscribing to them
    if not lacking:
        return None
    named = ", ".join(f"{right.command.upper()} ({right.why})" for right in lacking)
    needed = " ".join(f"+{right.command}" for right in lacking)
    return RedisRefused(f"NOPERM the Redis user may not run {named}: it needs {needed} ({WHERE})")


def _of_keys(refusal: RedisRefused, keys: Keys) -> RedisRefused:
    """Return the refusal of the whole call, with the keys' names if it was refused because of them."""
    if " key" not in str(refusal):
        return refusal
    return RedisRefused(f"NOPERM the Redis user may not use the keys ~{keys.to_key('*')} ({WHERE})")
