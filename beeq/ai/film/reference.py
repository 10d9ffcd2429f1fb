"""The picture that a video begins with, from a job's ``imageUrl``: a path, a ``data:`` URL, or an address.

A path is below the media root, as an ``image`` job gives it. An address is fetched like a webhook's: from
public addresses and allowed hosts only. Anything that is not a picture, or is too large, fails for good
before a video is requested.
"""

import base64
import os
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.pictures import decoded, image_suffix
from beeq.ai.provider import http_url
from beeq.media.formats import HEAD_BYTES
from beeq.media.paths import MediaRoot, safe_name

_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
}
_DATA = re.compile(r"data:", re.IGNORECASE)
#: A path may hold colons; something that looks like a URL is not a path.
_ADDRESS = re.compile(r"https?:|[a-z][a-z0-9+.-]*://|//", re.IGNORECASE)
_SUBJECT = "the picture of imageUrl"

#: Name, content and type of a picture.
Picture = tuple[str, bytes, str]


class References:
    """Reads and fetches pictures of at most ``client.limits.reference_bytes``.

    Every call raises ``AIRefused`` or ``MediaRefused`` if the picture is not allowed or not a picture,
    ``AIFailed`` or ``MediaFailed`` if another attempt may get it.
    """

    def __init__(self, client: AIClient) -> None:
        self._client = client
        self._max_bytes = client.limits.reference_bytes

    async def picture(self, given: str, root: MediaRoot) -> Picture:
        """Return the picture for an upload; a path is below ``root``."""
        if _DATA.match(given):
            name, content = "picture", self._decoded(given)
        elif _ADDRESS.match(given):
            content = await self._client.strangers_file(_SUBJECT, given, self._max_bytes)
            name = unquote(urlsplit(given).path)
        else:
            name, content = given, self._read(given, root)
        suffix = image_suffix(content[:HEAD_BYTES])
        if suffix not in _TYPES:
            known = ", ".join(sorted(suffix[1:] for suffix in _TYPES))
            raise AIRefused(f"{_SUBJECT} is {f'none of {known}' if content else 'empty'}")
        stem = PurePosixPath(name.rstrip("/")).stem
        return f"{safe_name(stem or 'picture')}{suffix}", content, _TYPES[suffix]

    async def url(self, given: str, root: MediaRoot) -> str:
        """Return a URL for a provider that fetches: an address as it is, anything else as ``data:`` URL."""
        if _ADDRESS.match(given):
            url = http_url(given)
            if url is None:
                raise AIRefused(f"{_SUBJECT} is not a valid http or https URL")
            return given
        _, content, content_type = await self.picture(given, root)
        return f"data:{content_type};base64,{base64.b64encode(content).decode()}"

    def _read(self, given: str, root: MediaRoot) -> bytes:
        with root.opened(given) as fd:
            self._check_size(os.fstat(fd).st_size)
            content = b""
            while piece := os.pread(fd, self._max_bytes + 1 - len(content), len(content)):
                content += piece
        self._check_size(len(content))
        return content

    def _decoded(self, given: str) -> bytes:
        _, comma, text = given.partition(",")
        if not comma:
            raise AIRefused(f"{_SUBJECT}: a data: URL without a comma")
        self._check_size(len(text) // 4 * 3 - 2)
        try:
            content = decoded(given)
        except AIFailed:
            raise AIRefused(f"{_SUBJECT}: its data: URL is not base64") from None
        self._check_size(len(content))
        return content

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise AIRefused(f"{_SUBJECT} is longer than {self._max_bytes} bytes")
