"""The demo's outside world, one HTTP server on loopback: a placeholder AI provider, and a webhook receiver.

The placeholder implements as much of the OpenAI API as the jobs need. Its answers are not generated: the
texts are fixed, the picture and the video are the demo's own. The receiver takes signed messages only.
"""

import base64
import hashlib
import hmac
import json
import secrets
import socketserver
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

SCRIPT = {
    "title": "The Queue of the Bees",
    "scenes": [
        {"description": "A hive at dawn; the first bees leave.", "duration": 1},
        {"description": "They come back, one by one, in order.", "duration": 1},
    ],
}
DESCRIPTION = "A hive at dawn, light through the leaves, and a long, patient queue of bees."
_VIDEO = {"id": "video_1", "status": "queued", "progress": 0}
#: How far the video is, poll by poll.
_PROGRESS = (30, 70, 100)
#: How many messages the receiver refuses before it accepts them.
_AWAY_FOR = 2
_MAX_BYTES = 1 << 20
_TOLERANCE_S = 300


class Peers(socketserver.ThreadingTCPServer):
    """Answers in threads of its own while its ``with`` block lasts, always with these two files.

    The provider takes ``answer_s`` for each answer.
    """

    daemon_threads = True

    def __init__(self, picture: Path, video: Path, *, answer_s: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self._picture = picture
        self._video = video
        self._answer_s = answer_s
        self._polls = 0
        self._refused = 0
        self._webhook_key = secrets.token_bytes(24)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        #: What the AI provider wants as its bearer token.
        self.ai_key = secrets.token_hex(16)
        self.webhook_secret = "whsec_" + base64.b64encode(self._webhook_key).decode()
        #: How many videos were requested.
        self.videos = 0
        #: The last picture's prompt.
        self.picture_prompt: Any = None
        #: Whether the last video was to begin with the demo's picture, which was uploaded.
        self.is_picture_uploaded = False
        #: The payloads of genuine webhooks about the film, by webhook-id.
        self.received: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Start to answer."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop, and close the socket."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Log nothing: anything but a request ends its connection."""

    def answer(self, target: str, headers: Message, body: bytes) -> bytes | dict[str, Any] | int:
        """Return the answer to ``METHOD /path``: a video, a JSON object, or a status without a body."""
        if not target.startswith(("POST /v1/", "GET /v1/")):
            return self._take_webhook(target, headers, body)
        time.sleep(self._answer_s)
        if not hmac.compare_digest(headers.get("authorization", ""), f"Bearer {self.ai_key}"):
            return 401
        return self._generate(target, body)

    def _generate(self, target: str, body: bytes) -> bytes | dict[str, Any] | int:
        match target:
            case "POST /v1/chat/completions":
                text = json.dumps(SCRIPT) if "response_format" in json.loads(body) else DESCRIPTION
                return {"choices": [{"message": {"role": "assistant", "content": text}}]}
            case "POST /v1/images/generations":
                self.picture_prompt = json.loads(body)["prompt"]
                return {"data": [{"b64_json": base64.b64encode(self._picture.read_bytes()).decode()}]}
            case "POST /v1/videos":
                self.videos += 1
                self.is_picture_uploaded = self._picture.read_bytes() in body
                return _VIDEO
            case "GET /v1/videos/video_1":
                percent = _PROGRESS[min(self._polls, len(_PROGRESS) - 1)]
                self._polls += 1
                status = "completed" if percent == _PROGRESS[-1] else "in_progress"
                return {**_VIDEO, "status": status, "progress": percent}
            case "GET /v1/videos/video_1/content":
                return self._video.read_bytes()
        return 404

    def _take_webhook(self, target: str, headers: Message, body: bytes) -> int:
        if target == "POST /away" and self._refused < _AWAY_FOR:
            self._refused += 1
            return 503
        message_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not sent.isdecimal() or abs(time.time() - int(sent)) > _TOLERANCE_S:
            return 401
        digest = hmac.digest(self._webhook_key, f"{message_id}.{sent}.".encode() + body, hashlib.sha256)
        expected = b"v1," + base64.b64encode(digest)
        signatures = headers.get("webhook-signature", "").encode().split()
        if not any(hmac.compare_digest(expected, signature) for signature in signatures):
            return 401
        if target == "POST /film":
            self.received[message_id] = json.loads(body)
        return 200


class _Request(BaseHTTPRequestHandler):
    server: Peers
    timeout = 10.0

    def do_POST(self) -> None:
        """Answer."""
        length = min(int(self.headers.get("content-length", "0")), _MAX_BYTES)
        answer = self.server.answer(f"{self.command} {self.path}", self.headers, self.rfile.read(length))
        content = json.dumps(answer).encode() if isinstance(answer, dict) else answer
        self.send_response(content if isinstance(content, int) else 200)
        if isinstance(content, bytes):
            self.send_header("Content-Type", "video/mp4" if content is answer else "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if isinstance(content, bytes):
            self.wfile.write(content)

    do_GET = do_POST  # noqa: N815 - http.server's name for it

    def log_message(self, *_: Any) -> None:
        """Log nothing: the demo's output is its own."""
