"""From the parser to the route: requests that are whole and plain pass the application by.

Most requests are small, come in one piece and need nothing that the application does: no redirect, no
headers for pages of others, no body that is still on its way.  They are answered with one task and one
write.  All others take the long way, through the protocol of which this is a special case.
"""

from collections.abc import Mapping

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from nextsession.serving.edge import Arrived, Endpoint, Place
from nextsession.serving.protocol import Guarded

_LONG_WAY = frozenset(
    (b"origin", b"expect", b"transfer-encoding", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto")
)
"""Headers that the application must see."""


class _Woken:
    """What uvicorn wakes where nobody waits."""

    def set(self) -> None:
        """Do nothing."""


class _Exchange:
    """A request under way, as uvicorn's protocol must see it."""

    message_event, response_started = _Woken(), False

    def __init__(self, keep_alive: bool) -> None:
        """Begin."""
        self.keep_alive, self.disconnected, self.response_complete = keep_alive, False, False


class StraightProtocol(Guarded):
    """The protocol of the server with a short way for plain requests; `straight_protocol` says to which endpoints."""

    endpoints: Mapping[bytes, Endpoint] = {}
    """By the path of a POST."""

    _parts: list[bytes] | None = None
    """The body so far of a request that may go the short way."""

    def data_received(self, data: bytes) -> None:
        """Read what came; what is still incomplete afterwards takes the long way."""
        super().data_received(data)
        parts, self._parts = self._parts, None
        if parts is not None and self.parser is not None and not self.transport.is_closing():
            super().on_headers_complete()
            for part in parts:
                super().on_body(part)

    # -- what the parser says -------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Choose the way."""
        if self._is_plain():
            self._head, self._parts = None, []
            self._came()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer, if the request is on the short way."""
        parts, self._parts = self._parts, None
        if parts is None:
            super().on_message_complete()
            return
        exchange = _Exchange(self.parser.should_keep_alive())
        self.cycle = exchange  # type: ignore[assignment]
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        arrived = Arrived(self.headers, "" if self.client is None else self.client[0], content)
        task = self.loop.create_task(self._answer(self.endpoints[self.url], arrived, exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- inside ---------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        before = self.cycle
        return (
            self.url in self.endpoints
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and (before is None or before.response_complete)
            and not self.flow.write_paused
            and self.limit_concurrency is None
            and not any(name in _LONG_WAY for name, _ in self.headers)
            and self._refusal() is None
        )

    async def _answer(self, endpoint: Endpoint, arrived: Arrived, exchange: _Exchange) -> None:
        reply = await endpoint(arrived)
        exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        lines, keep = [STATUS_LINE[reply.status_code]], exchange.keep_alive
        for name, value in (*self.server_state.default_headers, *reply.raw_headers):
            if name == b"connection":
                keep = False  # nothing else is ever said of it
            else:
                lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n" if keep else b"connection: close\r\n\r\n", bytes(reply.body))
        self.transport.write(b"".join(lines))
        if not keep:
            self.transport.close()
        self.on_response_complete()


def straight_protocol(places: Mapping[str, Place]) -> type[StraightProtocol]:
    """Return the protocol of a server with these places, by path."""
    posts = {path.encode(): place.answers["POST"] for path, place in places.items() if "POST" in place.answers}
    return type("StraightProtocol", (StraightProtocol,), {"endpoints": posts})
