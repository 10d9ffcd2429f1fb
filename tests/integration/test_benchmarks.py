"""The benchmark runs from a checkout and writes every number. What the numbers are is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]

#: What the result file must hold, besides whatever else is measured.
MEASURED = {
    ("drain", 1),
    ("drain", 10),
    ("drain", 100),
    ("enqueue", None),
    ("latency", None),
}
CONDITIONS = {
    *("date", "cpu", "cpus", "system", "load_average", "python", "event_loop", "beeq", "redis-py", "hiredis"),
    *("orjson", "server", "connection", "node", "bee-queue", "settings", "rounds", "quick"),
}


def test_a_quick_run_writes_every_number_its_conditions_a_chart_and_a_table(
    tmp_path: Path, node_modules: Path
) -> None:
    out = tmp_path / "quick.json"
    command = [
        sys.executable,
        str(_ROOT / "benchmarks" / "bench.py"),
        "--quick",
        "--rounds",
        "1",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    assert node_modules.is_dir()
    result = json.loads(out.read_text())
    assert result["conditions"].keys() >= CONDITIONS
    assert result["conditions"]["quick"] is True
    rows = result["measurements"]
    assert {(row["kind"], row["concurrency"]) for row in rows} >= MEASURED
    assert len(rows) == 10
    for row in rows:
        for peer in ("beeq", "bee-queue"):
            assert row["median"][peer] > 0
            assert len(row["rounds"][peer]) == 1
        assert row["title"] in done.stdout
    assert (tmp_path / "drain.svg").read_text().count("concurrency") >= 3
