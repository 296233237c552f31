"""HTTP/1.1 with limits on what comes before a body; those on bodies are in `edge`.

uvicorn bounds neither the head of a request nor the time it takes, takes what trails a chunked body for headers,
and leaves it to others to see that a request names one host.
"""

import asyncio
from typing import Any

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from nextsession.serving.edge import ProblemError, problem

LONGEST_TARGET = 8_192
"""Bytes of path and query."""
LARGEST_HEAD = 32_768
"""Bytes of the headers of a request, and of what trails its body."""
MOST_FIELDS = 100
"""Headers of a request."""
SLOWEST_HEAD = 10.0
"""Seconds from the first byte (of a connection: from its beginning) to the end of the headers."""


class Guarded(HttpToolsProtocol):
    """One connection."""

    slowest = SLOWEST_HEAD

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*given, **named)
        self._answers = self.app
        self._head: int | None = None  # bytes of the head that is on its way; None: none is
        self._trailing = 0  # bytes that trail the body
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if self.transport.is_closing():
            self._came()
        elif self._head is not None and len(self.url) > LONGEST_TARGET:
            self._refuse(_too_long())
        elif max(self._head or 0, self._trailing) > LARGEST_HEAD + LONGEST_TARGET:
            self._refuse(_too_large())
        elif self._late is None and (self._head is not None or self.cycle is None or self.cycle.response_complete):
            self._wait()

    # -- what the parser says -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._head, self._trailing = 0, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what trails a body is none: nothing that a request may do hangs on it."""
        if self._head is None:
            self._trailing += len(name) + len(value)
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request be answered, or refused."""
        if self._offers():
            return
        self._head = None
        self._came()
        refused = self._refusal()
        self.app = self._answers if refused is None else _Refusing(refused)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body."""
        if not self._offers():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(ProblemError(400, "This is no request of HTTP/1.1.", _CLOSE))

    # -- inside ---------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Read on; whoever offers another protocol, as Java's client does, gets the answer in this one.

        The parser leaves a body to the other protocol, so it is given the request once more, without the offer.
        """
        try:
            if self._head is not None:
                self._head += len(data)
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            version = self.parser.get_http_version().encode()
            fields = [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
            line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parse(b"\r\n".join([line, *fields, b"", data[offer.args[0] :]]))

    def _offers(self) -> bool:
        """Say whether another protocol is offered."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _refusal(self) -> ProblemError | None:
        if len(self.url) > LONGEST_TARGET:
            return _too_long()
        if len(self.headers) > MOST_FIELDS:
            detail = f"A request may have {MOST_FIELDS} headers, got {len(self.headers)}."
            return ProblemError(431, detail, _CLOSE)
        if sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            return _too_large()
        hosts = [place for place, (name, _) in enumerate(self.headers) if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            return ProblemError(400, f"A request must have one header Host, got {len(hosts)}.", _CLOSE)
        if not self.url.startswith((b"/", b"*")):  # its host counts then, not that of the header
            target = httptools.parse_url(self.url)
            host = target.host if target.port is None else b"%s:%d" % (target.host, target.port)
            self.headers[:] = [(b"host", host), *(pair for pair in self.headers if pair[0] != b"host")]
        return None

    def _refuse(self, failed: ProblemError) -> None:
        """Answer and hang up; where another answer is under way, hang up alone."""
        self._came()
        cycle, own = self.cycle, self._head is None and not self.pipeline
        if cycle is None or cycle.response_complete or (own and not cycle.response_started):
            reply = problem(failed)
            lines = [name + b": " + value for name, value in reply.raw_headers]
            self.transport.write(STATUS_LINE[failed.status] + b"\r\n".join(lines) + b"\r\n\r\n" + bytes(reply.body))
        self.transport.close()

    def _wait(self) -> None:
        self._late = self.loop.call_later(self.slowest, self._give_up)

    def _came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if self._head is None:  # nothing was asked
            self._came()
            self.transport.close()
        else:
            detail = f"The headers did not arrive within {self.slowest:g} s; send them again."
            self._refuse(ProblemError(408, detail, _CLOSE))


class _Refusing:
    """Answers a request with a problem."""

    def __init__(self, failed: ProblemError) -> None:
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = problem(self._failed)
        await app(scope, receive, send)


_CLOSE = {"connection": "close"}


def _too_long() -> ProblemError:
    return ProblemError(414, f"Path and query may have {LONGEST_TARGET} bytes; these have more.", _CLOSE)


def _too_large() -> ProblemError:
    return ProblemError(431, f"The headers of a request may have {LARGEST_HEAD} bytes.", _CLOSE)
