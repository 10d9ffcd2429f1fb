"""The demo's own webhook receiver: listens on loopback, believes nothing that is not signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from beeq_cli.demo.loopback import LoopbackResponse, LoopbackServer, Request

_TOLERANCE_S = 300


class Receiver(LoopbackServer):
    """Receives until its ``async with`` block is left; ``received``: genuine payloads by webhook-id."""

    def __init__(self) -> None:
        super().__init__()
        self._key = secrets.token_bytes(24)
        self.received: dict[str, Any] = {}

    @property
    def secret(self) -> str:
        """What senders sign with."""
        return "whsec_" + base64.b64encode(self._key).decode()

    def answer(self, request: Request) -> LoopbackResponse:
        """Take what is signed."""
        if not self._is_genuine(request.headers, request.body):
            return LoopbackResponse("401 Unauthorized")
        self.received[request.headers["webhook-id"]] = json.loads(request.body)
        return LoopbackResponse("200 OK")

    def _is_genuine(self, headers: dict[str, str], body: bytes) -> bool:
        """Check the signature (Standard Webhooks), by no code that made it."""
        sent = headers.get("webhook-timestamp", "")
        if not sent.isdecimal() or abs(time.time() - int(sent)) > _TOLERANCE_S:
            return False
        signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        given = headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given)
