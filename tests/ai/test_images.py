"""Pictures against a real server: what becomes a file, and what never does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from beeq.ai.client import Limits
from beeq.ai.errors import AIFailed
from beeq.errors import Discard
from beeq.media.errors import MediaFailed
from tests.ai.server import (
    HEAD,
    IMAGES,
    KEY,
    PNG,
    AIServer,
    Make,
    ai_job,
    answer,
    content,
    image,
)
from tests.media.clips import tree
from tests.webhooks.receiver import drip, send

JPEG = b"\xff\xd8\xff\xe0 jpeg"
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


@pytest.mark.parametrize(
    ("picture", "suffix"),
    [
        (PNG, "png"),
        (JPEG, "jpg"),
        (WEBP, "webp"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"GIF89a\1\0\1\0", "gif"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "bmp"),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\xff\x0a\xfa", "jxl"),
    ],
)
async def test_a_picture_is_kept_under_the_media_root_as_what_it_is(
    server: AIServer, make: Make, tmp_path: Path, picture: bytes, suffix: str
) -> None:
    server.on(IMAGES, image(picture))
    job = ai_job("image", parameters={"style": "vivid"})
    result = await make()(job)
    assert result == {"path": f"{job.id}.{suffix}", "bytes": len(picture)}
    assert tree(tmp_path) == {result["path"]: picture}
    (request,) = server.requests
    assert request.json == {"model": "pictures", "prompt": "a bee", "n": 1, "style": "vivid"}
    assert job.reports[-1] == 100


async def test_an_id_that_is_no_name_stays_inside_the_media_root(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(IMAGES, image())
    job = ai_job("image")
    job.id = "../../ü/%2e"
    result = await make()(job)
    assert [*tree(tmp_path)] == [result["path"]]
    assert "/" not in result["path"]
    key = server.requests[0].headers["idempotency-key"]
    assert key.isascii()
    assert key.startswith("beeq-%2E")


async def test_a_picture_is_replaced_when_the_job_is_run_again(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(IMAGES, image(), image(PNG + b"more"))
    processor, job = make(), ai_job("image")
    for size in (len(PNG), len(PNG) + 4):
        assert (await processor(job))["bytes"] == size
    assert len(tree(tmp_path)) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (image(b""), "no picture in its response"),
        (image(b"<svg/>"), "not PNG, JPEG, WebP"),
        (image(b"\x89PN"), "not PNG, JPEG, WebP"),
        (image(PNG + b"x" * 1100), "picture is longer than 1000 bytes"),
        (image(PNG + b"x" * 200_000), "longer than"),
        (answer({"data": [{"b64_json": "?"}]}), "not base64"),
        (answer({"data": [{"url": "file:///etc/passwd"}]}), "url in its response"),
        (answer({"data": [{"url": "data:text/plain,hello"}]}), "not PNG"),
    ],
)
async def test_a_useless_picture_fails_the_attempt_and_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, script: Any, reason: str
) -> None:
    server.on(IMAGES, script)
    with pytest.raises(AIFailed, match=reason):
        await make(Limits(image_bytes=1000, json_bytes=4000))(ai_job("image"))
    assert tree(tmp_path) == {}


async def test_a_picture_that_cannot_be_written_is_not_ordered(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(MediaFailed, match="cannot be opened"):
        await make(media_root=tmp_path / "gone")(ai_job("image"))
    assert server.requests == []


async def test_a_full_disk_fails_the_attempt_and_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_fd: int, _content: Any) -> int:
        raise OSError(28, "No space left on device")

    server.on(IMAGES, image())
    processor, job = make(), ai_job("image")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(MediaFailed, match="cannot be written: No space left on device"):
            await processor(job)
    assert tree(tmp_path) == {}
    await processor(job)
    # The same order: it is not paid for twice where the provider knows the key.
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


@pytest.mark.parametrize(
    "form", ["{origin}/files/a.png?x=%2F", "/files/a.png?x=%2F", "{odd}/files/a.png?x=%2F"]
)
async def test_a_url_of_the_providers_own_is_fetched_with_the_key(
    server: AIServer, make: Make, tmp_path: Path, form: str
) -> None:
    url = form.format(origin=server.origin, odd=f"HTTP://me:you@127.0.0.1:{server.port}")
    server.on(IMAGES, answer({"data": [{"url": url}]}))
    server.on("GET /files/a.png?x=%2F", content(PNG))
    job = ai_job("image")
    assert await make()(job) == {"path": f"{job.id}.png", "bytes": len(PNG)}
    assert server.requests[1].headers["authorization"] == f"Bearer {KEY}"
    assert (tmp_path / f"{job.id}.png").read_bytes() == PNG


@pytest.mark.parametrize(
    "form",
    [
        "{foreign}/a.png?sig=x",
        "https://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "//127.0.0.1:{foreign_port}/a.png",
        "http://127.0.0.1:{port}@127.0.0.1:{foreign_port}/a.png",
        "http://127.0.0.1.:{port}/a.png",
    ],
)
async def test_a_url_of_somebody_elses_is_the_result_and_never_fetched(
    server: AIServer, make: Make, tmp_path: Path, form: str
) -> None:
    async with AIServer() as foreign:
        url = form.format(foreign=foreign.origin, port=server.port, foreign_port=foreign.port)
        server.on(IMAGES, answer({"data": [{"url": url}]}))
        assert await make()(ai_job("image")) == {"url": url}
        assert foreign.connections == 0
    assert len(server.requests) == 1
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        (answer({}, 302), AIFailed, "redirects are not followed"),
        (answer({"error": "gone"}, 404), Discard, "status 404: gone"),
        (content(b"x" * 900), AIFailed, "not PNG"),
        (content(PNG + b"x" * 2000), AIFailed, "longer than 1000 bytes"),
        (content(b""), AIFailed, "picture is empty"),
        (send(HEAD + b"content-length: 900\r\n\r\n" + PNG), AIFailed, "broke off"),
        (drip(HEAD + b"content-length: 900\r\n\r\n" + PNG, b"x", 0.05), AIFailed, "no response in time"),
        (send(HEAD + b"content-length: 900\r\n\r\n" + PNG, hang_up=False), AIFailed, "no response in time"),
    ],
)
async def test_a_picture_that_cannot_be_fetched_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, script: Any, error: type[Exception], reason: str
) -> None:
    server.on(IMAGES, answer({"data": [{"url": "/a.png"}]}))
    server.on("GET /a.png", script)
    # Short only for what never ends.
    times = {"download_s": 0.4, "silence_s": 0.2} if "in time" in reason else {}
    limits = Limits(image_bytes=1000, **times)
    async with asyncio.timeout(60):
        with pytest.raises(error, match=reason):
            await make(limits)(ai_job("image"))
    assert tree(tmp_path) == {}
