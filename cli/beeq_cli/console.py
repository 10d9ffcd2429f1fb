"""The commands' output: lines for a person on standard error, data on standard output.

Jobs' ids, results and errors are untrusted texts. Everything that may reach a terminal is escaped here.
"""

import json
import sys
from typing import Any

import click


def safe(text: str) -> str:
    """Return ``text`` as one line that cannot move a cursor, ring a bell or forge another line."""
    if text.isprintable():
        return text
    from beeq.errors import escaped  # noqa: PLC0415 - loads the engine

    return escaped(text)


def say(line: str) -> None:
    """Write one line to standard error."""
    click.echo(safe(line), err=True)


def complain(message: str) -> None:
    """Write an error to standard error; in a log of JSON as one of its lines."""
    setup = sys.modules.get("beeq.logs.setup")
    line = None if setup is None else setup.json_line(message)
    if line is None:
        say(f"Error: {message}")
    else:
        click.echo(line, err=True)


def print_line(line: str = "") -> None:
    """Write one line for a person to standard output."""
    click.echo(safe(line))


def print_id(text: str) -> None:
    """Write an id as one line: as it is for a script, escaped for a terminal."""
    if sys.stdout.isatty():
        print_line(text)
    else:
        _write(text.encode())


def print_json(value: Any) -> None:
    """Write one value as one line of JSON, at once."""
    _write(safe_json(value).encode())


def safe_json(value: Any) -> str:
    """Return a value's JSON; what is unsafe at a terminal is escaped, as JSON allows.

    Deeper nesting is replaced by a note.
    """
    from beeq.errors import UNSAFE  # noqa: PLC0415 - loads the engine
    from beeq.protocol.codec import dumps_shown  # noqa: PLC0415 - loads the engine

    return UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], dumps_shown(value).decode())


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
