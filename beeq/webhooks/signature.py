"""The Standard Webhooks headers: a message's id, its time, and its signature. No IO, no clock.

See https://www.standardwebhooks.com. Receivers check ``webhook-signature`` with any of its libraries, and
drop repeated messages by ``webhook-id``.
"""

import base64
import binascii
import hashlib
import hmac
from urllib.parse import quote

_SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, no secret
#: A header may hold printable ASCII characters unencoded.
_PLAIN = "".join(map(chr, range(0x20, 0x7F)))
#: If an id needs encoding, its ``%`` are encoded too, so that it can be decoded.
_SAFE = _PLAIN.replace("%", "").replace(" ", "")


class Signer:
    """Signs messages with the secret that the sender shares with its receivers: ``whsec_`` and base64.

    Raises ValueError if the secret is invalid; the message names the setting and never holds the secret.
    """

    def __init__(self, secret: str) -> None:
        self._key = _decode(secret.strip())

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """Return the value of ``webhook-signature`` for one attempt."""
        signed = f"{message_id}.{timestamp_s}.".encode() + body
        digest = hmac.digest(self._key, signed, hashlib.sha256)
        return f"v1,{base64.b64encode(digest).decode()}"


def message_id(job_id: str) -> str:
    """Return ``job_id`` as the value of ``webhook-id``, the same on every attempt.

    An id of printable ASCII stays as it is. Any other is percent-encoded, with every ``%`` in it.
    """
    if job_id == job_id.strip(" ") and all(character in _PLAIN for character in job_id):
        return job_id
    return quote(job_id, safe=_SAFE, errors="surrogatepass")


def _decode(secret: str) -> bytes:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        # Some generators leave out the padding; receivers' libraries accept that too.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key or encoded == secret:
        # "from None": the cause's traceback would show the secret where locals are logged.
        raise ValueError("BEEQ_WEBHOOK_SECRET must be 'whsec_' followed by base64") from None
    return key
