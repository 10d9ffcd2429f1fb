"""The README's pair of programs: a Node producer and a Python worker on one queue."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from beeq.webhooks.keys import EndpointKeys
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
_BESIDE_NODE = (ROOT / "README.md").read_text().partition("### Beside Node")[2].partition("\n##")[0]
BLOCKS = dict(re.findall(r"^```(js|py|text)\n(.*?)^```", _BESIDE_NODE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize(
    "worker",
    [("thumbnails.py",), ("-m", "beeq_cli", "worker", "--app", "thumbnails:queue", "-w", "2")],
    ids=["the program itself", "beeq worker"],
)
@pytest.mark.external  # it takes long
def test_a_job_of_the_node_program_is_done_by_the_python_program(
    valkey: Server, node_modules: Path, tmp_path: Path, worker: tuple[str, ...]
) -> None:
    (tmp_path / "thumbnails.py").write_text(BLOCKS["py"])
    (tmp_path / "thumbnails.js").write_text(BLOCKS["js"])
    environment = {
        **os.environ,
        "REDIS_URL": valkey.url,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli"))),
        "NODE_PATH": str(node_modules),
    }
    with valkey.sync_client() as redis:
        for key in redis.scan_iter("bq:thumbnails:*"):
            redis.delete(key)
    with subprocess.Popen([sys.executable, *worker], cwd=tmp_path, env=environment) as working:
        try:
            node = subprocess.run(
                ["node", "thumbnails.js"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            working.send_signal(signal.SIGTERM)
            assert working.wait(30) == 0
    assert (node.stdout, node.stderr) == (BLOCKS["text"], "")


def test_node_derives_the_webhook_key_that_python_signs_with(node_modules: Path) -> None:
    recipe = re.search(r"`(crypto\.hkdfSync\([^`]*)`", (ROOT / "README.md").read_text())
    assert recipe is not None
    secret = b"a secret of some thirty bytes .."
    program = (
        "const crypto = require('crypto'); const secret = Buffer.from(process.argv[1], 'base64');"
        f"console.log('whsec_' + Buffer.from({recipe[1]}).toString('base64'))"
    )
    encoded = base64.b64encode(secret).decode()
    ran = subprocess.run(
        ["node", "-e", program, encoded], capture_output=True, text=True, check=True, timeout=60
    )
    (key,) = EndpointKeys([secret]).of(httpx.URL("https://hooks.example.com/films"))
    assert ran.stdout.strip() == key.of_receiver()
