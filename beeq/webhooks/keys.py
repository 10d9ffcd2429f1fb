"""The keys that sign a message: by default each endpoint has a key of its own. No IO.

With one secret for all receivers each of them could forge messages to all others, and a message to one would
be valid at another. So the secret that is configured is a master, which no receiver is given. The key of an
endpoint is derived from it (HKDF-SHA256, RFC 5869: no salt, the info below, 32 bytes) and from the endpoint:
scheme, host, port and path, since many receivers may share a host, and no query. The info, in ASCII::

    beeq webhook v1 https://hooks.example.com/films       the secret of an HMAC-SHA256
    beeq webhook v1a https://hooks.example.com/films      the seed of an ed25519 key
    beeq webhook v1a *                                    the same where all receivers share one key

The master gives every key, so a secret that receivers have had must not become one. Several masters, the
newest first, sign with a key each: so a master is replaced. Keys of single endpoints may be configured by
hand; these replace derived ones.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from beeq.http_client.guard import WebhookRefused
from beeq.webhooks.own_headers import JSONPairs, json_pairs
from beeq.webhooks.signature import (
    PRIVATE_PREFIX,
    SECRET_PREFIX,
    PrivateKey,
    SharedSecret,
    SigningKey,
    decoded,
)
from beeq.webhooks.urls import Target, endpoint_of, target_of

SECRET_SETTING = "BEEQ_WEBHOOK_SECRET"  # noqa: S105 - its name
USE_SETTING = "BEEQ_WEBHOOK_KEYS"
SCHEMES_SETTING = "BEEQ_WEBHOOK_SIGNATURES"
MAPPED_SETTING = "BEEQ_WEBHOOK_ENDPOINT_KEYS"

#: ``derived``: a key for each endpoint. ``shared``: one for all, the secret itself.
Use = Literal["derived", "shared"]
DEFAULT_USE: Use = "derived"
#: ``v1``: HMAC-SHA256. ``v1a``: ed25519.
Scheme = Literal["v1", "v1a"]
DEFAULT_SCHEMES: tuple[Scheme, ...] = ("v1",)
#: Standard Webhooks' minimum; a receiver could guess a shorter master from its own key.
ADVISED_BYTES = 24
#: More would only make a longer header: one key in use and one that is being replaced are enough.
_MOST_KEYS = 8
_ANY_ENDPOINT = "*"
_BAD_SECRET = f"{SECRET_SETTING} must be '{SECRET_PREFIX}' followed by base64, or several of these"
_BAD_MAPPED = (
    f"{MAPPED_SETTING} must be a JSON object:"
    f" URL → '{SECRET_PREFIX}…' or '{PRIVATE_PREFIX}…', or a list of these"
)


class EndpointKeys:
    """The keys that sign the messages to each endpoint. Its ``repr`` shows none.

    Attributes:
        use: whether endpoints without a configured key have derived keys or share one.
        shortest_secret: bytes of the shortest master; None without one.
    """

    def __init__(
        self,
        masters: Sequence[bytes] = (),
        *,
        use: Use = DEFAULT_USE,
        schemes: Sequence[Scheme] = DEFAULT_SCHEMES,
        mapped: Mapping[str, Sequence[SigningKey]] | None = None,
    ) -> None:
        self._masters = masters
        self.use = use
        self._schemes = schemes
        self._mapped = mapped or {}
        self.shortest_secret = min(map(len, masters), default=None)

    def __repr__(self) -> str:
        return f"EndpointKeys({self.use}, {len(self._masters)} masters, {len(self._mapped)} endpoints)"

    @classmethod
    def parse(
        cls,
        secret: str | None,
        *,
        use: str | None = None,
        schemes: str | None = None,
        mapped: str | None = None,
    ) -> "EndpointKeys":
        """Read the settings; None is an absent one.

        Raises ValueError if one is invalid; the message names it and holds no secret.
        """
        return cls(
            () if secret is None else _masters(secret),
            use=_use(use),
            schemes=_schemes(schemes),
            mapped={} if mapped is None else _mapped(mapped),
        )

    def of(self, target: Target) -> Sequence[SigningKey]:
        """Return the keys for a message to ``target``, the newest first; none: it is sent unsigned."""
        endpoint = endpoint_of(target)
        if (own := self._mapped.get(endpoint)) is not None:
            return own
        return [self._key(master, scheme, endpoint) for scheme in self._schemes for master in self._masters]

    def public_of(self, target: Target) -> SigningKey | None:
        """Return the newest ed25519 key for ``target``, even if messages are not signed with it yet."""
        endpoint = endpoint_of(target)
        if (own := self._mapped.get(endpoint)) is not None:
            return next((key for key in own if isinstance(key, PrivateKey)), None)
        return next((self._key(master, "v1a", endpoint) for master in self._masters), None)

    def is_shared(self, target: Target) -> bool:
        """Return whether all receivers have the key for ``target``."""
        return self.use == "shared" and endpoint_of(target) not in self._mapped

    def _key(self, master: bytes, scheme: Scheme, endpoint: str) -> SigningKey:
        if scheme == "v1a":
            return PrivateKey(_derived(master, scheme, endpoint if self.use == "derived" else _ANY_ENDPOINT))
        return SharedSecret(_derived(master, scheme, endpoint) if self.use == "derived" else master)


def _derived(master: bytes, scheme: Scheme, endpoint: str) -> bytes:
    """Return 32 bytes by HKDF-SHA256 without salt: one block, so the first round is all of it."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), master, hashlib.sha256)
    return hmac.digest(
        extracted, f"beeq webhook {scheme} {endpoint}".encode("ascii") + b"\x01", hashlib.sha256
    )


