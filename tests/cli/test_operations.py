"""Each operation of the built-in queues, as a newcomer asks for it: ``beeq enqueue … --wait`` and a real worker."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beeq_cli.demo.peers import DESCRIPTION, SCRIPT, Peers
from tests.cli.command import Beeq, Running
from tests.media.clips import ffmpeg

pytestmark = pytest.mark.ffmpeg

FILE = {"path", "bytes", "duration", "streams"}
CLIPS = 'inputFiles:=["one.mp4", "two.mp4"]'
IMAGE = {"path", "bytes", "width", "height"}


class Shop:
    """A worker on all four queues, with all that its jobs need."""

    def __init__(self, beeq: Beeq, worker: Running, peers: Peers, prefix: str) -> None:
        self.beeq = beeq
        self.worker = worker
        self.peers = peers
        self._prefix = prefix

    async def ask(self, queue: str, *fields: str) -> Any:
        """Enqueue a job, wait for it, and return its result."""
        words = ("enqueue", queue, *fields, "--wait=60s", "-p", self._prefix)
        ran = await asyncio.to_thread(self.beeq.run, *words)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def path(self, name: str) -> Path:
        return self.beeq.folder / name


@pytest.fixture
async def shop(beeq: Beeq, queue_name: str) -> AsyncIterator[Shop]:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48", "-frames:v", "1", beeq.folder / "picture.png")
    for name, size in (("one.mp4", "64x48"), ("two.mp4", "32x32")):
        ffmpeg(
            *("-f", "lavfi", "-t", "1", "-i", f"testsrc2=s={size}:r=10"),
            *("-f", "lavfi", "-t", "1", "-i", "sine=f=440"),
            *("-pix_fmt", "yuv420p", beeq.folder / name),
        )
    ffmpeg("-f", "lavfi", "-t", "3", "-i", "sine=f=220", beeq.folder / "music.m4a")
    with Peers(beeq.folder / "picture.png", beeq.folder / "one.mp4") as peers:
        worker = beeq.start(
            *("worker", "-c", "2", "-p", queue_name),
            BEEQ_MEDIA_ROOT=str(beeq.folder),
            BEEQ_WEBHOOK_SECRET=peers.webhook_secret,
            BEEQ_WEBHOOK_KEYS="shared",
            BEEQ_WEBHOOK_ALLOW_HOSTS=peers.host,
            BEEQ_AI_BASE_URL=f"http://{peers.host}/v1",
            BEEQ_AI_API_KEY=peers.ai_key,
            BEEQ_AI_TEXT_MODEL="text",
            BEEQ_AI_IMAGE_MODEL="image",
            BEEQ_AI_VIDEO_MODEL="video",
            BEEQ_AI_POLL_INTERVAL="50",
        )
        await asyncio.to_thread(worker.until, "Queue worker started")
        yield Shop(beeq, worker, peers, queue_name)
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.ended) == 0
        started, *held, _signalled, _stopped = worker.said
        assert started.startswith("Queue worker started")
        # What holds ffmpeg is said once, by those that run it.
        assert [" is held by no new privileges, " in line for line in held] in ([], [True])


async def test_the_four_kinds_of_generation(shop: Shop) -> None:
    queue = "ai-generation"
    assert await shop.ask(queue, "type=script", 'parameters:={"topic": "bees"}') == SCRIPT
    described = await shop.ask(queue, "type=scene-description", "prompt=a hive")
    assert described == {"text": DESCRIPTION}
    image = await shop.ask(queue, "type=image", "prompt=a hive", 'parameters:={"style": "ink"}')
    assert image.keys() == {"path", "bytes"}
    assert shop.path(image["path"]).read_bytes() == shop.path("picture.png").read_bytes()
    first_picture = json.dumps({"imageUrl": image["path"]})
    video = await shop.ask(queue, "type=video", "prompt=bees", f"parameters:={first_picture}")
    assert video.keys() == FILE
    assert shop.path(video["path"]).stat().st_size == video["bytes"]


async def test_the_four_operations_on_media(shop: Shop) -> None:
    queue = "media-processing"
    stitched = await shop.ask(queue, "type=video-stitch", CLIPS, "outputPath=out/film.webm")
    assert stitched.keys() == FILE
    assert {stream["type"] for stream in stitched["streams"]} == {"video", "audio"}
    assert stitched["duration"] == pytest.approx(2, abs=0.2)
    sounds = await shop.ask(queue, "type=audio-stitch", CLIPS, "outputPath=sound.mp3")
    assert [stream["type"] for stream in sounds["streams"]] == ["audio"]
    mix = ("type=music-mix", 'inputFiles:=["one.mp4"]', 'parameters:={"musicTrack": "music.m4a"}')
    mixed = await shop.ask(queue, *mix, "outputPath=mixed.mov")
    assert mixed["duration"] == pytest.approx(1, abs=0.2)
    frame = await shop.ask(queue, "type=frame-extract", 'inputFiles:=["one.mp4"]', "outputPath=last.png")
    assert frame.keys() == IMAGE
    assert (frame["width"], frame["height"]) == (64, 48)
    assert shop.path("last.png").stat().st_size == frame["bytes"]


async def test_the_assembly_in_each_format(shop: Shop) -> None:
    fields = ('sceneVideos:=["one.mp4", "two.mp4"]', "masterAudio=music.m4a")
    films = await shop.ask("video-assembly", *fields, 'outputFormats:=["mp4", "webm", "mov"]')
    assert list(films) == ["mp4", "webm", "mov"]
    for kind, facts in films.items():
        assert facts.keys() == FILE
        assert facts["path"].endswith(f".{kind}")
        assert facts["duration"] == pytest.approx(2, abs=0.2)
        assert shop.path(facts["path"]).stat().st_size == facts["bytes"]


async def test_the_webhook(shop: Shop) -> None:
    fields = (f"webhookUrl=http://{shop.peers.host}/film", 'payload:={"film": [1]}')
    result = await shop.ask("webhook-processing", *fields, "--id", "hook-1")
    assert result.keys() == {"status", "duration"}
    assert result["status"] == 200
    assert shop.peers.received == {"hook-1": {"film": [1]}}
