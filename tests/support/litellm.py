"""A real LiteLLM proxy in front of the tests' AI provider: fetched once into the checkout's ``.litellm`` folder.

Of the extra ``litellm[proxy]`` only what the proxy imports is installed: the rest (data frames, clouds, servers,
profilers) is half of its size, and takes as long again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

LITELLM_VERSION = "1.108.7"
#: What the proxy imports at its start, beside LiteLLM's own requirements.
_PROXY_NEEDS = (
    "apscheduler", "backoff", "cryptography", "email-validator", "expression", "fastapi", "fastapi-sso",
    "litellm-proxy-extras", "mcp", "orjson", "pyjwt", "python-multipart", "redis", "rich", "soundfile",
    "uvicorn", "uvloop", "websockets",
)  # fmt: skip
_CHECKOUT = Path(__file__).resolve().parents[2]
_INSTALL_TIMEOUT_S = 240
#: It imports some thousand modules.
_START_TIMEOUT_S = 300
#: What clients of the proxy call with.
PROXY_KEY = "sk-proxy/hunter3+key"


class LiteLLMMissing(Exception):
    """pip cannot fetch LiteLLM; the message says why."""


def install_litellm(folder: Path = _CHECKOUT / ".litellm") -> Path:
    """Return the folder of an environment that holds the proxy, made if it is not there yet.

    Safe to call from several processes: the first fetches, the others wait.

    Raises:
        LiteLLMMissing: see there.
    """
    folder.mkdir(exist_ok=True)
    done = folder / f"done-{LITELLM_VERSION}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(folder / "venv")
            done.touch()
    return folder / "venv"


def _install(environment: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)],
        # What is imported is compiled then.
        [*pip, "--no-compile", f"litellm=={LITELLM_VERSION}", *_PROXY_NEEDS],
    ):
        try:
            ran = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise LiteLLMMissing(f"pip did not fetch LiteLLM within {_INSTALL_TIMEOUT_S} s") from None
        if ran.returncode:
            raise LiteLLMMissing(f"pip cannot fetch LiteLLM: {ran.stderr.strip()[-500:]}")


@contextlib.contextmanager
def litellm_proxy(environment: Path, folder: Path, provider_url: str, provider_key: str) -> Iterator[str]:
    """Run the proxy for the models texts, pictures and films of one provider; yield its base URL."""
    models = {"texts": "gpt-4o", "pictures": "gpt-image-1", "films": "sora-2"}
    to_provider = {"api_base": provider_url, "api_key": provider_key}
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"openai/{model}", **to_provider}}
            for name, model in models.items()
        ],
        "general_settings": {"master_key": PROXY_KEY},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [
                environment / "bin" / "litellm",
                *("--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)),
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the one it brings: it needs no network
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _await_start(process, f"http://127.0.0.1:{port}/health/liveliness", folder / "litellm.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_start(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"LiteLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")
