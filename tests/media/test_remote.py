"""A remote media service in ffmpeg's place: a real HTTP server of the test's own, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard
from beeq.media.errors import MediaFailed
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor, MediaProcessor
from tests.media.clips import FakeJob
from tests.webhooks.receiver import Script, send_for_ever

EARLY = b"HTTP/1.1 103 Early Hints\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


class Service:
    """Answers every request with ``status`` and ``body``, or by a script; ``calls`` has what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], Any]] = []
        self.status = "200 OK"
        self.body = b'{"path": "out.mp4"}'
        self.headers = ""
        self.url = ""
        self.script: Script | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line
        }
        content = await reader.readexactly(int(headers["content-length"]))
        self.calls.append((head[0], headers, json.loads(content)))
        if self.script is not None:
            with contextlib.suppress(ConnectionError):
                await self.script(reader, writer)
            return
        start = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(self.body)}\r\n{self.headers}\r\n"
        writer.write(start.encode() + self.body)
        writer.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A media service."""
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.url = f"http://user:hidden@127.0.0.1:{server.sockets[0].getsockname()[1]}/media/"
    async with server:
        yield service


async def ask(service: Service, job_type: str = "frame-extract", **parameters: Any) -> Any:
    settings = ProcessorSettings(media_root=Path("/nowhere"), media_url=service.url)
    job = FakeJob(type=job_type, inputFiles=["a.mp4", "b.mp4"], outputPath="out.mp4", parameters=parameters)
    return await asyncio.wait_for(MediaProcessor(settings)(job), 10)


@pytest.mark.parametrize(
    ("job_type", "operation", "arguments"),
    [
        ("video-stitch", "stitch_videos", {"inputFiles": ["a.mp4", "b.mp4"], "outputPath": "out.mp4"}),
        ("audio-stitch", "stitch_audio", {"inputFiles": ["a.mp4", "b.mp4"], "outputPath": "out.mp4"}),
        (
            "music-mix",
            "mix_with_music",
            {"inputFile": "a.mp4", "musicTrack": "m.mp3", "outputPath": "out.mp4"},
        ),
        ("frame-extract", "extract_last_frame", {"inputFile": "a.mp4", "outputPath": "out.mp4"}),
    ],
)
async def test_an_operation_is_posted_and_the_response_its_result(
    service: Service, job_type: str, operation: str, arguments: dict[str, Any]
) -> None:
    service.body = b'{"path": "out.mp4", "bytes": 123456789012345678901234567890}'
    result = await ask(service, job_type, musicTrack="m.mp3")
    assert result == {"path": "out.mp4", "bytes": 123456789012345678901234567890}
    ((request, headers, content),) = service.calls
    assert request == f"POST /media/{operation} HTTP/1.1"
    assert content == arguments
    assert (headers["content-type"], headers["authorization"][:6]) == ("application/json", "Basic ")


async def test_what_a_job_asks_for_is_posted_with_it(service: Service) -> None:
    service.body = b"{}"
    await ask(service, "music-mix", musicTrack="m.mp3", musicVolume=-6, ducking=True, fadeOut=0.5, other=1)
    ((_, _, content),) = service.calls
    assert content["parameters"] == {"musicVolume": -6, "ducking": True, "fadeOut": 0.5}


def in_project(service: Service) -> ProcessorSettings:
    return ProcessorSettings(media_root=Path("/nowhere"), media_url=service.url, media_projects="separate")


async def ask_in_project(service: Service, job_type: str, inputs: list[str], output: str, **more: Any) -> Any:
    data = {"type": job_type, "inputFiles": inputs, "outputPath": output, "parameters": more}
    processor = MediaProcessor(in_project(service))
    return await asyncio.wait_for(processor(FakeJob(**data, projectId="p 1")), 10)


async def test_every_path_that_is_sent_is_in_the_projects_folder(service: Service) -> None:
    service.body = b'{"path": "p%201/new/out.mp4", "bytes": 1}'
    for job_type in ("video-stitch", "audio-stitch", "music-mix", "frame-extract"):
        result = await ask_in_project(
            service, job_type, ["a.mp4", "b/c..d.mp4"], "new/out.mp4", musicTrack="./m.mp3"
        )
        assert result == {"path": "new/out.mp4", "bytes": 1}
    inputs, output = ["p%201/a.mp4", "p%201/b/c..d.mp4"], "p%201/new/out.mp4"
    assert [content for _, _, content in service.calls] == [
        {"inputFiles": inputs, "outputPath": output},
        {"inputFiles": inputs, "outputPath": output},
        {"inputFile": inputs[0], "musicTrack": "p%201/./m.mp3", "outputPath": output},
        {"inputFile": inputs[0], "outputPath": output},
    ]


async def test_a_film_is_assembled_in_the_projects_folder(service: Service) -> None:
    service.body = b'{"mp4": {"path": "p1/job-1.mp4"}, "mov": {"path": "p1/job-1.mov"}, "x": [1]}'
    data = {"sceneVideos": ["1.mp4"], "masterAudio": "a.wav", "outputFormats": ["mp4", "mov"]}
    processor = AssemblyProcessor(in_project(service))
    result = await asyncio.wait_for(processor(FakeJob(**data, projectId="p1")), 10)
    assert result == {"mp4": {"path": "job-1.mp4"}, "mov": {"path": "job-1.mov"}, "x": [1]}
    ((_, _, content),) = service.calls
    assert content == {
        "sceneVideos": ["p1/1.mp4"],
        "masterAudio": "p1/a.wav",
        "outputFormats": ["mp4", "mov"],
        "outputName": "p1/job-1",
    }


@pytest.mark.parametrize(
    "given",
    [
        *("../p2/a.mp4", "b/../../p2/a.mp4", "/p2/a.mp4", "..", "b/.."),
        *("..\\p2\\a.mp4", "b/..\\..\\a.mp4", "\\p2\\a.mp4", "C:\\a.mp4", "c:a.mp4", "b/", "b/."),
    ],
)
@pytest.mark.parametrize("place", ["input", "music", "output"])
async def test_a_path_out_of_the_project_is_not_sent(service: Service, given: str, place: str) -> None:
    names = {"input": "a.mp4", "music": "m.mp3", "output": "out.mp4"} | {place: given}
    with pytest.raises(Discard, match=r"not inside its project's folder|not the name of a file"):
        await ask_in_project(
            service, "music-mix", [names["input"]], names["output"], musicTrack=names["music"]
        )
    assert service.calls == []


async def test_a_job_without_its_project_is_not_sent(service: Service) -> None:
    job = FakeJob(type="frame-extract", inputFiles=["a.mp4"], outputPath="out.png")
    with pytest.raises(Discard, match="BEEQ_MEDIA_PROJECTS=separate"):
        await MediaProcessor(in_project(service))(job)
    assert service.calls == []


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "422 Unprocessable"])
async def test_a_call_that_the_service_refuses_is_discarded(service: Service, status: str) -> None:
    service.status, service.body = status, b"no such\x1b[31m clip"
    with pytest.raises(Discard, match=rf"status {status[:3]}: no such \[31m clip"):
        await ask(service)


@pytest.mark.parametrize("status", ["429 Too Many", "500 Error", "503 Busy", "302 Found", "101 Switching"])
async def test_a_service_that_cannot_just_now_fails_the_attempt(service: Service, status: str) -> None:
    service.status = status
    service.headers = f"location: {service.url}elsewhere\r\n"
    with pytest.raises(MediaFailed) as failed:
        await ask(service)
    assert len(service.calls) == 1
    assert "hidden" not in str(failed.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"bytes": NaN}', b"x" * 2_000_000])
async def test_an_answer_that_is_no_bounded_json_fails_the_attempt(service: Service, body: bytes) -> None:
    service.body = body
    with pytest.raises(MediaFailed):
        await ask(service)


async def test_a_service_away_fails_the_attempt_hiding_its_password(
    service: Service,
) -> None:
    service.url = "http://user:hidden@127.0.0.1:9/"
    with pytest.raises(MediaFailed, match="media service, extract_last_frame: ConnectError") as failed:
        await ask(service)
    assert "hidden" not in str(failed.value)


async def test_the_environments_proxy_is_not_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert await ask(service) == {"path": "out.mp4"}


async def test_no_log_shows_the_services_password(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """httpx writes URLs into its log, at INFO."""
    caplog.set_level("DEBUG")
    await ask(service)
    ((_, headers, _),) = service.calls
    assert headers["authorization"].startswith("Basic ")
    assert "hidden" not in caplog.text
    assert "send_request_headers" in caplog.text


ENDLESS = {
    "interim responses": (send_for_ever(b"", (EARLY + b"\r\n") * 1000), "did not end: more than 32 interim"),
    "one interim head": (send_for_ever(EARLY, b"a: b\r\n" * 1000), "did not end: more than 32 interim"),
    "empty lines": (send_for_ever(b"", b"\r\n" * 1000), "did not end: more than 32 interim"),
    "header lines": (send_for_ever(HEAD, b"a: b\r\n" * 1000), "RemoteProtocolError"),
    "chunks of one byte": (send_for_ever(CHUNKED, b"1\r\n \r\n" * 1000), "more than 100000 pieces"),
    "long extensions": (send_for_ever(CHUNKED, b"1;" + b"e" * 9000 + b"\r\n \r\n"), "did not end: more than"),
    "a body": (send_for_ever(HEAD + b"\r\n", b" " * 60_000), "longer than 1048576 bytes"),
}


@pytest.mark.parametrize(("script", "reason"), ENDLESS.values(), ids=ENDLESS)
async def test_an_answer_without_an_end_fails_the_attempt(
    service: Service, script: Script, reason: str
) -> None:
    service.script = script
    began_s = time.process_time()
    with pytest.raises(MediaFailed, match=reason):
        await ask(service)
    # Without the bounds it took all the time there was.
    assert time.process_time() - began_s < 10


async def test_a_few_interim_answers_are_no_fault(service: Service) -> None:
    async def patient(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((EARLY + b"\r\n") * 5 + HEAD + b"content-length: 2\r\n\r\n{}")
        writer.close()

    service.script = patient
    assert await ask(service) == {}
