"""The demo's own HTTP server: it answers those who have the key, and takes signed webhooks only."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from beeq_cli.demo.peers import Peers


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    for name in ("picture", "video"):
        (tmp_path / name).write_bytes(name.encode())
    with Peers(tmp_path / "picture", tmp_path / "video") as peers:
        yield peers


def test_without_the_key_nothing_is_generated(peers: Peers) -> None:
    for key in ("", "Bearer wrong"):
        refused = httpx.post(f"http://{peers.host}/v1/videos", json={}, headers={"authorization": key})
        assert (refused.status_code, peers.videos) == (401, 0)
    headers = {"authorization": f"Bearer {peers.ai_key}"}
    assert httpx.post(f"http://{peers.host}/v1/videos", json={}, headers=headers).json()["id"] == "video_1"
    content = httpx.get(f"http://{peers.host}/v1/videos/video_1/content", headers=headers)
    assert (content.content, content.headers["content-type"]) == (b"video", "video/mp4")
    assert httpx.get(f"http://{peers.host}/v1/nothing", headers=headers).status_code == 404


@pytest.mark.parametrize("spoilt", [None, "webhook-id", "webhook-timestamp", "webhook-signature"])
def test_only_a_genuine_webhook_is_received(peers: Peers, spoilt: str | None) -> None:
    body, sent = '{"film": 1}', datetime.now(UTC)
    headers = {
        "webhook-id": "message-1",
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": Webhook(peers.webhook_secret).sign("message-1", sent, body),
    }
    if spoilt is not None:
        headers[spoilt] = "1"
    answered = httpx.post(f"http://{peers.host}/film", content=body, headers=headers)
    assert answered.status_code == (200 if spoilt is None else 401)
    assert peers.received == ({} if spoilt else {"message-1": {"film": 1}})


def test_what_is_not_a_request_ends_its_connection(peers: Peers, capfd: pytest.CaptureFixture[str]) -> None:
    host, port = peers.host.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/videos HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        assert connection.recv(100) == b""
    assert capfd.readouterr() == ("", "")
