"""Removes secrets from texts of other programs, in all spellings that these may use. No IO."""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

REDACTED = "***"
#: Local servers take any key, so it is often a word such as ``none``, which results may contain.
SHORTEST_IN_RESULTS = 8
#: So much is read of a text that is quoted: messages show less.
_MAX_QUOTED = 20_000
#: The longest spelling of one character.
_LONGEST_SPELLING = 12


class Redactor:
    """Replaces the secrets it was given by ``***``. Its own ``repr`` shows none."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: a secret may be the beginning of another.
        found = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._longest = len(found[0]) if found else 0
        self._every = _pattern(found)
        self._long = _pattern([secret for secret in found if len(secret) >= SHORTEST_IN_RESULTS])

    def quoted(self, text: str) -> str:
        """Return another program's text for a message: one line, printable, without secrets."""
        # Invisible characters are removed first: they may split a secret.
        spaced = re.sub(r"\s+", " ", text[:_MAX_QUOTED])
        visible = "".join(character for character in spaced if character.isprintable())
        shown = _replaced(self._every, visible)
        if len(text) > _MAX_QUOTED:  # its last words may be the beginning of a secret
            shown = shown[: -self._longest * _LONGEST_SPELLING or None]
        return shown.strip()

    def is_in(self, text: str) -> bool:
        """Return whether the text holds a secret."""
        return self._long is not None and self._long.search(text) is not None

    def redacted(self, value: Any) -> Any:
        """Return a JSON value without secrets in its texts and keys; RecursionError if it is too deep."""
        if isinstance(value, str):
            return _replaced(self._long, value)
        if isinstance(value, dict):
            return {self.redacted(name): self.redacted(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.redacted(item) for item in value]
        return value


def _replaced(pattern: re.Pattern[str] | None, text: str) -> str:
    return text if pattern is None else pattern.sub(REDACTED, text)


def _pattern(secrets: list[str]) -> re.Pattern[str] | None:
    if not secrets:
        return None
    spelled = ("".join(map(_spellings, secret)) for secret in secrets)
    return re.compile("|".join(spelled), re.IGNORECASE)


def _spellings(character: str) -> str:
    """Return a pattern for a character as it is, and as URLs, JSON and HTML may write it."""
    forms = {
        character,
        "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass")),
        json.dumps(character)[1:-1],
        html.escape(character),
    }
    if ord(character) <= 0xFFFF:  # noqa: PLR2004 - above that JSON writes two halves, as json.dumps did
        forms.add(f"\\u{ord(character):04x}")
    if character == " ":
        forms.add("+")
    if character == "/":
        forms.add("\\/")
    return f"(?:{'|'.join(re.escape(form) for form in sorted(forms, key=len, reverse=True))})"
