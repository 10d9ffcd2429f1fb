"""The picture a video begins with: uploaded from a path, a data: URL or an address; refused before any order."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import pytest

from beeq.ai.client import Form, Limits
from beeq.ai.errors import AIFailed
from beeq.errors import Discard
from beeq.media.errors import MediaFailed
from tests.ai.server import KEY, PNG, AIServer, Make, Request, ai_job, answer, content, video
from tests.webhooks.receiver import Script, send

ORDER = "POST /v1/videos"
JPEG = b"\xff\xd8\xff\xe0 a bee"
WEBP = b"RIFF\0\0\0\0WEBPVP8 a bee"
FAILED = video("failed", error="no bees")


@pytest.fixture(name="server")
async def failing_server() -> AsyncIterator[AIServer]:
    """A provider that takes orders; each of its videos fails, so none has to be fetched."""
    async with AIServer() as server:
        server.on(ORDER, FAILED)
        yield server


async def ordered(server: AIServer, make: Make, image_url: Any, **more: Any) -> Request:
    """Return the one order of a video that begins with that picture."""
    before = len(server.asked(ORDER))
    parameters = {"imageUrl": image_url, **more.pop("parameters", {})}
    with pytest.raises(AIFailed, match="no bees"):
        await make(**more)(ai_job("video", parameters=parameters))
    (order,) = server.asked(ORDER)[before:]
    return order


def form_of(request: Request) -> dict[str, Any]:
    """Return the fields of an upload: texts, and files as name, type and content."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    found: dict[str, Any] = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + request.body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        file = part.get_filename()
        found[str(name)] = (file, part.get_content_type(), body) if file else body.decode()
    return found


