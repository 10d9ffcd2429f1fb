"""A film through all built-in queues, its AI calls by a real LiteLLM proxy: each step from the one before."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from tests.ai.server import CHAT, IMAGES, AIServer, answer, chat, content, image
from tests.media.clips import H264, colour_clip, ffmpeg
from tests.support.litellm import PROXY_KEY, LiteLLMMissing, install_litellm, litellm_proxy
from tests.support.server import Server
from tests.webhooks.receiver import Receiver

pytestmark = [pytest.mark.ffmpeg, pytest.mark.external]

PROVIDER_KEY = "sk-provider/hunter2+key"
VIDEO = "video_68d7512d07848190b3e45da0ecbebcde004da08e1e0678d5"
ORDER, LOOK, CONTENT = "POST /v1/videos", f"GET /v1/videos/{VIDEO}", f"GET /v1/videos/{VIDEO}/content"
SCENES = [{"description": "A hive at dawn."}, {"description": "The bees return."}]
WAIT_MS = 60_000


@pytest.fixture(scope="session")
def litellm() -> Path:
    """The environment with LiteLLM, fetched into the checkout once."""
    try:
        return install_litellm()
    except LiteLLMMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def film(status: str, **more: Any) -> Any:
    state = {"id": VIDEO, "object": "video", "model": "sora-2", "status": status, "created_at": 1_750_000_000}
    return answer({**state, "progress": 0, "seconds": "4", "size": "720x1280", **more})


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[AIServer]:
    """The server behind the proxy."""
    ffmpeg("-f", "lavfi", "-i", "color=lime:s=64x48", "-frames:v", "1", tmp_path / "picture.png")
    clip = colour_clip(tmp_path / "provider.mp4", "blue", tone_hz=440, options=H264)
    async with AIServer() as server:
        script = json.dumps({"title": "Bees", "scenes": SCENES})
        server.on(CHAT, chat(script, index=0), chat("Light, and a queue.", index=0))
        server.on(IMAGES, image((tmp_path / "picture.png").read_bytes()))
        server.on(ORDER, film("queued"))
        server.on(LOOK, film("in_progress", progress=40), film("completed", progress=100))
        server.on(CONTENT, content(clip.read_bytes(), **{"content-type": "video/mp4"}))
        yield server


@pytest.mark.timeout(900)  # LiteLLM is fetched first
async def test_a_film_is_made_through_a_real_litellm_proxy(
    litellm: Path, provider: AIServer, valkey: Server, queue_name: str, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    colour_clip(media / "music.mp4", "black", tone_hz=220)
    async with Receiver() as receiver, asyncio.timeout(200):
        loop = asyncio.get_running_loop()
        context = litellm_proxy(litellm, tmp_path, provider.url, PROVIDER_KEY)
        url = await loop.run_in_executor(None, context.__enter__)
        settings = ProcessorSettings(
            media_root=media,
            webhook_allow_hosts="127.0.0.1",
            ai_base_url=url,
            ai_api_key=PROXY_KEY,
            ai_text_model="texts",
            ai_image_model="pictures",
            ai_video_model="films",
            ai_poll_interval_ms=50,
        )
        processors = build(settings)
        queues = {name: Queue(name, redis=valkey.url, prefix=queue_name) for name in processors}
        try:
            for name, queue in queues.items():
                queue.process(processors[name])

            async def made(queue: str, **fields: Any) -> Any:
                job = await queues[queue].enqueue(fields, timeout=WAIT_MS)
                return await job.result(WAIT_MS)

            script = await made("ai-generation", type="script", parameters={"topic": "bees"})
            first, last = (scene["description"] for scene in script["scenes"])
            text = await made("ai-generation", type="scene-description", prompt=first)
            picture = await made("ai-generation", type="image", prompt=first, parameters={"style": "ink"})
            begins = {"imageUrl": picture["path"]}
            from_picture = await made("ai-generation", type="video", prompt=last, parameters=begins)
            from_text = await made("ai-generation", type="video", prompt=last)
            films = await made(
                "video-assembly",
                sceneVideos=[from_picture["path"], from_text["path"]],
                masterAudio="music.mp4",
                outputFormats=["mp4"],
            )
            sent = await made("webhook-processing", webhookUrl=receiver.url(), payload={"film": films})
        finally:
            await asyncio.gather(*(queue.destroy() for queue in queues.values()), return_exceptions=True)
            await asyncio.gather(*(queue.close() for queue in queues.values()))
            for processor in processors.values():
                await processor.close()
            await loop.run_in_executor(None, context.__exit__, None, None, None)

    assert script["scenes"] == SCENES
    assert text == {"text": "Light, and a queue."}
    assert (media / picture["path"]).read_bytes() == (tmp_path / "picture.png").read_bytes()
    drawn = provider.asked(IMAGES)[-1].json["prompt"]  # LiteLLM refuses a style of its own for this model
    assert first in drawn
    assert "ink" in drawn
    with_picture, without = provider.asked(ORDER)
    assert (media / picture["path"]).read_bytes() in with_picture.body
    assert last.encode() in with_picture.body
    assert last.encode() in without.body
    assert films["mp4"]["duration"] == pytest.approx(2, abs=0.2)
    assert sent["status"] == 200
    assert json.loads(receiver.requests[0].body) == {"film": films}
    assert {request.headers["authorization"] for request in provider.requests} == {f"Bearer {PROVIDER_KEY}"}
