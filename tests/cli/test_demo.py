"""``beeq demo``: real jobs, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beeq_cli.demo.peers import Peers
from beeq_cli.demo.scenes import Scenes
from tests.cli.command import Beeq, eventually

pytestmark = [pytest.mark.ffmpeg, pytest.mark.external]

STEPS = [
    "script",
    "frame-extract",
    "video-stitch",
    "audio-stitch",
    "scene-description",
    "image",
    "music-mix",
    "video",
    "assembly",
    "webhook",
]


@pytest.fixture
def temporary(bare_beeq: Beeq) -> Path:
    """Where the demo makes its folder."""
    folder = bare_beeq.folder / "tmp"
    folder.mkdir()
    bare_beeq.environment["TMPDIR"] = str(folder)
    return folder


def test_every_job_does_what_it_should_and_it_can_run_twice(bare_beeq: Beeq, temporary: Path) -> None:
    for _ in range(2):
        ran = bare_beeq.run("demo", "--json")
        assert ran.returncode == 0, ran.stderr
        shown = json.loads(ran.stdout)
        assert [job["name"] for job in shown["jobs"]] == STEPS
        succeeded = {name: numbers["succeeded"] for name, numbers in shown["stats"].items()}
        assert succeeded == {
            "ai-generation": 4,
            "media-processing": 4,
            "video-assembly": 1,
            "webhook-processing": 1,
        }
        assert list(temporary.iterdir()) == []
    assert [path.name for path in bare_beeq.folder.iterdir()] == ["tmp"]


def test_each_steps_result_is_what_the_next_is_made_from(tmp_path: Path) -> None:
    results: dict[str, Any] = {}
    with Peers(tmp_path / "picture", tmp_path / "video") as peers:
        acts = Scenes(tmp_path, ["1.mp4", "2.mp4"], 1, peers).acts(results)
        found = {}
        results |= {"script": {"title": "", "scenes": [{"description": "Dawn"}, {"description": "Dusk"}]}}
        results |= {
            "image": {"path": "a.png"},
            "video": {"path": "a.mp4"},
            "assembly": {"mp4": {"path": "f.mp4"}},
        }
        for act in acts:
            found |= {step.name: step.data for step in act}
    assert list(found) == STEPS
    assert (found["image"]["prompt"], found["video"]["prompt"]) == ("Dawn", "Dusk")
    assert found["video"]["parameters"] == {"imageUrl": "a.png"}
    assert found["assembly"]["sceneVideos"] == ["a.mp4", "2.mp4"]
    assert found["webhook"]["payload"]["film"] == {"mp4": {"path": "f.mp4"}}


def test_no_process_stays(bare_beeq: Beeq, temporary: Path) -> None:
    assert bare_beeq.run("demo", "-q").returncode == 0

    def is_quiet() -> bool:
        processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return str(temporary) not in processes and not _users_of(temporary)

    eventually(is_quiet, within_s=10)


def _users_of(folder: Path) -> list[str]:
    """Return the processes whose current folder lies, or lay, in ``folder``."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            target = str(link.readlink())
        except OSError:
            continue  # it has ended, or is not ours
        if target.startswith(str(folder)):
            found.append(target)
    return found


def test_what_is_configured_is_not_touched(bare_beeq: Beeq, temporary: Path) -> None:
    environment = {
        "REDIS_URL": "redis://127.0.0.1:1",
        "BEEQ_MEDIA_URL": "http://127.0.0.1:1",
        "BEEQ_WEBHOOK_SECRET": "nonsense",
        "BEEQ_AI_BASE_URL": "http://127.0.0.1:1/v1",
    }
    ran = bare_beeq.run("demo", **environment)
    assert ran.returncode == 0, ran.stderr
    assert list(temporary.iterdir()) == []


def test_in_a_pipe_results_go_to_stdout_and_progress_to_stderr(bare_beeq: Beeq, temporary: Path) -> None:
    ran = bare_beeq.run("demo")
    assert ran.returncode == 0
    results, _, stats = ran.stdout.partition("\n\n")
    assert [line.split()[0] for line in results.splitlines()] == STEPS
    assert stats.startswith("queue ")
    assert "video-stitch: queued" in ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    assert list(temporary.iterdir()) == []


def test_with_q_only_the_outcome_is_told(bare_beeq: Beeq, temporary: Path) -> None:
    ran = bare_beeq.run("demo", "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "film.mp4" in ran.stdout
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("temporary")
def test_a_person_sees_bars(bare_beeq: Beeq) -> None:
    master, terminal = pty.openpty()
    with os.fdopen(master, "rb") as screen:
        ran = subprocess.Popen(
            [sys.executable, "-m", "beeq_cli", "demo"],
            cwd=bare_beeq.folder,
            env={**bare_beeq.environment, "COLUMNS": "120", "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(screen.fileno(), 1 << 16)
            except OSError:
                break  # the terminal's other end is closed
            if not part:
                break
            shown += part
        assert ran.wait(60) == 0
    assert "━" in shown.decode()
    assert "film.mp4" in shown.decode()


def test_without_ffmpeg_it_says_so_and_fails(bare_beeq: Beeq, temporary: Path) -> None:
    hidden = bare_beeq.folder / "imageio_ffmpeg.py"
    hidden.write_text("raise ImportError")
    path = os.pathsep.join((str(bare_beeq.folder), bare_beeq.environment["PYTHONPATH"]))
    ran = bare_beeq.run("demo", PYTHONPATH=path, PATH="/nowhere")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "ffmpeg was not found" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []
