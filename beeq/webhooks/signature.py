"""The Standard Webhooks headers: a message's id, its time, and its signatures. No IO, no clock.

See https://www.standardwebhooks.com. Receivers check ``webhook-signature``, of which one signature must be by
their key, with any of its libraries, and drop repeated messages by ``webhook-id``. ``keys`` chooses the
keys that sign a message.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, no secret
PRIVATE_PREFIX = "whsk_"
_PUBLIC_PREFIX = "whpk_"
#: A header may hold printable ASCII characters unencoded, but then a ``%`` could be one of the encoding's.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_SEED_BYTES = 32


class SigningKey(Protocol):
    """A key that signs messages."""

    def signature(self, text: bytes) -> str:
        """Return the signature of ``text`` as ``webhook-signature`` has it."""

    def of_receiver(self) -> str:
        """Return the key that the receiver verifies with, as Standard Webhooks writes it."""


class SharedSecret:
    """A secret that sender and receiver share: HMAC-SHA256, ``v1``."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "SharedSecret(…)"

    def signature(self, text: bytes) -> str:
        """Return the signature of ``text``."""
        return f"v1,{_base64(hmac.digest(self._secret, text, hashlib.sha256))}"

    def of_receiver(self) -> str:
        """Return the secret itself: ``whsec_`` and base64."""
        return SECRET_PREFIX + _base64(self._secret)


class PrivateKey:
    """A private key whose public half the receiver has: ed25519, ``v1a``.

    ``private`` is its seed of 32 bytes, which the public key may follow. Raises ValueError if it is neither,
    and ImportError, which names the extra, if the package ``cryptography`` is missing.
    """

    def __init__(self, private: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImportError(
                "ed25519 signatures (v1a) need the package cryptography: pip install 'beequeue[ed25519]'"
            ) from error
        seed, public = private[:_SEED_BYTES], private[_SEED_BYTES:]
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()
        if public not in (b"", self._public):
            raise ValueError("the public key is another one's")

    def __repr__(self) -> str:
        return "PrivateKey(…)"

    def signature(self, text: bytes) -> str:
        """Return the signature of ``text``."""
        return f"v1a,{_base64(self._key.sign(text))}"

    def of_receiver(self) -> str:
        """Return the public key: ``whpk_`` and base64."""
        return _PUBLIC_PREFIX + _base64(self._public)


def webhook_signature(keys: Iterable[SigningKey], sent_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of ``webhook-signature`` for one attempt: a signature by each key."""
    text = f"{sent_id}.{timestamp_s}.".encode() + body
    return " ".join(key.signature(text) for key in keys)


def message_id(job_id: str) -> str:
    """Return ``job_id`` as the value of ``webhook-id``, the same on every attempt.

    Percent-decoding gives the job's id back, so no two jobs share one; and it holds no ``.``, which ends the
    id in the text that is signed. UUIDs and the numbers of counters stay as they are.
    """
    is_plain = job_id == job_id.strip(" ") and all(" " <= character <= "~" for character in job_id)
    safe = _PLAIN if is_plain else _PLAIN.replace(" ", "")
    return quote(job_id, safe=safe, errors="surrogatepass").replace(".", "%2E")


def decoded(text: str, prefix: str) -> bytes | None:
    """Return the bytes of a key that begins with ``prefix``, the rest being base64; None if it is not one."""
    encoded = text.removeprefix(prefix)
    try:
        # Some generators leave out the padding; receivers' libraries accept that too.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if key and encoded != text else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
