"""A connection to an HTTP server, byte by byte."""

from __future__ import annotations

import socket

from tests.cli.command import PATIENCE_S


class Wire:
    """One connection, and exactly the bytes that are sent on it."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self._stream = self._socket.makefile("rb")

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def get(self, path: str, *lines: str) -> tuple[int, dict[str, str], bytes]:
        """Ask by GET, as localhost; return the answer."""
        self.send("\r\n".join((f"GET {path} HTTP/1.1", "host: localhost", *lines, "", "")).encode())
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer."""
        status = int(self._stream.readline().split()[1])
        headers = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self._stream.read(int(headers.get("content-length", 0)))

    def line(self) -> bytes:
        """Return the next line of what comes."""
        return self._stream.readline()

    def is_at_end(self) -> bool:
        return self._stream.read(1) == b""

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
