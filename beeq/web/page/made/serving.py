"""Sends a file, or the part that a player asks for; threads read it in pieces, so the loop never waits."""

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from beeq.web.page import rendering
from beeq.web.page.made.files import OpenedFile
from beeq.web.responses import Refusal

_PIECE_BYTES = 256 << 10
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def part_asked_for(headers: Headers, file: OpenedFile) -> tuple[int, int] | None:
    """Return begin and end of the bytes that a request asks for; None: all of them.

    Raises Refusal (416): the file has no such bytes.
    """
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or not (match[1] or match[2]):
        return None  # several parts, too: all of it answers that
    if headers.get("if-range", _tag(file)) != _tag(file):
        return None  # it asks for the rest of an earlier file
    first, last = match[1], match[2]
    begin = int(first) if first else max(0, file.size - int(last))
    end = min(file.size, int(last) + 1) if first and last else file.size
    if begin >= end:
        raise Refusal(416, "The file has no such bytes", headers={"content-range": f"bytes */{file.size}"})
    return begin, end


def response_of(headers: Headers, file: OpenedFile, *, is_head: bool, is_saved: bool) -> Response:
    """Return the response with the file, which is closed at its end. Raises Refusal as above."""
    part = part_asked_for(headers, file)
    begin, end = part or (0, file.size)
    shows = "inline" if file.kind.kind is not None and not is_saved else "attachment"
    sent = {
        **rendering.SAFETY,
        **rendering.NEVER_KEPT,
        "accept-ranges": "bytes",
        "content-disposition": f"{shows}; {_file_name(file.name)}",
        "content-length": str(end - begin),
        "content-type": file.kind.media_type,
        "etag": _tag(file),
    }
    if part is not None:
        sent["content-range"] = f"bytes {begin}-{end - 1}/{file.size}"
    status = 200 if part is None else 206
    if is_head:
        file.close()
        return Response(status_code=status, headers=sent)
    return _FileResponse(file, begin, end, status, sent)


class _FileResponse(StreamingResponse):
    """Sends a part of a file, and closes it."""

    def __init__(self, file: OpenedFile, begin: int, end: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(_pieces(file, begin, end), status, headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _pieces(file: OpenedFile, begin: int, end: int) -> AsyncIterator[bytes]:
    while begin < end:
        piece = await file.read(min(_PIECE_BYTES, end - begin), begin)
        if not piece:
            return  # the file has been cut off since
        begin += len(piece)
        yield piece


def _tag(file: OpenedFile) -> str:
    return f'"{file.version}"'


def _file_name(name: str) -> str:
    plain = "".join(each if each.isascii() else "_" for each in name)
    extended = "" if name.isascii() else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'filename="{plain}"{extended}'
