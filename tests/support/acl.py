"""The Redis user that beeq's URLs name in the tests: the default one, or one with exactly the documented rights.

Its rights are for all queues of the prefix ``bq``, and of the prefixes that tests choose. The tests' own
clients stay the default user, and so does Node, which needs INFO.
"""

from __future__ import annotations

from beeq.redis.rights import PARTS, acl_rules, needed_by, optional

NAME, PASSWORD = "beeq", "few-rights"


class UserOfUrls:
    """Chosen once a session, by ``pytest --acl``."""

    is_limited = False

    @classmethod
    def credentials(cls) -> str:
        """Return what a URL has before its host."""
        return f"{NAME}:{PASSWORD}@" if cls.is_limited else ""

    @classmethod
    def server_options(cls) -> list[str]:
        """Return what a server has to be started with."""
        if not cls.is_limited:
            return []
        commands = [*needed_by(*PARTS), *optional()]
        rules = dict.fromkeys((*acl_rules("bq", "*", *commands), *acl_rules("test-*", "*")))
        return ["--user", NAME, "resetchannels", "on", f">{PASSWORD}", *rules]
