"""Media work by a service on another machine: each operation is one POST, whose response is the result.

``<url>/<operation>`` gets the call's arguments as a JSON object: ``stitch_videos`` and
``stitch_audio`` get ``inputFiles`` and ``outputPath``, ``mix_with_music`` gets ``inputFile``,
``musicTrack`` and ``outputPath``, ``extract_last_frame`` gets ``inputFile`` and ``outputPath``.
``assemble_video`` gets ``sceneVideos``, ``masterAudio``, ``outputFormats`` and ``outputName``: each
format (``mp4``, ``webm``, ``mov``) is to be written to the name, a dot and the format, and the response
is an object of each one's facts. Each gets ``parameters`` too, an object, if the job has any that
``beeq.jobs.MediaParameters`` names. The service decides which paths are allowed. Where each project has a
folder, every path that is sent begins with it, and one that would lead out is refused here; the links below
the folder are the service's own to check. Its responses are bounded, the interim ones (1xx) in front of them
too, and its redirects are not followed.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Self

import httpcore
import httpx

from beeq.http_client.connections import Connections, OwnedNetwork
from beeq.http_client.head import EndlessResponse, ResponseHead
from beeq.jobs import MediaParameters
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.service import Reach
from beeq.protocol.codec import dumps, loads

#: The response holds facts, not a file.
MAX_RESPONSE_BYTES = 1024 * 1024
#: From sending the request to the end of the response; the job's own timeout is usually shorter.
LIMIT_S = 3 * 60 * 60.0
_CONNECT_S = 10.0
#: The framing of a response in chunks may be as long as the response itself, and its head is as well bounded.
_MAX_FRAMED_BYTES = 2 * MAX_RESPONSE_BYTES
#: More pieces than that, of any size, are given up: each takes time.
_MAX_PIECES = 100_000
_NETWORK_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError)
_PLAIN = MediaParameters()
#: The service may be on a system of the other kind.
_SEPARATOR = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")


class RemoteMedia:
    """The operations of a media service, see ``LocalMedia``; progress is not known before the end.

    User and password in the service's base ``url`` are sent as basic authentication. ``folder`` is the
    project's, as the service names it.
    """

    def __init__(self, url: str, folder: str = "") -> None:
        self._given_url = url
        self._folder = folder
        given = httpx.URL(url.rstrip("/"))
        # Not in the URL, which messages may name.
        user = f"{given.username}:{given.password}".encode()
        self._auth = {"authorization": f"Basic {base64.b64encode(user).decode()}"} if given.userinfo else {}
        self._url = str(given.copy_with(userinfo=b""))

    def in_project(self, folder: str) -> Self:
        """Return the operations on the files of one project, whose folder is below the service's root."""
        return type(self)(self._given_url, folder)

    async def stitch_videos(
        self, input_files: Sequence[str], output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Join videos in order."""
        return await self._call(
            "stitch_videos",
            reach,
            parameters,
            inputFiles=self._named(input_files),
            outputPath=self._name(output_path),
        )

    async def stitch_audio(
        self, input_files: Sequence[str], output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Join sounds in order."""
        return await self._call(
            "stitch_audio",
            reach,
            parameters,
            inputFiles=self._named(input_files),
            outputPath=self._name(output_path),
        )

    async def mix_with_music(
        self,
        input_file: str,
        music_track: str,
        output_path: str,
        reach: Reach,
        parameters: MediaParameters = _PLAIN,
    ) -> Any:
        """Mix music into a video or a sound, whose length it keeps."""
        return await self._call(
            "mix_with_music",
            reach,
            parameters,
            inputFile=self._name(input_file),
            musicTrack=self._name(music_track),
            outputPath=self._name(output_path),
        )

    async def extract_last_frame(
        self, input_file: str, output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Write the last picture of a video as an image."""
        return await self._call(
            "extract_last_frame",
            reach,
            parameters,
            inputFile=self._name(input_file),
            outputPath=self._name(output_path),
        )

    async def assemble_video(
        self,
        scene_videos: Sequence[str],
        master_audio: str,
        output_formats: Sequence[str],
        output_name: str,
        reach: Reach,
        *,
        parameters: MediaParameters = _PLAIN,
    ) -> Any:
        """Join scenes in order, with a master in place of their sound."""
        return await self._call(
            "assemble_video",
            reach,
            parameters,
            sceneVideos=self._named(scene_videos),
            masterAudio=self._name(master_audio),
            outputFormats=[*output_formats],
            outputName=self._name(output_name),
        )

    def _name(self, given: str) -> str:
        """Return the path to send; raises MediaRefused for one that is not inside the project's folder."""
        if not self._folder:
            return given
        parts = _SEPARATOR.split(given)
        if ".." in parts or not parts[0] or _DRIVE.match(given):
            raise MediaRefused(f"{shown(given)} is not inside its project's folder")
        if parts[-1] in ("", "."):
            raise MediaRefused(f"{shown(given)} is not the name of a file")
        return f"{self._folder}/{given}"

    def _named(self, given: Sequence[str]) -> list[str]:
        return [self._name(name) for name in given]

    def _as_given(self, facts: Any) -> Any:
        """Return a result with its paths as the job gave them, without the project's folder."""
        if not self._folder or not isinstance(facts, dict):
            return facts
        path = facts.get("path")
        if isinstance(path, str):
            return {**facts, "path": path.removeprefix(f"{self._folder}/")}
        return {name: self._as_given(inner) for name, inner in facts.items()}

    async def _call(self, operation: str, reach: Reach, parameters: MediaParameters, **arguments: Any) -> Any:
        if given := parameters.as_given():
            arguments["parameters"] = given
        reach(1)
        try:
            async with asyncio.timeout(LIMIT_S):
                status, body = await self._post(operation, dumps(arguments))
        except EndlessResponse as endless:
            raise MediaFailed(f"media service, {operation}: its response did not end: {endless}") from None
        except (TimeoutError, *_NETWORK_ERRORS, httpx.InvalidURL) as error:
            # The error's own text may repeat the URL.
            raise MediaFailed(f"media service, {operation}: {type(error).__name__}") from None
        return self._as_given(_result(operation, status, body))

    async def _post(self, operation: str, content: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the response."""
        url = httpx.URL(f"{self._url}/{operation}")
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        # "identity": the bound on the response would not bound what compressed bytes expand to.
        headers = {
            "host": url.netloc.decode(),
            "content-type": "application/json",
            "accept-encoding": "identity",
            **self._auth,
        }
        # One connection for each call: calls last minutes, and a proxy may have dropped an idle one.
        connections = Connections(OwnedNetwork, httpx.create_ssl_context(trust_env=False))
        try:
            async with (
                connections.borrow(
                    target.origin, lambda: ResponseHead(max_rest_bytes=_MAX_FRAMED_BYTES).feed
                ) as connection,
                connection.stream(
                    "POST",
                    target,
                    headers=[*headers.items()],
                    content=content,
                    extensions={"timeout": {"connect": _CONNECT_S}},
                ) as response,
            ):
                return response.status, await _body(response)
        finally:
            await connections.aclose()


async def _body(response: httpcore.Response) -> bytes:
    body, pieces = bytearray(), 0
    async for piece in response.aiter_stream():
        body += piece
        pieces += 1
        if len(body) > MAX_RESPONSE_BYTES:
            raise MediaFailed(f"media service: the response is longer than {MAX_RESPONSE_BYTES} bytes")
        if pieces > _MAX_PIECES:
            raise MediaFailed(f"media service: the response has more than {_MAX_PIECES} pieces")
    return bytes(body)


def _result(operation: str, status: int, body: bytes) -> Any:
    """Return the value of a response; raises MediaRefused if the service says that the request is wrong."""
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        text = "".join(c if c.isprintable() else " " for c in body[:200].decode(errors="replace")).strip()
        message = f"media service, {operation}: status {status}{': ' if text else ''}{text}"
        is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        is_final = is_client_error and status != HTTPStatus.TOO_MANY_REQUESTS
        raise (MediaRefused if is_final else MediaFailed)(message)
    try:
        return loads(body)
    except ValueError:
        raise MediaFailed(f"media service, {operation}: the response is not JSON") from None
