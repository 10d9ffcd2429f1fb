"""A job's data from the words of a command line: ``key=text``, ``key:=json``, ``@file.json``, ``-``.

A ValueError says what is wrong with a word, a file, or its JSON.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from beeq.protocol.codec import loads


def read_fields(words: Iterable[str], *, read_stdin: Callable[[], bytes]) -> dict[str, Any]:
    """Return the object that the words make up, a later word overriding what came before it."""
    data: dict[str, Any] = {}
    has_read_stdin = False
    for word in words:
        if word == "-":
            if has_read_stdin:
                raise ValueError("standard input can be read only once")
            has_read_stdin = True
            data |= parse_object(read_stdin(), "standard input")
        elif word.startswith("@"):
            data |= parse_object(_read(word[1:]), word[1:])
        else:
            key, value = _field(word)
            data[key] = value
    return data


def _field(word: str) -> tuple[str, Any]:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{word!a} is not valid UTF-8") from None
    name, separator, text = word.partition("=")
    is_json = name.endswith(":")
    key = name.removesuffix(":") if is_json else name
    if not separator or not key:
        raise ValueError(f"invalid field {word!r}; write key=text, key:=json, @file.json or -")
    return (key, _json(text.encode(), key)) if is_json else (key, text)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path!r} cannot be read: {reason}") from None


def parse_object(text: bytes, source: str) -> dict[str, Any]:
    """Return the JSON object that ``text`` is; an error begins with ``source``, if that is not empty."""
    data = _json(text.removeprefix(b"\xef\xbb\xbf"), source)
    if not isinstance(data, dict):
        raise ValueError(f"{source}: not a JSON object" if source else "not a JSON object")  # noqa: TRY004 - the text is wrong, not a type
    return data


def _json(text: bytes, source: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        raise ValueError(f"{source}: not JSON: {error}" if source else f"not JSON: {error}") from None