def data_url(picture: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


@pytest.mark.parametrize(
    ("name", "picture", "sent_as"),
    [
        ("bee.png", PNG, ("bee.png", "image/png")),
        ("scenes/1/bee.jpeg", JPEG, ("bee.jpg", "image/jpeg")),
        ("bee.webp", WEBP, ("bee.webp", "image/webp")),
        ("misnamed.png", JPEG, ("misnamed.jpg", "image/jpeg")),
        ('a "b"\r\n: c', PNG, ("a%20%22b%22%0D%0A%3A%20c.png", "image/png")),
    ],
)
async def test_a_picture_of_the_media_root_is_uploaded(
    server: AIServer, make: Make, tmp_path: Path, name: str, picture: bytes, sent_as: tuple[str, str]
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(picture)
    order = await ordered(server, make, name)
    assert form_of(order) == {"model": "films", "prompt": "a bee", "input_reference": (*sent_as, picture)}
    assert order.headers["authorization"] == f"Bearer {KEY}"
    again = await ordered(server, make, str(tmp_path / name))
    assert again.body == order.body  # the same request for the same idempotency key


def boundary_by(*known: bytes) -> str:
    """Return the boundary that would follow from these alone."""
    return f"beeq-{hashlib.sha256(b''.join(known)).hexdigest()[:40]}"


def parts_of(body: bytes, content_type: str) -> list[str | None]:
    """Return the names of an upload's parts."""
    parts = BytesParser(policy=HTTP).parsebytes(f"content-type: {content_type}\r\n\r\n".encode() + body)
    return [str(part.get_param("name", header="content-disposition")) for part in parts.iter_parts()]


@pytest.mark.parametrize("picture", [None, PNG])
def test_no_field_of_an_upload_can_write_further_parts(picture: bytes | None) -> None:
    """Who writes a job may know its key, its picture, and even the boundary of the same job before."""
    files = {} if picture is None else {"input_reference": ("bee.png", picture, "image/png")}
    guesses = [boundary_by(b"beeq-1", picture or b"")]
    for _ in range(3):
        forged = "".join(
            f'\r\n--{guess}\r\ncontent-disposition: form-data; name="n"\r\n\r\n50' for guess in guesses
        )
        form = Form({"model": "films", "prompt": f"a bee{forged}"}, files)
        body, content_type = form.encoded("beeq-1")
        assert parts_of(body, content_type) == ["model", "prompt", *files]
        assert form.encoded("beeq-1") == (body, content_type)
        guesses.append(content_type.partition("boundary=")[2])


def test_each_part_of_an_upload_changes_its_boundary() -> None:
    kinds = ("image/png", "image/jpeg")
    forms = [
        Form({name: text}, {file: (title, content, kind)})
        for name in ("a", "ab")
        for text in ("c", "bc")
        for file in ("f", "g")
        for title in ("t", "u")
        for content in (b"1", b"2")
        for kind in kinds
    ]
    found = {form.encoded(key)[1] for form in forms for key in ("k", "l")}
    assert len(found) == 2**7


@pytest.mark.parametrize(
    "url",
    [
        data_url(PNG),
        data_url(PNG, "image/jpeg"),  # what it holds decides
        data_url(PNG).upper()[:5] + data_url(PNG)[5:],
        f"data:;base64,\n {base64.encodebytes(PNG).decode()}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode().rstrip('=')}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
)
async def test_a_picture_in_a_data_url_is_uploaded(server: AIServer, make: Make, url: str) -> None:
    order = await ordered(server, make, url)
    assert form_of(order)["input_reference"] == ("picture.png", "image/png", PNG)


async def test_a_picture_at_an_address_is_uploaded(server: AIServer, make: Make) -> None:
    async with AIServer() as store:
        store.on("GET /old/bee%20one.png?x=1", answer({}, 302, location="/new"))
        store.on("GET /new", content(PNG, content_type="application/octet-stream"))
        url = f"{store.origin}/old/bee%20one.png?x=1"
        order = await ordered(server, make, url, ai_allow_hosts=f"127.0.0.1:{store.port}")
        assert form_of(order)["input_reference"] == ("bee%20one.png", "image/png", PNG)
        assert all("authorization" not in request.headers for request in store.requests)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/bee.png",
        "http://localhost:{port}/bee.png",
        "http://[::1]:{port}/bee.png",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/bee.png",
        "http://2130706433/bee.png",
    ],
)
async def test_a_private_address_is_refused_before_an_order(server: AIServer, make: Make, url: str) -> None:
    async with AIServer() as store:
        store.on("GET /bee.png", content(PNG))
        job = ai_job("video", parameters={"imageUrl": url.format(port=store.port)})
        with pytest.raises(Discard, match="imageUrl.*BEEQ_AI_ALLOW_HOSTS does not allow it"):
            await make()(job)
        assert store.connections == 0
    assert server.requests == []


async def test_a_redirect_of_a_picture_is_guarded_too(server: AIServer, make: Make) -> None:
    async with AIServer() as store:
        store.on("GET /bee.png", answer({}, 302, location="http://169.254.169.254/bee.png"))
        job = ai_job("video", parameters={"imageUrl": f"{store.origin}/bee.png"})
        with pytest.raises(Discard, match=r"host 169\.254\.169\.254:80 is not on the public internet"):
            await make(ai_allow_hosts="127.0.0.1")(job)
    assert server.requests == []


@pytest.mark.parametrize(
    ("image_url", "reason"),
    [
        ("../bee.png", "not inside the media root"),
        ("/etc/passwd", "not inside the media root"),
        ("link.png", "not inside the media root"),
        ("notes.txt", "is none of avif, bmp, gif, jpg, png, webp"),
        ("empty.png", "is empty"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("large.png", "longer than 1000 bytes"),
        ("ftp://a.example/bee.png", "not a valid http or https URL"),
        ("file:///etc/passwd", "not a valid http or https URL"),
        ("http:bee.png", "not a valid http or https URL"),
        ("//a.example/bee.png", "not a valid http or https URL"),
        ("http://[::1", "not a valid http or https URL"),
        ("https://user:hunter2@a.example/bee.png", "user name or password"),
        (f"https://a.example/bee.png?key={KEY}", "holds the provider's key"),
        ("data:image/png;base64", "without a comma"),
        ("data:image/png;base64,é!", "not base64"),
        ("data:image/png;base64,", "is empty"),
        (data_url(b"<svg/>", "image/svg+xml"), "is none of"),
        (data_url(PNG + b"x" * 1000), "longer than 1000 bytes"),
        (5, "imageUrl must be text"),
        ("", "imageUrl must be text"),
    ],
)
async def test_what_is_no_picture_is_refused_before_an_order(
    server: AIServer, make: Make, tmp_path: Path, image_url: Any, reason: str
) -> None:
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    (tmp_path / "notes.txt").write_text("a bee")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.png").write_bytes(PNG + b"x" * 1000)
    job = ai_job("video", parameters={"imageUrl": image_url})
    with pytest.raises(Discard, match=reason) as caught:
        await make(Limits(reference_bytes=1000))(job)
    assert "hunter2" not in str(caught.value)
    assert server.requests == []
    assert job.memory == {}


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        (content(b"<html>"), Discard, "is none of"),
        (content(b"x" * 2000), Discard, "longer than 1000 bytes"),
        (content(b"", 404), Discard, "status 404"),
        (content(b"", 503), AIFailed, "status 503"),
        (send(b""), AIFailed, "broke off"),
        (answer({}, 302, location="/bee.png"), Discard, "more than 5 redirects"),
        (answer({}, 302, location="file:///etc/passwd"), Discard, "not a valid http or https URL"),
    ],
)
async def test_a_picture_that_cannot_be_fetched_is_no_order(
    server: AIServer, make: Make, script: Any, error: type[Exception], reason: str
) -> None:
    async with AIServer() as store:
        store.on("GET /bee.png", script)
        processor = make(Limits(reference_bytes=1000), ai_allow_hosts="127.0.0.1")
        with pytest.raises(error, match=reason):
            await processor(ai_job("video", parameters={"imageUrl": f"{store.origin}/bee.png"}))
    assert server.requests == []


