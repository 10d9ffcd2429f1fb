"""beeq's Lua scripts: found in the package, or beside it in a checkout. Calls none of them.

Each file in ``lua/`` is one operation; its header names every key, every argument and what it returns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its name, its text, and the digest Redis knows it by."""

    name: str
    source: bytes
    sha: str


def _folder() -> Path:
    """Return where the scripts are: in an installed package, or beside the checkout's package."""
    package = Path(str(files("beeq")))
    installed = package / "lua"
    return installed if installed.is_dir() else package.parent / "lua"


def _load(name: str) -> Script:
    source = (_folder() / f"{name}.lua").read_bytes()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()  # Redis's own choice of digest
    return Script(name, source, sha)


ADD_JOBS = _load("add_jobs")
BEAT = _load("beat")
CANCEL_JOB = _load("cancel_job")
CLEAN_JOBS = _load("clean_jobs")
COUNT_JOBS = _load("count_jobs")
EXCHANGE = _load("exchange")
HAND_BACK = _load("hand_back")
KEEP_RECORD = _load("keep_record")
MARK_STALLING = _load("mark_stalling")
PEEK_ACTIVE = _load("peek_active")
RAISE_DELAYED = _load("raise_delayed")
READ_OUTCOME = _load("read_outcome")
REMOVE_JOB = _load("remove_job")
REPORT_PROGRESS = _load("report_progress")
REQUEUE_STALLED = _load("requeue_stalled")
RETRY_JOB = _load("retry_job")
SWEEP = _load("sweep")

#: Every script, for loading them ahead of use.
ALL = (
    ADD_JOBS,
    BEAT,
    CANCEL_JOB,
    CLEAN_JOBS,
    COUNT_JOBS,
    EXCHANGE,
    HAND_BACK,
    KEEP_RECORD,
    MARK_STALLING,
    PEEK_ACTIVE,
    RAISE_DELAYED,
    READ_OUTCOME,
    REMOVE_JOB,
    REPORT_PROGRESS,
    REQUEUE_STALLED,
    RETRY_JOB,
    SWEEP,
)
