"""The demo's stand-in for an AI provider: speaks as much of the OpenAI API as the jobs need, on loopback.

Nothing it answers was generated: the texts are fixed, the picture and the video are the demo's own.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from beeq_cli.demo.loopback import LoopbackResponse, LoopbackServer, Request

SCRIPT = {
    "title": "The Queue of the Bees",
    "scenes": [
        {"description": "A hive at dawn; the first bees leave.", "duration": 1},
        {"description": "They come back, one by one, in order.", "duration": 1},
    ],
}
DESCRIPTION = "A hive at dawn, light through the leaves, and a long, patient queue of bees."
_VIDEO_ID = "video_1"
#: How far the video is, look by look.
_PROGRESS = (30, 70, 100)


class PlaceholderProvider(LoopbackServer):
    """Answers the four kinds of generation.

    Args:
        picture: the PNG file that is every image.
        video: the MP4 file that is every video.
    """

    def __init__(self, picture: Path, video: Path) -> None:
        super().__init__()
        self._picture = picture
        self._video = video
        self._looks = 0
        self.key = secrets.token_hex(16)
        self.orders = 0  # of videos

    @property
    def base_url(self) -> str:
        """What ``BEEQ_AI_BASE_URL`` would be."""
        return f"http://{self.host}/v1"

    def answer(self, request: Request) -> LoopbackResponse:
        """LoopbackResponse who has the key."""
        if not hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {self.key}"):
            return LoopbackResponse("401 Unauthorized")
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                asked = json.loads(request.body)
                text = json.dumps(SCRIPT) if "response_format" in asked else DESCRIPTION
                return _json({"choices": [{"message": {"role": "assistant", "content": text}}]})
            case "POST", "/v1/images/generations":
                return _json({"data": [{"b64_json": base64.b64encode(self._picture.read_bytes()).decode()}]})
            case "POST", "/v1/videos":
                self.orders += 1
                return _json({"id": _VIDEO_ID, "status": "queued", "progress": 0})
            case "GET", path if path.startswith(f"/v1/videos/{_VIDEO_ID}"):
                return self._video_answer(path.removeprefix(f"/v1/videos/{_VIDEO_ID}"))
        return LoopbackResponse("404 Not Found")

    def _video_answer(self, part: str) -> LoopbackResponse:
        if part:
            is_content = part == "/content"
            return (
                LoopbackResponse("200 OK", self._video.read_bytes(), "video/mp4")
                if is_content
                else LoopbackResponse("404 Not Found")
            )
        percent = _PROGRESS[min(self._looks, len(_PROGRESS) - 1)]
        self._looks += 1
        status = "completed" if percent == _PROGRESS[-1] else "in_progress"
        return _json({"id": _VIDEO_ID, "status": status, "progress": percent})


def _json(value: dict[str, Any]) -> LoopbackResponse:
    return LoopbackResponse("200 OK", json.dumps(value).encode())
