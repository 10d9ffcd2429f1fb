"""The files that jobs made, on their screens: which are sent, as what, in which parts, and which never."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from beeq.web.page.made.kinds import kind_of
from tests.media import bombs
from tests.web.page.conftest import client_of
from tests.web.page.forms import text_of

HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(range(256)) * 4000
MADE = "/q/media-processing/jobs/1/files/0"
RESULT = {"path": "films/a.mp4", "bytes": len(MP4), "duration": 12.5, "streams": []}


def write(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with a film in it; beside it lies what is nobody's business."""
    root = tmp_path / "media"
    write(root, "films/a.mp4", MP4)
    write(tmp_path, "secret.mp4", MP4)
    return root


@pytest.fixture
async def client(make_page, root):
    async with client_of(make_page(media_root=root)) as client:
        yield client


def gif() -> bytes:
    return bombs.gif(2, 2)


@pytest.mark.parametrize(
    ("content", "kind", "media_type"),
    [
        (bombs.png(2, 2), "picture", "image/png"),
        (bombs.jpeg(2, 2), "picture", "image/jpeg"),
        (bombs.webp(2, 2), "picture", "image/webp"),
        (gif(), "picture", "image/gif"),
        (gif() + HTML, "picture", "image/gif"),
        (bombs.wav(8000, 100), "sound", "audio/wav"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom", "sound", "audio/mp4"),
        (b"OggS" + bytes(100), "sound", "audio/ogg"),
        (MP4, "film", "video/mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "film", "video/quicktime"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "film", "video/webm"),
        (b"II*\0" + HTML, None, "application/octet-stream"),
        (b"FLV\x01" + HTML, None, "application/octet-stream"),
    ],
)
def test_content_alone_says_as_what_a_file_is_sent(content, kind, media_type):
    found = kind_of(lambda offset, length: content[offset : offset + length])
    assert found is not None
    assert (found.kind, found.media_type) == (kind, media_type)


@pytest.mark.parametrize("content", [HTML, SVG, b"", b"%PDF-1.7", b"\n" + SVG, b"RIFF", b"#EXTM3U\n"])
def test_what_holds_no_picture_sound_or_film_has_no_type(content):
    assert kind_of(lambda offset, length: content[offset : offset + length]) is None


async def test_a_job_shows_the_film_that_it_made(client, finish):
    await finish("media-processing", {"1": RESULT})
    shown = await client.get("/q/media-processing/jobs/1")
    assert f'<video src="{MADE}"' in shown.text
    assert "films/a.mp4 · 1000.0 KiB · 12s" in text_of(shown)
    sent = await client.get(MADE)
    assert sent.status_code == 200
    assert sent.content == MP4
    assert sent.headers["content-type"] == "video/mp4"
    assert sent.headers["content-disposition"] == 'inline; filename="a.mp4"'
    assert sent.headers["x-content-type-options"] == "nosniff"
    assert sent.headers["content-security-policy"].startswith("default-src 'self';")
    assert sent.headers["cache-control"] == "no-store"
    saved = await client.get(MADE, params={"save": "1"})
    assert saved.headers["content-disposition"] == 'attachment; filename="a.mp4"'


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=500000-", 500_000, len(MP4)),
        ("bytes=-10", len(MP4) - 10, len(MP4)),
        ("bytes=100-99999999", 100, len(MP4)),
        ("bytes=-99999999", 0, len(MP4)),
    ],
)
async def test_a_player_gets_the_part_that_it_asks_for(client, finish, asked, begin, end):
    await finish("media-processing", {"1": RESULT})
    for method in ("GET", "HEAD"):
        sent = await client.request(method, MADE, headers={"range": asked})
        assert sent.status_code == 206
        assert sent.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(MP4)}"
        assert sent.headers["content-length"] == str(end - begin)
        assert sent.content == (MP4[begin:end] if method == "GET" else b"")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"range": f"bytes={len(MP4)}-"}, 416),
        ({"range": "bytes=-0"}, 416),
        ({"range": "bytes=9-3"}, 416),
        ({"range": "bytes=0-1,5-6"}, 200),
        ({"range": "bytes=-"}, 200),
        ({"range": "lines=1-2"}, 200),
        ({"range": "bytes=0-0", "if-range": '"of-another-file"'}, 200),
    ],
)
async def test_a_part_that_cannot_be_is_refused_or_all_is_sent(client, finish, headers, status):
    await finish("media-processing", {"1": RESULT})
    sent = await client.get(MADE, headers=headers)
    assert sent.status_code == status
    if status == 416:
        assert sent.headers["content-range"] == f"bytes */{len(MP4)}"
    else:
        assert sent.content == MP4


