"""Reads the body of a refusal: the fields of the request that it is about, or the prompt. No IO.

Servers name a field as ``param``, in FastAPI's ``loc``, as a key of ``errors``, or only in the sentence. A
word such as ``style`` in a sentence is a field's name if it is quoted, or if the sentence is about something
unsupported.
"""

import html
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from beeq.ai.bodies.answers import json_of

#: A message with a role that the model's template does not have; a field's name here, though it is in a list.
SYSTEM_ROLE = "system role"
_MAX_TEXT = 4000
#: How many of an error's first characters and values are searched: it may be as long as a picture.
_MAX_SEARCHED = 64 * 1024
_END = object()
_MAX_LEVELS = 8
#: The members that name fields, by the libraries that check requests.
_NAMING = frozenset((
    "param", "params", "parameter", "parameters", "field", "fields", "loc", "path", "pointer", "instancepath",
    "property", "key", "keys", "argument", "additionalproperty", "unsupported_params", "invalid_params",
))  # fmt: skip
_PROMPT = frozenset(("prompt", "input"))
_CONTENT = re.compile(
    r"content.?polic|content.?filter|content.?management|moderation|responsible.?ai|safety|policy|prohibited|"
    r"inappropriate|nsfw|violat|harmful|copyright|jailbreak",
    re.IGNORECASE,
)
_REFUSING = re.compile(
    r"un(?:known|supported|recogni[sz]ed|expected)|\bnot\b|n't\b|\bcannot\b|invalid|\bextra\b|\badditional\b|"
    r"\bmust\b|\bonly\b|\bno such\b|deprecated|illegal|\balternate\b",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"messages\W{0,3}\d{1,3}\W{0,3}role|\bsystem['\"`]?[\s_-]{0,3}(?:role|message|prompt|instruction)|"
    r"\broles?\b[^.]{0,60}\bsystem\b|roles must alternate|"
    r"developer[ _]?(?:instruction|message|role)",
    re.IGNORECASE,
)
_JSON_MODE = re.compile(
    r"json[ _-]?(?:mode|object|schema)|structured.?output|response.?format", re.IGNORECASE
)
_OF_FIELD = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported.?param|extra|additional|not permitted|cannot find|"
    r"only the default|deprecated|not supported|does not support param|no such|\binstead\b",
    re.IGNORECASE,
)
#: How many names are read from another program's text.
_MAX_NAMES = 64
_JSON_WORDS = ("jsonmode", "jsonobject", "jsonschema", "structuredoutput")
#: Texts are compared by these characters, without quotes, spaces and escapes.
_WORD = re.compile(r"[^\W_]+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
#: A text that was escaped again by each program that passed it on.
_MAX_ESCAPES = 3
#: So many words of a job in a row, in a message, count as a quote from that job.
_ROW = 3
#: Codes for a lack of credit; another attempt does not help.
_NO_CREDIT = re.compile(
    r"\b(?:insufficient_quota|billing_not_active|billing_hard_limit_reached|insufficient_(?:balance|credits?|funds)|"
    r"exceeded_current_quota_error|credit_balance_too_low|payment_required)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Objection:
    """What a provider objects to in a request: the fields that it names, and its text."""

    names: tuple[str, ...]
    text: str

    @property
    def is_of_field(self) -> bool:
        """Whether the field is not taken with any value; else one with another value may be."""
        return _OF_FIELD.search(self.text) is not None

    def without(self, values: Iterable[str]) -> "Objection":
        """Return the objection without a job's ``values``: the server's own words.

        A server may repeat what was sent: with other spaces, quotes, escapes or letters, or a part of it.
        """
        kept, text = list(self.names), _plain(self.text)
        for value in values:
            words = _words(_plain(value))
            kept = [name for name in kept if not _has_row(_words(_plain(name)), words)]
            text = _without_rows(text, words)
        return Objection(tuple(kept), text)

    def fields(self, sent: Iterable[str]) -> list[str]:
        """Return those of the fields that were ``sent`` which are refused; none if the prompt is."""
        if _CONTENT.search(self.text):
            return []
        sent = list(sent)
        if found := [field for field in sent if self._is_named(field)]:
            return found
        if any(name in _PROMPT for name in self.names):
            return []
        quoted = [field for field in sent if _quoted(field, self.text)]
        if quoted or not _REFUSING.search(self.text):
            return quoted
        # If a refusal names another field, other words in it are not field names.
        is_free = not any(name for name in self.names if not name.startswith("messages"))
        return [field for field in sent if _is_meant(field, self.text)] if is_free else []

    def _is_named(self, field: str) -> bool:
        if field == SYSTEM_ROLE:
            return any(re.fullmatch(r"messages\W{0,3}\d+\W{0,3}role", name) for name in self.names)
        return any(re.match(rf"{re.escape(field)}(?!\w)", name) for name in self.names)


def names_field(value: str, field: str) -> bool:
    """Return whether a job's value holds the name of a field: a server that quotes it repeats that name."""
    plain = _squashed(_plain(value))
    if field == SYSTEM_ROLE:
        return any(word in plain for word in ("system", "role", "developer"))
    if field == "response_format" and any(word in plain for word in _JSON_WORDS):
        return True
    return _squashed(field) in plain


def repeats(text: str, value: str) -> bool:
    """Return whether a text holds a value, in any spelling."""
    squashed = _squashed(_plain(value))
    return bool(squashed) and squashed in _squashed(_plain(text))


def _plain(text: str) -> str:
    """Return a text without escapes, accents and other forms of letters; what it says of fields stays."""
    for _ in range(_MAX_ESCAPES):
        before = text
        text = html.unescape(unquote(_ESCAPED.sub(_unescaped, text)))
        if text == before:
            break
    marked = unicodedata.normalize("NFKD", text)
    return "".join(mark for mark in marked if unicodedata.category(mark) not in ("Mn", "Cf"))


def _unescaped(found: re.Match[str]) -> str:
    code, byte, mark = found.groups()
    if code or byte:
        return chr(int(code or byte, 16))
    return " " if mark in "nrtbfv" else str(mark)


def _squashed(text: str) -> str:
    return "".join(_WORD.findall(text.casefold()))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _has_row(text: list[str], words: list[str]) -> bool:
    """Return whether these words are in a text, all of them in a row, or a piece of them."""
    return bool(words) and " ".join(words) in " ".join(text)


def _without_rows(text: str, words: list[str]) -> str:
    """Return a text without these words in a row, or ``_ROW`` of them."""
    size = min(_ROW, len(words))
    if not size:
        return text
    found = [*_WORD.finditer(text)]
    said = [word[0].casefold() for word in found]
    rows: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(said) - size + 1):
        rows.setdefault(tuple(said[at : at + size]), []).append(at)
    taken: set[int] = set()
    for at in range(len(words) - size + 1):
        for begin in rows.get(tuple(words[at : at + size]), ()):
            taken.update(range(begin, begin + size))
    kept, place = [], 0
    for at in sorted(taken):
        kept.append(text[place : found[at].start()])
        place = found[at].end()
    return "".join([*kept, text[place:]])


def refusal_in(body: bytes, quote: Callable[[str], str]) -> Objection:
    """Read the body of a refusal; ``quote`` makes its text free of secrets."""
    try:
        value = json_of(body)
    except ValueError:
        return Objection((), quote(body.decode(errors="replace"))[:_MAX_TEXT])
    found = list(_walk(value))
    names = tuple(itertools.islice((name for name, is_name in found if is_name), _MAX_NAMES))
    return Objection(names, quote(" ".join(text for text, _ in found))[:_MAX_TEXT])


def is_no_credit(error: Any) -> bool:
    """Return whether an error, a text or a JSON value, says that nothing is left to pay with.

    Only the first 64 Ki characters and values are read.
    """
    return _NO_CREDIT.search("\n".join(_first_texts(error))) is not None


def _first_texts(error: Any) -> Iterator[str]:
    """Yield the texts and keys in an error of any depth, up to ``_MAX_SEARCHED``."""
    left = _MAX_SEARCHED
    levels: list[Iterator[Any]] = [iter((error,))]
    while levels and left > 0:
        value = next(levels[-1], _END)
        left -= 1
        if value is _END:
            levels.pop()
        elif isinstance(value, str):
            yield value[:left]
            left -= len(value)
        elif isinstance(value, dict):
            levels.append(itertools.chain.from_iterable(value.items()))
        elif isinstance(value, list):
            levels.append(iter(value))


def _walk(value: Any, level: int = 0) -> Iterator[tuple[str, bool]]:
    """Yield the texts in an error, and whether each is the name of a field."""
    if isinstance(value, str):
        yield value, False
    elif isinstance(value, list) and level < _MAX_LEVELS:
        for item in value:
            yield from _walk(item, level + 1)
    elif isinstance(value, dict) and level < _MAX_LEVELS:
        for key, item in value.items():
            if key.lower() in _NAMING:
                yield from ((name, True) for name in _names(key.lower(), item))
            elif key == "errors" and isinstance(item, dict):
                yield from ((name, True) for name in item)
                yield from _walk(item, level + 1)
            elif key not in ("input", "ctx", "url"):  # FastAPI repeats there what was sent
                yield from _walk(item, level + 1)


def _names(key: str, value: Any) -> Iterator[str]:
    """Yield the names that a member gives: one, a path, or several."""
    if isinstance(value, str):
        yield re.sub(r"^[#/$.]+", "", value).removeprefix("body.").removeprefix("body/")
    elif isinstance(value, list) and key in ("loc", "path"):
        yield ".".join(
            str(part) for part in value if isinstance(part, str | int) and part not in ("body", "query")
        )
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def _quoted(field: str, text: str) -> bool:
    if field == SYSTEM_ROLE:
        return False
    name = re.escape(field)
    return re.search(rf"['\"`‘“]{name}['\"`’”.\[:=]|(?<![\w.]){name}(?::\s|=)", text) is not None


def _is_meant(field: str, text: str) -> bool:
    """Return whether a sentence that refuses something is about this field, which has no quotes there."""
    if field == SYSTEM_ROLE:
        return _ROLE.search(text) is not None
    if field == "response_format" and _JSON_MODE.search(text):
        return True
    words = re.escape(field).replace("_", "[ _]?")
    return len(field) > 1 and re.search(rf"(?<![\w]){words}(?![\w])", text, re.IGNORECASE) is not None