def _masters(text: str) -> list[bytes]:
    masters = [decoded(word, SECRET_PREFIX) for word in _words(text)]
    valid = list(dict.fromkeys(master for master in masters if master is not None))
    if not valid or None in masters or len(masters) > _MOST_KEYS:
        raise ValueError(_BAD_SECRET)
    return valid


def _use(text: str | None) -> Use:
    known: tuple[Use, ...] = get_args(Use)
    for one in known:
        if text == one:
            return one
    if not text:
        return DEFAULT_USE
    raise ValueError(f"{USE_SETTING} must be {' or '.join(known)}")


def _schemes(text: str | None) -> Sequence[Scheme]:
    if not text:
        return DEFAULT_SCHEMES
    words, known = _words(text), get_args(Scheme)
    schemes: list[Scheme] = [one for one in known if one in words]
    if not words or not set(words) <= set(known):
        raise ValueError(f"{SCHEMES_SETTING} must be {', '.join(known)}, or both")
    if "v1a" in schemes:
        try:
            PrivateKey(bytes(32))
        except ImportError as error:
            raise ValueError(f"{SCHEMES_SETTING}: {error}") from None
    return schemes


def _mapped(text: str) -> dict[str, Sequence[SigningKey]]:
    found: dict[str, Sequence[SigningKey]] = {}
    for url, given in json_pairs(text, _BAD_MAPPED):
        endpoint = _endpoint(url)
        if endpoint in found:
            raise ValueError(f"{MAPPED_SETTING} names an endpoint twice")
        texts = given if isinstance(given, list) and not isinstance(given, JSONPairs) else [given]
        if not 0 < len(texts) <= _MOST_KEYS:
            raise ValueError(f"{MAPPED_SETTING}: an endpoint has 1 to {_MOST_KEYS} keys")
        found[endpoint] = [_mapped_key(one) for one in texts]
    return found


def _endpoint(url: str) -> str:
    try:
        target = target_of(url)
    except WebhookRefused:
        target = None
    if target is None or target.query or target.fragment:
        # Raised outside the handler, and without the URL: it may hold a password.
        raise ValueError(
            f"{MAPPED_SETTING}: an endpoint must be like https://hooks.example.com/films,"
            " without user, query or fragment"
        )
    return endpoint_of(target)


def _mapped_key(given: Any) -> SigningKey:
    text = given.strip() if isinstance(given, str) else ""
    if (secret := decoded(text, SECRET_PREFIX)) is not None:
        return SharedSecret(secret)
    private, fault = decoded(text, PRIVATE_PREFIX), _BAD_MAPPED
    if private is not None:
        try:
            return PrivateKey(private)
        except ImportError as error:
            fault = f"{MAPPED_SETTING}: {error}"
        except ValueError:
            fault = f"{MAPPED_SETTING}: '{PRIVATE_PREFIX}' must be followed by the base64 of an ed25519 key"
    raise ValueError(fault)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]
