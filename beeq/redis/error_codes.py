"""The code of an error reply, in every form that servers write. Text only.

Valkey, and Redis from 7 on, begin with the code: ``READONLY You can't write …``. Redis 6.2 does so for a
command that was sent by itself. An error inside a script has one of these forms, the first two where the
script has returned what ``redis.pcall`` gave it:

* ``@user_script: 45: -READONLY You can't …``: refused before the command ran
* ``WRONGTYPE Operation …``: refused by the command
* ``ERR Error running script (call to f_<digest>): @user_script:45: @user_script: 45: -READONLY You can't …``
* ``ERR Error running script (call to f_<digest>): @user_script:45: WRONGTYPE Operation …``

A missing right of a script's user has no code of its own in any version; the same command, sent by itself, is
refused with NOPERM.
"""

import re

#: beeq's own code: the server cannot be used in this way; the text is a sentence.
MISDIRECTED = "MISDIRECTED"
#: Replies that mean "not here": this is not, or no longer, the server to ask. A server that is cut off from
#: the others keeps replying CLUSTERDOWN, MASTERDOWN or NOREPLICAS; UNBLOCKED ends a blocking command where a
#: master has just become a replica. NOAUTH: the next connection gives its credentials.
NOT_HERE = (
    "READONLY",
    "MOVED",
    "ASK",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "UNBLOCKED",
    "NOAUTH",
    MISDIRECTED,
)
_NOT_LET_IN = "NOAUTH Authentication required"

_RUNNING = re.compile(r"\AERR Error running script \(call to [^)]*\): ")
#: The line of the script, stated by the script's engine and again by the call.
_PLACES = re.compile(r"\A(?:@?user_script: ?\d+: )+")
_CODE = re.compile(r"\A-?(?=[A-Z][A-Z0-9_]+(?: |\Z))")
#: How 6.2 and 7.0, and later versions, report a missing right of a script's user.
_MAY_NOT = re.compile(r"\A(?:ERR )?(?=The user executing the script can't |ACL failure in script: )")


def coded(text: str) -> str:
    """Return an error reply so that its first word is its code; ``ERR`` where it has none."""
    if text.startswith(_NOT_LET_IN):
        return f"{_NOT_LET_IN}: no password was given"
    core = _PLACES.sub("", _RUNNING.sub("", text))
    if _MAY_NOT.match(core):
        return _MAY_NOT.sub("NOPERM ", core)
    if _CODE.match(core):
        return _CODE.sub("", core)
    return text if text.startswith("ERR ") else f"ERR {text}"
