"""The benchmarks run from a checkout and write every number. No test checks the values."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import conditions, measures, peer_runs, peers
from benchmarks.bench import GROUPS
from benchmarks.peer_list import PEERS, Peer
from benchmarks.peer_runs import PeerFailed
from benchmarks.peers import NAMES, Contender
from benchmarks.report import failover_table, peer_table, table, write_readme
from tests.support.server import Server

pytestmark = pytest.mark.external  # each starts processes

_ROOT = Path(__file__).resolve().parents[1]
_RESULT = json.loads((_ROOT / "benchmarks" / "results" / "bench.json").read_text())

#: What the result file must hold, besides whatever else is measured.
MEASURED = {
    ("drain", 1),
    ("drain", 10),
    ("drain", 100),
    ("reading", 1),
    ("reading", 10),
    ("reading", 100),
    ("two workers", 10),
    ("no uvloop", 10),
    ("lean", 1),
    ("lean", 10),
    ("lean", 100),
    ("sleeping", 1),
    ("sleeping", 10),
    ("options", 10),
    ("records", 10),
    ("listener", 10),
    ("results", 10),
    ("produced", 10),
    ("cpu", 1),
    ("cpu", 10),
    ("bytes", 10),
    ("enqueue", None),
    ("latency", None),
}
CONDITIONS = {
    *("date", "cpu", "cpus", "system", "load_average", "python", "event_loop", "beeq", "redis-py", "hiredis"),
    *("orjson", "server", "connection", "node", "bee-queue", "settings", "rounds", "quick"),
    "load_average_end",
}

#: A queue that is a list in Redis: with a number it pushes as many jobs, without it works.
FAKE = """
import os, sys, time
import redis
client = redis.Redis.from_url(os.environ["BENCH_URL"])
if len(sys.argv) > 1:
    client.lpush("jobs", *range(int(sys.argv[1])))
else:
    client.set("pid", os.getpid())
    {work}
    time.sleep(60)
