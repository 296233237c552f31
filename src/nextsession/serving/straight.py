"""From the parser to the route: requests that are whole and plain pass the application by.

Most requests are small, come in one piece and need nothing that the application does: no redirect, no
headers for pages of others, no body that is still on its way.  They are answered with one task and one
write.  All others take the way through uvicorn's protocol, of which this is a special case.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nextsession.serving.edge import Arrived, Endpoint, Place, Reply

_LONG_WAY = frozenset(
    (b"origin", b"expect", b"transfer-encoding", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto")
)
"""Headers that the application must see."""
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class _Woken:
    """What uvicorn wakes where nobody waits."""

    def set(self) -> None:
        """Do nothing."""


class _Exchange:
    """A request under way, as uvicorn's protocol must see it."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete")

    def __init__(self, keep_alive: bool) -> None:
        """Begin."""
        self.keep_alive, self.disconnected, self.response_complete = keep_alive, False, False
        self.body, self.more_body, self.message_event = bytearray(), False, _Woken()


class StraightProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with a short way for plain requests; `straight_protocol` says to which endpoints."""

    endpoints: Mapping[bytes, Endpoint] = {}
    """By the path of a POST."""

    _parts: list[bytes] | None = None
    """The body so far of a request that may go the short way."""
    _plain = True

    def data_received(self, data: bytes) -> None:
        """Read what came; what is still incomplete afterwards takes the long way."""
        super().data_received(data)
        if self._parts is not None and self.parser is not None:
            self._go_the_long_way()

    # -- what the parser calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url, self.headers, self.expect_100_continue, self._plain = b"", [], False, True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        name = name.lower()
        if name in _LONG_WAY:
            self._plain = False
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Choose the way."""
        parser, before = self.parser, self.cycle
        if (
            self._plain
            and self.url in self.endpoints
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and (before is None or before.response_complete)
            and not self.flow.write_paused
            and self.limit_concurrency is None
        ):
            self._parts = []
        else:
            self._begin_the_long_way()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer, if the request is on the short way."""
        parts = self._parts
        if parts is None:
            super().on_message_complete()
            return
        self._parts = None
        exchange: Any = _Exchange(self.parser.should_keep_alive())
        self.cycle = exchange
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        arrived = Arrived(self.headers, "" if self.client is None else self.client[0], content)
        task = self.loop.create_task(self._answer(self.endpoints[self.url], arrived, exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- inside ---------------------------------------------------------------------------------

    async def _answer(self, endpoint: Endpoint, arrived: Arrived, exchange: _Exchange) -> None:
        reply: Reply = await endpoint(arrived)
        exchange.response_complete = True
        if exchange.disconnected:
            return
        lines = [_STATUS[reply.status_code]]
        for name, value in (*self.server_state.default_headers, *reply.raw_headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n")
        lines.append(bytes(reply.body))
        self.transport.write(b"".join(lines))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _begin_the_long_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the list that its scope holds
        super().on_headers_complete()

    def _go_the_long_way(self) -> None:
        parts, self._parts = self._parts or [], None
        self._begin_the_long_way()
        for part in parts:
            super().on_body(part)


def straight_protocol(places: Mapping[str, Place]) -> type[StraightProtocol]:
    """Return the protocol of a server with these places, by path."""
    posts = {path.encode(): place.answers["POST"] for path, place in places.items() if "POST" in place.answers}
    return type("StraightProtocol", (StraightProtocol,), {"endpoints": posts})