async def test_the_rest_of_a_file_that_was_replaced_is_not_sent(client, finish, root):
    await finish("media-processing", {"1": RESULT})
    tag = (await client.get(MADE)).headers["etag"]
    same = await client.get(MADE, headers={"range": "bytes=5-", "if-range": tag})
    assert same.status_code == 206
    write(root, "films/b.mp4", MP4).rename(root / "films/a.mp4")
    other = await client.get(MADE, headers={"range": "bytes=5-", "if-range": tag})
    assert (other.status_code, other.content) == (200, MP4)


@pytest.mark.parametrize(
    "path",
    ["../secret.mp4", "link.mp4", "folder/secret.mp4", ".hidden/a.mp4", "pipe", "films", "gone.mp4", "page.mp4", "a\0b", "x" * 5000],
)  # fmt: skip
async def test_no_result_leads_out_or_to_what_is_no_media(client, finish, root, path):
    (root / "link.mp4").symlink_to(root.parent / "secret.mp4")
    (root / "folder").symlink_to(root.parent)
    write(root, ".hidden/a.mp4", MP4)
    write(root, "page.mp4", HTML)
    os.mkfifo(root / "pipe")
    await finish("media-processing", {"1": {"path": path}})
    sent = await client.get(MADE)
    assert sent.status_code == 404
    shown = await client.get("/q/media-processing/jobs/1")
    assert shown.status_code == 200
    for answer in (sent, shown):
        assert str(root) not in answer.text
    assert "<video" not in shown.text


@pytest.mark.parametrize(
    "result",
    [None, 5, "films/a.mp4", [{"path": "films/a.mp4"}], {"path": 5}, {"path": ""}, {"mp4": {"path": "films/a.mp4"}}],
)  # fmt: skip
async def test_a_result_of_another_shape_names_no_file(client, finish, result):
    await finish("media-processing", {"1": result})
    assert (await client.get(MADE)).status_code == 404
    assert "Made by this job" not in text_of(await client.get("/q/media-processing/jobs/1"))


@pytest.mark.parametrize("number", ["1", "-1", "00000", "x", "²", "..%2Ffilms%2Fa.mp4"])
async def test_an_address_names_a_place_in_the_result_only(client, finish, number):
    await finish("media-processing", {"1": RESULT})
    assert (await client.get(f"/q/media-processing/jobs/1/files/{number}")).status_code == 404