"""


def run(script: str, *arguments: str, cwd: Path, timeout_s: int = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout_s, cwd=cwd)


def fake(folder: Path, work: str, **changed: Any) -> Peer:
    script = folder / "fake.py"
    script.write_text(FAKE.format(work=work))
    facts: dict[str, Any] = {
        "name": "fake",
        "packages": ("fake@1.0",),
        "worker": (sys.executable, str(script)),
        "module": "fake",
        "finished": lambda client, count: count - client.llen("jobs"),
        "jobs": {1: 20},
        "is_node": True,  # its worker's program also enqueues
    }
    return Peer(**{**facts, **changed})


def drain(peer: Peer, server: Server, folder: Path) -> float:
    with server.sync_client() as client:
        log = folder / "worker.log"
        return peer_runs.drain(peer, folder, client, server.url, concurrency=1, count=20, log=log)


@pytest.mark.timeout(600)  # a minute, where nothing else runs
def test_a_quick_run_writes_every_number_a_chart_and_a_table(tmp_path: Path, node_modules: Path) -> None:
    out = tmp_path / "quick.json"
    done = run("bench.py", "--quick", "--out", str(out), cwd=tmp_path, timeout_s=580)
    assert done.returncode == 0, done.stderr

    assert node_modules.is_dir()
    result = json.loads(out.read_text())
    assert result["conditions"].keys() >= CONDITIONS
    assert result["conditions"]["quick"] is True
    rows = result["measurements"]
    assert {(row["kind"], row["concurrency"]) for row in rows} >= MEASURED
    assert [row["concurrency"] for row in rows if row["kind"] == "drain"] == [1, 10, 100]
    titles = [row["title"] for row in rows]
    assert len(set(titles)) == len(titles)
    assert ("worker's CPU time a job, concurrency 10" in titles) is Path("/proc/self/stat").exists()
    alone = {
        f"{whose}'s CPU time a job, concurrency {n}" for whose in ("worker", "server") for n in (1, 10, 100)
    }
    for row in rows:
        for peer in ("beeq", "bee-queue"):
            # So few jobs may take less CPU time than one tick of its clock.
            assert row["median"][peer] > 0 or row["kind"] == "cpu"
            assert len(row["rounds"][peer]) == 1
        assert row["title"] in done.stdout
        assert ("exchange alone" in row["median"]) is (
            row["kind"] in {"drain", "claim ahead"} or row["title"] in alone
        )
    assert done.stdout.strip() == table(result)
    assert (tmp_path / "drain.svg").read_text().count("concurrency") >= 3


def test_some_rows_can_be_measured_without_the_others(tmp_path: Path, node_modules: Path) -> None:
    assert node_modules.is_dir()
    out = tmp_path / "some.json"
    chosen = ("--only", "options,no-uvloop", "--out", str(out))
    done = run("bench.py", "--quick", "--rounds", "2", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    without, options = json.loads(out.read_text())["measurements"]
    assert (without["kind"], without["rounds"].keys()) == ("no uvloop", {"beeq"})
    assert {peer: len(rounds) for peer, rounds in options["rounds"].items()} == {"bee-queue": 2, "beeq": 2}
    assert f"| {without['title']} (jobs/s) | – | " in done.stdout


def test_an_unknown_group_of_rows_is_refused(tmp_path: Path) -> None:
    done = run("bench.py", "--only", "drain,prayers", cwd=tmp_path)
    assert done.returncode == 2
    assert "does not know prayers" in done.stderr
    assert all(group in done.stderr for group in GROUPS)


@pytest.mark.parametrize("at_once", [1, 7, 60])
def test_the_script_alone_leaves_what_a_worker_leaves(own_valkey: Server, at_once: int) -> None:
    with own_valkey.sync_client() as client:
        alone = measures.exchange_alone()
        measures.drain(alone, client, own_valkey.url, concurrency=at_once, jobs=measures.Jobs(200))
        assert {json.loads(record)["status"] for record in client.hvals("bq:bench:jobs")} == {"succeeded"}
        assert client.scard("bq:bench:succeeded") == client.hlen("bq:bench:jobs") == 200
        assert not client.exists("bq:bench:waiting", "bq:bench:active", "bq:bench:beeq:claims")


def test_the_table_has_the_script_alone_where_it_was_measured() -> None:
    drain = {"kind": "drain", "title": "drain", "unit": "jobs/s"}
    rows = [
        {**drain, "median": {"bee-queue": 100.0, "beeq": 300.0, "exchange alone": 400.0}},
        {**drain, "title": "other", "median": {"beeq": 300.0}},
    ]
    lines = table({"conditions": _RESULT["conditions"], "measurements": rows}).splitlines()
    assert lines[0] == "| | bee-queue | beeq | beeq is | the script alone (beeq ÷ it) |"
    assert lines[2] == "| drain (jobs/s) | 100 | 300 | 3.00 times as fast | 400 (0.75) |"
    assert lines[3] == "| other (jobs/s) | – | 300 | – |  |"
    assert {line.count("|") for line in lines[:4]} == {6}


def test_peers_are_measured_at_each_concurrency_in_one_run(tmp_path: Path, node_modules: Path) -> None:
    assert node_modules.is_dir()
    out = tmp_path / "peers.json"
    arguments = ("--quick", "--rounds", "2", "--only", "beeq,bee-queue", "--out", str(out))
    done = run("peers.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["conditions"].keys() >= CONDITIONS
    assert list(result["peers"]) == ["beeq", "bee-queue"]
    assert [row["concurrency"] for row in result["measurements"]] == [1, 10, 100]
    for row in result["measurements"]:
        for peer in ("beeq", "bee-queue"):
            assert row["median"][peer] > 0
            assert len(row["rounds"][peer]) == 2
    assert done.stdout.strip() == peer_table(result)


def test_producers_that_block_share_their_jobs_among_threads(own_valkey: Server, tmp_path: Path) -> None:
    peer = fake(
        tmp_path,
        "pass",
        module="beeq_sync_producer",
        finished=lambda client, count: count - client.llen("bq:bench:waiting"),
    )
    with own_valkey.sync_client() as client:
        rate = peer_runs.produce(peer, Path(sys.prefix), client, own_valkey.url, threads=4, count=30)
        assert rate > 0
        assert client.llen("bq:bench:waiting") == 30 + peer_runs.FIRST


def test_a_producer_that_enqueued_too_little_fails(own_valkey: Server, tmp_path: Path) -> None:
    peer = fake(tmp_path, "pass", module="beeq_sync_producer", finished=lambda _client, _count: 3)
    with own_valkey.sync_client() as client, pytest.raises(PeerFailed, match="did not enqueue 3 of 20 jobs"):
        peer_runs.produce(peer, Path(sys.prefix), client, own_valkey.url, threads=1, count=20)


def test_a_peer_fails_on_a_server_that_lacks_what_it_needs(own_valkey: Server, tmp_path: Path) -> None:
    peer = fake(tmp_path, "pass", needs=("Redis 99", ("XADD", "needed", "PRAYER", "a", "*", "b", "c")))
    with pytest.raises(PeerFailed, match="fake needs Redis 99"):
        drain(peer, own_valkey, tmp_path)


def test_a_quick_failover_writes_every_number_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "failover.json"
    chosen = ("--fleets", "sentinel", "--faults", "planned", "--guards", "none,wait_replicas=1")
    done = run("failover.py", "--quick", *chosen, "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["conditions"].keys() >= CONDITIONS - {"node", "bee-queue", "settings"}
    assert [scene["guard"] for scene in result["scenes"]] == ["none", "wait_replicas=1"]
    for scene in result["scenes"]:
        (numbers,) = scene["rounds"]
        assert numbers["acknowledged"] > 0
        assert numbers.keys() == {"acknowledged", "lost", "never_run", "run_twice", "raised", "pause_s"}
    assert done.stdout.strip() == failover_table(result)


@pytest.mark.ffmpeg
def test_a_quick_run_of_media_jobs_prints_a_line_a_case(tmp_path: Path) -> None:
    done = run("media.py", "--quick", "--rounds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    title, *lines = done.stdout.splitlines()
    assert title.split() == ["wall", "user", "CPU"]
    assert [line.split(",")[0] for line in lines[:3]] == ["stitch", "stitch", "assembly"]
    assert all(re.search(r"[\d.]+ s +[\d.]+ s$", line) for line in lines)


def test_a_failover_table_has_sums_medians_and_worsts() -> None:
    one = {"acknowledged": 900, "lost": 0, "never_run": 0, "run_twice": 0, "raised": {}, "pause_s": 0.5}
    other = {**one, "lost": 7, "never_run": 2, "run_twice": 1, "raised": {"A": 3, "B": 1}, "pause_s": 2.5}
    names = {"servers": "cluster", "fault": "killed", "guard": "none"}
    scenes = [{**names, "rounds": [one, other, one], "failed": []}, {**names, "rounds": [], "failed": ["X"]}]
    lines = failover_table({"conditions": _RESULT["conditions"], "scenes": scenes}).splitlines()
    assert lines[2] == "| cluster | killed | none | 2 700 | 7 | 2 | 1 | 4 | 0.5 | 2.5 |"
    assert lines[3] == "| cluster | killed | none | 0 | 0 | 0 | 0 | 0 | – | – |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "1 rounds failed and are left out" in lines[-1]


def test_an_unknown_guard_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = run("failover.py", "--guards", "none,prayer", cwd=tmp_path)
    assert done.returncode == 2
    assert "does not know prayer; there are none, wait_replicas=1" in done.stderr


def test_an_unknown_peer_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    done = run("peers.py", "--only", "beeq,resque", cwd=tmp_path)
    assert done.returncode == 2
    assert "does not know resque" in done.stderr
    assert all(name in done.stderr for name in NAMES)


def test_a_peer_is_drained_from_jobs_of_its_own_making(own_valkey: Server, tmp_path: Path) -> None:
    peer = fake(tmp_path, "while client.brpop('jobs'): time.sleep(0.001)")
    assert drain(peer, own_valkey, tmp_path) > 0
    with own_valkey.sync_client() as client:
        assert client.llen("jobs") == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(client.get("pid")), 0)  # the worker has ended


def test_a_peer_whose_worker_ends_early_fails_with_its_output(own_valkey: Server, tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="fake's worker ended with 3: no more"):
        drain(fake(tmp_path, "print('no more', flush=True); os._exit(3)"), own_valkey, tmp_path)


def test_a_peer_that_enqueued_too_little_does_not_count_as_fast(own_valkey: Server, tmp_path: Path) -> None:
    peer = fake(tmp_path, "pass", finished=lambda client, count: count - client.llen("elsewhere"))
    with pytest.raises(PeerFailed, match="fake did not enqueue 20 jobs"):
        drain(peer, own_valkey, tmp_path)


def test_a_peer_that_fails_once_is_left_out_and_named(own_valkey: Server) -> None:
    asked: list[str] = []

    def contender(name: str, rate: float | None) -> Contender:
        def drain(_client: Any, _server: Server, concurrency: int, _count: int) -> float:
            asked.append(name)
            if rate is None:
                raise PeerFailed("it broke")
            return rate * concurrency

        return Contender(name, "1.0", "", {1: 10, 10: 10}, drain)

    both = [contender("beeq", 300.0), contender("slow", 100.0), contender("broken", None)]
    rows, failed = peers.measure(both, own_valkey, rounds=2, divisor=1)
    assert failed == {"broken": "it broke"}
    assert asked.count("broken") == 1
    assert [row["median"] for row in rows] == [
        {"beeq": 300.0, "slow": 100.0},
        {"beeq": 3000.0, "slow": 1000.0},
        {},
    ]
    about = {name: {"version": "1.0", "note": ""} for name in ("beeq", "slow", "broken")}
    lines = peer_table({"conditions": _RESULT["conditions"], "peers": about, "measurements": rows})
    assert "| slow | 1.0 | 100 | 1 000 | – | 3.0 × | 3.0 × | – |  |" in lines
    assert "| broken | 1.0 | – | – | – | – | – | – |  |" in lines


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_is_pinned_and_has_its_job_and_readme_line(peer: Peer) -> None:
    for package in peer.packages:
        assert re.fullmatch(r"[\w-]+(\[[\w,]+\])?(==|@)[\d.]+", package), package
    assert set(peer.jobs) <= {1, 10, 100}
    benchmarks = _ROOT / "benchmarks"
    module = peer.module if peer.is_node else f"{peer.module}.py"
    assert (benchmarks / "workers" / module).is_file()
    assert f"| `{peer.name}` |" in (benchmarks / "README.md").read_text()


def test_a_table_warns_if_a_tenth_of_the_machine_was_busy() -> None:
    quiet = {**_RESULT["conditions"], "busy_before": 0.06, "stolen_before": 0.03}
    busy = {**_RESULT["conditions"], "busy_before": 0.06, "stolen_before": 0.06}
    assert "Beware" not in table({**_RESULT, "conditions": quiet})
    assert "Beware: 12 % of the machine was busy" in table({**_RESULT, "conditions": busy})


def test_the_readme_gets_its_tables_from_the_result_files(tmp_path: Path) -> None:
    before = (_ROOT / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(re.sub(r"\| drain, concurrency 10 .*", "| another |", before))
    assert readme.read_text() != before
    write_readme(readme, _ROOT / "benchmarks" / "results")
    assert readme.read_text() == before


def test_bystanders_use_what_measured_processes_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([conditions.Ticks(0, 0, 0), conditions.Ticks(1000, 500, 50)])
    own_s = iter([1.0, 1.0 + 300 / os.sysconf("SC_CLK_TCK")])
    monkeypatch.setattr(conditions, "ticks", lambda: next(ticks))
    monkeypatch.setattr(conditions, "own_cpu_s", lambda: next(own_s))
    facts = conditions.Bystanders().facts()
    assert facts["others_busy"] == 0.2
    assert facts["stolen"] == 0.05


def test_a_childs_cpu_time_is_counted_as_the_harness_own() -> None:
    before = conditions.own_cpu_s()
    program = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert conditions.own_cpu_s() - before >= 0.2


def test_no_benchmark_imports_a_test() -> None:
    for script in (_ROOT / "benchmarks").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) tests\b", script.read_text(), re.MULTILINE), script
