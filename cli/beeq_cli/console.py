"""Lines for a person, on standard error, safe to show; data, on standard output."""

import re
import sys

import click

#: Control characters of both sets, and Unicode's own line breaks and changes of direction.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """Return ``text`` as one line that cannot move a cursor, ring a bell or forge another line."""
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _NAMES.get(character, f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}")  # noqa: PLR2004 - one byte


def say(line: str) -> None:
    """Say one line on standard error."""
    click.echo(escaped(line), err=True)


def complain(message: str) -> None:
    """Say what went wrong, on standard error."""
    say(f"Error: {message}")


def print_bytes(line: bytes) -> None:
    """Write one line of data to standard output, at once."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
