"""What the commands write: nothing of a stranger's reaches a terminal as it is."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from beeq_cli.console import safe
from tests.cli.command import ROOT, Beeq

EVIL = "a\x1b]0;owned\x07\r\n\u202eb\x9b2J\u2028"
SHOWN = "a\\x1b]0;owned\\x07\\r\\n\\u202eb\\x9b2J\\u2028"
WRITERS = {"click.echo", "click.secho", "click.echo_via_pager", "traceback.print_exc"}


def at_terminal(beeq: Beeq, *arguments: str) -> str:
    """Return what the command writes to its standard output, a terminal."""
    ours, theirs = pty.openpty()
    try:
        ran = subprocess.run(
            [*beeq.python, "-m", "beeq_cli", *arguments],
            cwd=beeq.folder,
            env=beeq.environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_id_is_escaped_at_a_terminal_only(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "--id", EVIL)
    assert at_terminal(beeq, "enqueue", queue_name, "--id", EVIL) == SHOWN + "\r\n"
    assert at_terminal(beeq, "cancel", EVIL, "--queue", queue_name) == SHOWN + "\r\n"
    ran = subprocess.run(
        [*beeq.python, "-m", "beeq_cli", "enqueue", queue_name, "--id", EVIL],
        cwd=beeq.folder, env=beeq.environment, capture_output=True, check=True,
    )  # fmt: skip
    assert ran.stdout == EVIL.encode() + b"\n"


def test_what_is_shown_of_a_job_obeys_nobody_at_a_terminal(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "--id", EVIL, f"name={EVIL}")
    for arguments in (("show", EVIL), ("show", EVIL, "--json"), ("jobs", queue_name), ("stats", queue_name)):
        lines = at_terminal(beeq, *arguments).removesuffix("\r\n").split("\r\n")
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]  # the command's own colours
        assert [line for line in plain if safe(line) != line] == []


def test_json_means_the_same_and_holds_nothing_unsafe(beeq: Beeq, queue_name: str) -> None:
    line = beeq.ok("enqueue", queue_name, "--id", EVIL, "--json")
    assert json.loads(line) == {"id": EVIL, "queue": queue_name}
    assert safe(line.rstrip("\n")) == line.rstrip("\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (EVIL,),
        (f"--{EVIL}",),
        ("stats", f"--{EVIL}"),
        ("stats", "-i", EVIL),
        ("cancel", EVIL),
        ("enqueue", "q", EVIL),
    ],
)
def test_a_complaint_repeats_no_control_character(beeq: Beeq, arguments: tuple[str, ...]) -> None:
    ran = beeq.run(*arguments)
    assert ran.returncode in (1, 2)
    assert "Error: " in ran.stderr
    assert [line for line in ran.stderr.split("\n") if safe(line) != line] == []


def test_an_argument_that_is_not_utf8_is_one_line(beeq: Beeq, queue_name: str) -> None:
    for arguments in (("enqueue", queue_name, "--id"), ("cancel", "--queue", queue_name), ("health",)):
        ran = subprocess.run(
            [*beeq.python, "-m", "beeq_cli", *arguments, b"\xff\x1b"],
            cwd=beeq.folder, env=beeq.environment, capture_output=True, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout) == (2, b"")
        assert b"Error: " in ran.stderr
        assert b"\x1b" not in ran.stderr


def writes_in(path: Path) -> set[str]:
    """Return the names of the functions by which a module writes to its terminal."""
    tree = ast.parse(path.read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = {name for name in called if name == "print" or name in WRITERS or name.startswith("sys.std")}
    return {name for name in found if not name.endswith(("isatty", "stdin.buffer.read"))}


def test_the_console_alone_writes() -> None:
    folder = ROOT / "cli/beeq_cli"
    writing = {path.relative_to(folder).as_posix(): writes_in(path) for path in folder.rglob("*.py")}
    of_console = writing.pop("console.py")
    assert of_console <= {"click.echo", "sys.stdout.buffer.write", "sys.stdout.buffer.flush"}
    assert {name: writes for name, writes in writing.items() if writes} == {}