async def test_each_format_of_an_assembled_film_is_shown(client, finish, root):
    write(root, "7.webm", b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm")
    write(root, "7.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    result = {name: {"path": f"7.{name}"} for name in ("webm", "mov", "mp4")}
    await finish("video-assembly", {"7": result})
    shown = await client.get("/q/video-assembly/jobs/7")
    assert shown.text.count("<video") == 2
    assert "'7.mp4' cannot be opened" in text_of(shown)
    sent = await client.get("/q/video-assembly/jobs/7/files/1")
    assert sent.headers["content-type"] == "video/quicktime"


async def test_a_queue_that_is_not_built_in_shows_no_files(client, finish):
    await finish("films", {"1": RESULT})
    assert (await client.get("/q/films/jobs/1/files/0")).status_code == 404


async def test_without_a_media_root_the_screen_says_what_to_set(make_page, finish, monkeypatch, root):
    monkeypatch.delenv("BEEQ_MEDIA_ROOT", raising=False)
    await finish("media-processing", {"1": RESULT})
    async with client_of(make_page()) as client:
        assert "BEEQ_MEDIA_ROOT" in text_of(await client.get("/q/media-processing/jobs/1"))
        assert (await client.get(MADE)).status_code == 404
    monkeypatch.setenv("BEEQ_MEDIA_ROOT", str(root))
    async with client_of(make_page()) as client:
        assert (await client.get(MADE)).content == MP4


async def test_hidden_data_hide_the_files_too(make_page, finish, root):
    await finish("media-processing", {"1": RESULT})
    async with client_of(make_page(media_root=root, hides_data=True)) as client:
        assert (await client.get(MADE)).status_code == 404
        assert "films/a.mp4" not in (await client.get("/q/media-processing/jobs/1")).text


async def test_who_may_look_sees_files_and_a_stranger_none(make_page, finish, root):
    await finish("media-processing", {"1": RESULT})
    page = make_page(media_root=root, token="acts-acts", read_token="looks-looks")
    async with client_of(page) as client:
        assert (await client.get(MADE)).status_code in (303, 401)
        answer = await client.get(MADE, headers={"authorization": "Bearer looks-looks"})
        assert answer.content == MP4
        foreign = {"authorization": "Bearer looks-looks", "sec-fetch-site": "cross-site"}
        assert (await client.get(MADE, headers=foreign)).status_code == 403


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"projectId": "one"}, 200),
        ({"projectId": "two"}, 404),
        ({"projectId": "../films"}, 404),
        ({}, 404),
        ("nothing", 404),
    ],
)
async def test_separate_projects_see_their_own_files_only(make_page, finish, root, monkeypatch, data, status):
    monkeypatch.setenv("BEEQ_MEDIA_PROJECTS", "separate")
    write(root, "one/films/a.mp4", MP4)
    job = {"type": "frame-extract", "inputFiles": ["x.mp4"], "outputPath": "films/a.mp4"}
    await finish("media-processing", {"1": RESULT}, data={**job, **data} if isinstance(data, dict) else data)
    async with client_of(make_page(media_root=root)) as client:
        assert (await client.get(MADE)).status_code == status
        shown = await client.get("/q/media-processing/jobs/1")
        assert ("<video" in shown.text) is (status == 200)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x.html", 'filename="x.html.mp4"'),
        ('a";x=\r\n.mp4', 'filename="a__x___.mp4"'),
        ("\u202e4pm.exe", 'filename="_4pm.exe.mp4"'),
        ("Übung 3.mp4", "filename=\"_bung 3.mp4\"; filename*=UTF-8''%C3%9Cbung%203.mp4"),
        ("films/<script>.mp4", 'filename="_script_.mp4"'),
    ],
)
async def test_a_saved_file_has_a_plain_name_and_its_own_suffix(client, finish, root, path, name):
    write(root, path, MP4)
    await finish("media-processing", {"1": {"path": path}})
    sent = await client.get(MADE)
    assert sent.headers["content-disposition"] == f"inline; {name}"


async def test_files_are_closed_however_a_response_ends(client, finish):
    await finish("media-processing", {"1": RESULT})

    def open_media() -> list[str]:
        return [name for each in Path("/proc/self/fd").iterdir() if (name := _target(each)).endswith("a.mp4")]

    for headers in ({}, {"range": "bytes=5-9"}, {"range": f"bytes={len(MP4)}-"}):
        for method in ("GET", "HEAD"):
            await client.request(method, MADE, headers=headers)
    await client.get("/q/media-processing/jobs/1")
    assert open_media() == []


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize(("name", "number"), [("dup", errno.EMFILE), ("pread", errno.EIO)])
async def test_a_file_that_the_system_fails_is_said(client, finish, monkeypatch, name, number):
    await finish("media-processing", {"1": RESULT})

    def fail(*_given: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)
    assert f"cannot be read: {os.strerror(number)}" in text_of(await client.get("/q/media-processing/jobs/1"))
    assert (await client.get(MADE)).status_code == 404


async def test_a_folder_that_hangs_holds_no_screen_up(finish, root, make_page, monkeypatch):
    released = threading.Event()

    def hang(*_: Any) -> Any:
        released.wait(30)
        raise OSError

    monkeypatch.setattr("beeq.web.page.made.files._opened", hang)
    monkeypatch.setattr("beeq.web.page.made.files._LOOK_S", 0.1)
    await finish("media-processing", {"1": RESULT})
    try:
        async with client_of(make_page(media_root=root)) as client:
            shown = await client.get("/q/media-processing/jobs/1")
            assert "the media root does not answer" in text_of(shown)
            assert (await client.get(MADE)).status_code == 503
    finally:
        released.set()
