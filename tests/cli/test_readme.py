"""The README is true: its programs print what it says, its commands run, its tables match the code."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from beeq.jobs import JOB_TYPES, BaseJob, MediaParameters
from beeq.protocol import keys
from beeq.settings import Settings
from benchmarks.report import README_TABLES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PROTOCOL_PAGE = (ROOT / "beeq" / "protocol" / "README.md").read_text()
#: Each Python program, with what the README says it prints.
PROGRAMS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))


def shell_lines(section: str) -> list[str]:
    return [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]


QUICK_START = shell_lines(SECTIONS["Quick start"])
COMMANDS = shell_lines(SECTIONS["Commands"])


def run(
    command: list[str] | str, cwd: Path, *, timeout: int = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BEEQ_", "REDIS_"))}
    python_path = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=cwd,
        env={**clean, "PYTHONPATH": python_path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_prints_what_the_readme_says(program, printed, tmp_path, warm_start):
    (tmp_path / "program.py").write_text(program)
    ran = run([*warm_start.python, "program.py"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert printed, "the README does not say what this program prints"
    assert ran.stdout == printed


def test_each_command_runs_in_an_empty_folder(tmp_path, warm_start):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    beeq = binaries / "beeq"
    beeq.write_text(f'#!/bin/sh\nexec {shlex.join(warm_start.python)} -m beeq_cli "$@"\n')
    beeq.chmod(0o755)
    folder = tmp_path / "empty"
    folder.mkdir()
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        ran = run(command, folder, PATH=f"{binaries}:{os.environ['PATH']}")
        assert ran.returncode == 0, f"{command}: {ran.stderr}"


def test_the_quick_starts_test_command_is_the_one_ci_runs():
    assert len(QUICK_START) == 3
    assert "pip install -q '.[all]'" in QUICK_START[0]
    assert "beeq demo" in QUICK_START[1]
    (test_command,) = [line for line in QUICK_START if "pytest" in line]
    assert "pip install -q -e '.[all,dev]'" in test_command
    script = (ROOT / ".ci" / "run").read_text()
    reading = re.search(r"^test_command=.*$", script, re.MULTILINE)
    assert reading is not None
    read = run(f'{reading[0]}; printf %s "$test_command"', ROOT)
    assert read.stdout == test_command


def test_a_newcomer_sees_what_the_first_steps_say(bare_beeq):
    steps = SECTIONS["Quick start"].partition("A tour of everything")[0]
    (jobs,) = re.findall(r"```py\n(.*?)```", steps, re.DOTALL)
    (work, enqueue) = re.findall(r"```console\n\$ beeq (.*?)\n(.*?)```", steps, re.DOTALL)
    (bare_beeq.folder / "jobs.py").write_text(jobs)
    worker = bare_beeq.start(*work[0].split())
    worker.until("started")
    assert without_times(worker.seen) == without_times(work[1].splitlines())
    enqueued = subprocess.run(
        [*bare_beeq.python, "-m", "beeq_cli", *enqueue[0].split()],
        cwd=bare_beeq.folder,
        env=bare_beeq.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # as on a terminal
        text=True,
        timeout=60,
        check=True,
    )
    assert enqueued.stdout == enqueue[1]
    worker.signal(signal.SIGINT)
    assert worker.ended() == 0


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"^[0-9-]{10}[T ][0-9:.,]+Z? ", "", line) for line in lines]


@pytest.mark.timeout(600)
@pytest.mark.external
def test_the_demo_command_works_in_a_copy_of_the_checkout(tmp_path):
    copy = tmp_path / "checkout"
    listed = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    ran = run(QUICK_START[1], copy, timeout=580, PYTHONPATH="")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in ("script", "frame-extract", "video-stitch", "assembly", "webhook"):
        assert re.search(f"^{name} ", ran.stdout, re.MULTILINE), name


def test_the_first_screen_claims_no_more_than_was_measured():
    result = json.loads((ROOT / "benchmarks" / "results" / "bench.json").read_text())
    claimed = [float(number) for number in re.findall(r"\d+\.\d", README.partition("worked off ")[2])[:3]]
    drains = [row["median"] for row in result["measurements"] if row["kind"] == "drain"]
    measured = [row["beeq"] / row["bee-queue"] for row in drains]
    assert claimed == [math.floor(ratio * 10) / 10 for ratio in measured], "rounded down, never up"


@pytest.mark.parametrize(("mark", "name", "tabled"), README_TABLES)
def test_each_table_of_results_is_the_printed_one(mark: str, name: str, tabled: Callable[[Any], str]):
    result = json.loads((ROOT / "benchmarks" / "results" / name).read_text())
    assert f"<!-- {mark} -->\n{tabled(result)}\n<!-- /{mark} -->" in README


def test_the_settings_table_names_each_setting_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| `?\"?([^|`\"]*)\"?`? \|", SECTIONS["Settings"], re.MULTILINE))
    assert rows == {setting.name: str(setting.default) for setting in fields(Settings)}


#: Queue, type, and the fields that go in, of each row of the table of built-in jobs.
BUILT_IN_ROWS = re.findall(r"^\| `([a-z-]+)` \| (?:`([a-z-]+)`)? ?\| (`[^|]+) \|", README, re.MULTILINE)


@pytest.mark.parametrize("queue", JOB_TYPES)
def test_the_jobs_table_has_each_type_and_field(queue):
    rows = [(kind, what_goes_in) for name, kind, what_goes_in in BUILT_IN_ROWS if name == queue]
    model = JOB_TYPES[queue].model
    own = {name: field for name, field in model.model_fields.items() if name not in BaseJob.model_fields}
    names = {field.alias for name, field in own.items() if name != "type"}
    for _, what_goes_in in rows:
        assert set(re.findall(r"`([a-zA-Z]{5,})`", what_goes_in)) == names
    kinds = get_args(own["type"].annotation) if "type" in own else ("",)
    assert [kind for kind, _ in rows] == list(kinds)


def test_the_parameters_table_names_each_of_media_jobs():
    table = README.partition("| `parameters` | for |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert "musicTrack" in named
    assert {field.alias for field in MediaParameters.model_fields.values()} <= named


def test_the_three_key_tables_agree():
    kinds = "string|hash|list|set|sorted set|stream|channel"
    tables = [
        re.findall(rf"^\| `([\w:]+)` \| ({kinds}) \|", README, re.MULTILINE),
        re.findall(rf"^\| `([\w:]+)` \| ({kinds}) \|", PROTOCOL_PAGE.partition("\n## 2 ")[0], re.MULTILINE),
        re.findall(rf"^([\w:]+) +({kinds}) ", keys.__doc__ or "", re.MULTILINE),
    ]
    every = {*keys.BEE_SUFFIXES, *keys.SIDE_SUFFIXES, "events", "earlierDelayed"}
    for table_of_keys in tables:
        assert {suffix for suffix, _ in table_of_keys} == every
        assert table_of_keys == tables[0], "the same keys of the same types, in the same order"


def test_each_link_within_the_readme_leads_to_a_heading():
    headings = re.findall(r"^#{1,6} (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    anchors |= set(re.findall(r'<a id="([^"]+)"', README))
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
