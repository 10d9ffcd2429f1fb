"""Limits the connections of ``beeq web`` in number, and the time that a client may keep one waiting.

uvicorn does not limit the time for a request's head, the time for taking a response, or the connections, up
to the process's file descriptors. Here a connection is closed when a head is not complete in time (counted
from the connection's beginning, or from the end of the last response), and when its client does not take the
response. At the limit, a new connection replaces the one that has kept the server waiting longest; if every
connection waits for the server, the new one is refused.

Each chunk of a body takes h11 some 20 µs, however small it is, even in a refused request. So their number is
limited: beyond it, the connection is closed.
"""

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: From the connection's beginning, or from the response before, to the end of a request's head.
HEAD_TIMEOUT_S = 10.0
#: In which a response must be taken.
TAKE_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 500
#: The loop accepts so many connections before it looks at the first of them.
ACCEPTED_AT_ONCE = 64
#: In a request's body, of any size: 16 MiB come in chunks of 4 KiB and more.
MAX_CHUNKS = 4096
#: Descriptors reserved for everything else: Redis, MongoDB, the log.
_OTHER_DESCRIPTORS = 64
#: The least number of connections under a limit of descriptors.
_FEWEST_CONNECTIONS = 16
_LATE = b"408 Request Timeout", b'{"error":"The head of the request did not come in time"}'
_FULL = b"503 Service Unavailable", b'{"error":"Too many connections at once"}'


def connections_possible(limit: int) -> int:
    """Return ``limit``, or how many connections this process has descriptors for, if they are fewer."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limit
    return min(limit, max(descriptors - ACCEPTED_AT_ONCE - _OTHER_DESCRIPTORS, _FEWEST_CONNECTIONS))


class ClientConnections:
    """The connections of one server, those first that have waited longest for their clients."""

    def __init__(self, *, limit: int = MAX_CONNECTIONS, head_timeout_s: float = HEAD_TIMEOUT_S) -> None:
        self._limit = limit
        self._head_timeout_s = head_timeout_s
        self._all: dict[ClientConnection, None] = {}

    def add(self, connection: "ClientConnection") -> None:
        """Add the connection, replacing another one if need be; or refuse it."""
        self._all[connection] = None
        if len(self._all) <= self._limit:
            return
        found = next((one for one in self._all if one is not connection and one.waits_for_client), None)
        if found is None:
            connection.refuse(*_FULL)
        else:
            self.remove(found)
            found.drop()

    def renew(self, connection: "ClientConnection") -> None:
        """Move the connection to the end of the order, after a response."""
        if connection in self._all:
            self.remove(connection)
            self._all[connection] = None

    def remove(self, connection: "ClientConnection") -> None:
        """Forget the connection."""
        self._all.pop(connection, None)

    def close_late(self, now: float) -> None:
        """Close those whose time is over, by the loop's clock; called every now and then."""
        for connection in list(self._all):
            if connection.takes_nothing(now):
                connection.drop()
            elif connection.waits_for_head and now - connection.since > self._head_timeout_s:
                if connection.has_begun:
                    connection.refuse(*_LATE)
                else:
                    connection.timeout_keep_alive_handler()


class _BoundedRequests(h11.Connection):
    """The requests of one connection, each with a bound of chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self._chunk_count = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what came next; raises RemoteProtocolError, which uvicorn answers by 400 and the end."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunk_count = 0
        elif isinstance(event, h11.Data):
            self._chunk_count += event.chunk_start
            if self._chunk_count > MAX_CHUNKS:
                raise h11.RemoteProtocolError(f"more than {MAX_CHUNKS} chunks")
        return event


class ClientConnection(H11Protocol):
    """One connection."""

    def __init__(self, connections: ClientConnections, **given: Any) -> None:
        super().__init__(**given)
        self.conn = _BoundedRequests()
        self._connections = connections
        self._takes_since: float | None = None
        #: When the wait for a head began, by the loop's clock.
        self.since = self.loop.time()

    # Its state.

    @property
    def waits_for_head(self) -> bool:
        """Whether no request is under way."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    @property
    def waits_for_client(self) -> bool:
        """Whether the next step is the client's: to send the rest of a request, or to take a response."""
        return (
            self.transport.is_closing()
            or self.cycle is None
            or self.cycle.response_complete
            or self.cycle.more_body
            or self.flow.write_paused
        )

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head is there."""
        return bool(self.conn.trailing_data[0])

    def takes_nothing(self, now: float) -> bool:
        """Return whether the client has not taken its response for too long, by the loop's clock."""
        if not self.transport.get_write_buffer_size():
            self._takes_since = None
            return False
        if self._takes_since is None:
            self._takes_since = now
        return now - self._takes_since > TAKE_TIMEOUT_S

    # What is done with it.

    def drop(self) -> None:
        """Close it at once; the client loses what it has not taken."""
        self.transport.abort()

    def refuse(self, status: bytes, body: bytes) -> None:
        """Send this response without a request to it, and close."""
        fields = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close" % len(body)
        self.transport.write(b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, fields, body))
        self.transport.close()

    # As asyncio and uvicorn call it.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, unless the connection has been refused."""
        if not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = self.loop.time()
        self._connections.renew(self)
        super().on_response_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: any client may trigger this at any time."""