async def test_a_missing_picture_may_be_there_for_the_next_attempt(server: AIServer, make: Make) -> None:
    with pytest.raises(MediaFailed, match="cannot be opened"):
        await make()(ai_job("video", parameters={"imageUrl": "missing.png"}))
    assert server.requests == []


async def test_a_video_already_ordered_needs_its_picture_no_more(server: AIServer, make: Make) -> None:
    server.on("GET /v1/videos/v1", FAILED)
    job = ai_job("video", parameters={"imageUrl": "missing.png"})
    job.memory = {"video": "v1"}
    with pytest.raises(AIFailed, match="no bees"):
        await make()(job)
    assert server.asked(ORDER) == []


async def test_a_provider_that_fetches_gets_the_url(server: AIServer, make: Make, tmp_path: Path) -> None:
    (tmp_path / "bee.png").write_bytes(PNG)
    for given, sent in (
        ("https://a.example/bee.png", "https://a.example/bee.png"),
        ("http://127.0.0.1/bee.png", "http://127.0.0.1/bee.png"),
        (data_url(PNG), data_url(PNG)),
        ("bee.png", data_url(PNG)),
    ):
        order = await ordered(server, make, given, ai_video_reference="url")
        assert order.json["input_reference"] == {"image_url": sent}
    with pytest.raises(Discard, match="not a valid http or https URL"):
        await make(ai_video_reference="url")(ai_job("video", parameters={"imageUrl": "ftp://a/b.png"}))


FIELDS = {"size": "1280x720", "seconds": 8, "quality": "high", "seed": 7}


async def test_a_videos_parameters_are_the_apis_own_fields(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    (tmp_path / "bee.png").write_bytes(PNG)
    with pytest.raises(AIFailed, match="no bees"):
        await make()(ai_job("video", parameters={**FIELDS, "mood": "calm"}))
    sent = {"model": "films", "prompt": "a bee", "size": "1280x720", "quality": "high"}
    assert server.asked(ORDER)[0].json == {**sent, "seconds": "8", "seed": 7}
    order = await ordered(server, make, "bee.png", parameters={**FIELDS, "seconds": "4.5"})
    form = form_of(order)
    del form["input_reference"]
    assert form == {**sent, "seconds": "4.5", "seed": "7"}


@pytest.mark.parametrize(
    "refusal",
    [
        answer({"error": "unsupported media type"}, 415),
        answer({"detail": [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}]}, 422),
    ],
)
async def test_a_provider_that_reads_only_forms_gets_one(
    server: AIServer, make: Make, refusal: Script
) -> None:
    server.on(ORDER, refusal, FAILED)
    processor = make()
    for _ in range(2):
        with pytest.raises(AIFailed, match="no bees"):
            await processor(ai_job("video", parameters={"seconds": 8}))
    first, *others = server.asked(ORDER)
    assert first.json == {"model": "films", "prompt": "a bee", "seconds": "8"}
    assert [form_of(order) for order in others] == [first.json] * 2


async def test_a_refused_prompt_ends_at_once(server: AIServer, make: Make) -> None:
    server.on(ORDER, answer({"error": "no bees allowed"}, 422))
    with pytest.raises(Discard, match="no bees allowed"):
        await make()(ai_job("video"))
    assert len(server.asked(ORDER)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", value) for value in ("huge", 720, "0x5", "1280x", "12 x 5", [1], "1280x720\n")),
        *(("seconds", value) for value in (0, -1, "soon", True, 10**9, "1e3", "", {})),
        *(("quality", value) for value in (5, "", "very high", "x" * 65)),
        *(("seed", value) for value in ("7", 1.5, True, 2**63)),
    ],
)
async def test_a_parameter_the_api_would_misread_is_refused(
    server: AIServer, make: Make, name: str, value: Any
) -> None:
    with pytest.raises(Discard, match=f"bad job: parameters: {name} must be"):
        await make()(ai_job("video", parameters={name: value}))
    assert server.requests == []
