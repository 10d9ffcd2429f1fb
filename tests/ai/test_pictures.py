"""Pictures inside responses: base64 in every form that providers write it in."""

from __future__ import annotations

import base64
import textwrap
from typing import Any
from urllib.parse import quote

import pytest

from beeq.ai.errors import AIFailed
from beeq.ai.pictures import decoded, image_suffix
from tests.ai.server import IMAGES, AIServer, Make, ai_job, answer
from tests.media.clips import tree

#: Its base64 holds "+", "/", "-", "_" and padding, and is longer than a path.
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) + b"\xfb\xef\xbe\xff\xff"
PLAIN = base64.b64encode(PICTURE).decode()
URL_SAFE = base64.urlsafe_b64encode(PICTURE).decode()
FORMS = [
    PLAIN,
    URL_SAFE,
    PLAIN.rstrip("="),
    URL_SAFE.rstrip("="),
    "\n".join(textwrap.wrap(PLAIN, 76)) + "\n",
    "\r\n".join(textwrap.wrap(URL_SAFE.rstrip("="), 64)),
    f"data:image/png;base64,{PLAIN}",
    f"DATA:image/png;name=a.png;BASE64,{URL_SAFE}",
    f"data:;base64,{quote(PLAIN, safe='')}",
    "data:image/png;base64,\n" + "\n".join(textwrap.wrap(PLAIN, 76)),
    f"data:image/png,{quote(PICTURE)}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["b64_json", "url"])
async def test_a_picture_is_read_in_every_form(
    server: AIServer, make: Make, tmp_path: Any, form: str, name: str
) -> None:
    server.on(IMAGES, answer({"data": [{name: form}]}))
    result = await make()(ai_job("image"))
    assert tree(tmp_path) == {result["path"]: PICTURE}


@pytest.mark.parametrize(
    "response",
    [
        {"data": [PLAIN]},
        {"images": [PLAIN]},
        {"images": [{"image_url": {"url": f"data:image/png;base64,{PLAIN}"}}]},
        {"data": [{"b64_json": None, "image": PLAIN}]},
    ],
)
async def test_a_picture_is_found_where_servers_put_it(
    server: AIServer, make: Make, tmp_path: Any, response: Any
) -> None:
    server.on(IMAGES, answer(response))
    await make()(ai_job("image"))
    assert [*tree(tmp_path).values()] == [PICTURE]


@pytest.mark.parametrize("text", ["é", "a", "====a", "data:image/png;base64,?", "iVBO!w0K"])
def test_what_is_not_base64_fails(text: str) -> None:
    with pytest.raises(AIFailed, match="not base64"):
        decoded(text)


@pytest.mark.parametrize(
    "head", [b"", b"BM", b"BMW is no picture at all", b"\0\0\0\x18ftypisom", b"GIF", b"RIFF"]
)
def test_other_bytes_are_no_picture(head: bytes) -> None:
    assert image_suffix(head) is None
