"""The edge of the server: keys, limits, one form of error, and what is counted of every request."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from itertools import count
from time import perf_counter, thread_time
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nextsession.errors import ArtifactError, ConfigError, DataError, ModelError, StoreError, UnknownNameError
from nextsession.serving.calls import Call, ParameterError, Route
from nextsession.serving.server import Server
from nextsession.serving.wire import LONGEST, HealthOut, Problem

log = logging.getLogger(__name__)
Endpoint: TypeAlias = "Callable[[Arrived], Awaitable[Reply]]"

_encode = msgspec.json.Encoder().encode
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_RETRY = {"retry-after": "1"}
_READ, _WRITE = 'cpu_seconds_total{stage="read"}', 'cpu_seconds_total{stage="write"}'
_NOTHING: Mapping[str, str] = {}


class ProblemError(Exception):
    """A request that gets a problem for an answer."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Say what is wrong and what to do."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


class Reply(Response):
    """A response whose headers are known beforehand, but for their length."""

    def __init__(self, status: int, body: bytes, kind: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Take the body, its kind, and headers besides those that all have."""
        more = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", kind), *_SAFE, *more]


class Arrived:
    """A request as an endpoint needs it: whole, or still on its way through the application."""

    __slots__ = ("address", "content", "headers", "request")

    def __init__(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        address: str,
        content: bytes | None = None,
        request: Request | None = None,
    ) -> None:
        """Take headers in lower case, the address of the client, and the body, or what gives it."""
        self.headers, self.address, self.content, self.request = headers, address, content, request

    @classmethod
    def of(cls, request: Request) -> "Arrived":
        """Take a request of the application."""
        client = request.scope.get("client")
        return cls(request.scope["headers"], "" if client is None else client[0], request=request)


class Place:
    """Everything that may be done at one path."""

    def __init__(self, answers: Mapping[str, Endpoint]) -> None:
        """Take endpoints by method."""
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        method = scope["method"]
        found = self.answers.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = ", ".join(sorted(self.answers))
            reply = problem(ProblemError(405, f"This path takes {allowed} and not {method}.", {"allow": allowed}))
        else:
            reply = await found(Arrived.of(Request(scope, receive, send)))
        await reply(scope, receive, send)


class Straight:
    """Takes requests for paths without an id in them there at once; the router looks for all others."""

    def __init__(self, app: ASGIApp, places: Mapping[str, Place]) -> None:
        """Take the router, and places by path."""
        self.app, self.places = app, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the router."""
        found = self.places.get(scope["path"]) if scope["type"] == "http" else None
        await (self.app if found is None else found)(scope, receive, send)


def problem(failed: ProblemError, request: str = "") -> Reply:
    """Return the one form of error."""
    body = Problem(HTTPStatus(failed.status).phrase, failed.status, failed.detail, request)
    return Reply(failed.status, _encode(body), b"application/problem+json", failed.headers)


def endpoint(server: Server, route: Route) -> Endpoint:
    """Wrap a route in everything that holds for all of them."""
    decoder = None if route.takes is None else msgspec.json.Decoder(route.takes)
    counted: dict[int, str] = {}
    process, numbers = secrets.token_urlsafe(6), count()

    stage = f'seconds{{stage="{route.stage}"}}'

    async def answer(request: Arrived) -> Reply:
        began = perf_counter()
        name = f"{process}{next(numbers):x}"
        server.in_flight += 1
        try:
            response = await _answer(server, route, decoder, request)
        except Exception as error:
            failed = failure(error)
            if failed.status == 500:
                log.exception("A request failed.", extra={"request": name, "route": route.path})
            response = problem(failed, name)
        finally:
            server.in_flight -= 1
        spent = perf_counter() - began
        series = counted.get(response.status_code)
        if series is None:
            series = f'requests_total{{method="{route.method}",route="{route.path}",status="{response.status_code}"}}'
            counted[response.status_code] = series
        server.metrics.count(series)
        if route.stage:
            server.metrics.observe(stage, spent)
        if server.settings.access_log:
            _note(logging.INFO, name, route, response.status_code, spent)
        elif response.status_code >= 500:
            _note(logging.WARNING, name, route, response.status_code, spent)
        return response

    return answer


async def _answer(server: Server, route: Route, decoder: "msgspec.json.Decoder[Any] | None", arrived: Arrived) -> Reply:
    began = thread_time()
    if route.scope is not None:
        _admit(server, route, arrived)
    if server.in_flight > server.settings.in_flight:
        raise ProblemError(503, "More requests are being answered than this server takes on; come again.", _RETRY)
    body, content, request = None, arrived.content, arrived.request
    if decoder is not None:
        if content is None:
            assert request is not None
            content = await read_body(request, server.settings.largest_body, server.settings.slowest_body)
        elif len(content) > server.settings.largest_body:
            raise ProblemError(413, f"A body may have {server.settings.largest_body} bytes, got {len(content)}.")
        try:
            body = decoder.decode(content)
        except RecursionError:
            raise ProblemError(400, "The body is nested deeper than anything that is asked for here.") from None
    read = thread_time()
    path, query = _NOTHING, _NOTHING
    if request is not None:
        path, query = request.path_params, request.query_params if route.query else _NOTHING
        if route.has_id:
            _see_id(request)
    found = await route.handle(Call(server, body, path, query))
    if isinstance(found, str):
        return Reply(200, found.encode(), b"text/plain; version=0.0.4; charset=utf-8")
    status = 503 if isinstance(found, HealthOut) and found.status != "ok" else 200
    done = thread_time()
    reply = Reply(status, _encode(found), b"application/json")
    if route.stage:
        server.metrics.count(_READ, read - began)
        server.metrics.count(_WRITE, thread_time() - done)
    return reply


def _admit(server: Server, route: Route, arrived: Arrived) -> None:
    """See that whoever asks may ask this, and not too often."""
    headers = dict(reversed(arrived.headers))  # of headers of one name the first counts
    told = headers.get(b"x-api-key")
    secret = None if told is None else told.decode("latin-1")
    if secret is None and b"authorization" in headers:
        kind, _, value = headers[b"authorization"].decode("latin-1").partition(" ")
        secret = value.strip() if kind.lower() == "bearer" else None
    key = server.keys.who(secret)
    if key is None:
        what = "is missing" if secret is None else "is not known"
        raise ProblemError(401, f"The key {what}; send one in the header X-API-Key.", {"www-authenticate": "Bearer"})
    if route.scope not in key.scopes:
        raise ProblemError(403, f"The key {key.name!r} may not do this; it lacks the scope {route.scope!r}.")
    if server.keys.open:
        _same_origin(server, headers)
    if server.buckets.rate is None and key.rate is None:
        return
    wait = server.buckets.take(key.name if not server.keys.open else arrived.address, time.monotonic(), key.rate)
    if wait:
        raise ProblemError(429, "Too many requests; come again later.", {"retry-after": str(max(1, round(wait)))})


def _same_origin(server: Server, headers: Mapping[bytes, bytes]) -> None:
    """Where no key is needed, pages of others must not ask in the name of whoever looks at them."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if server.settings.hosts is not None and name not in server.settings.hosts:
        raise ProblemError(403, f"This server is not called {name[:100]!r}; name it with --host-name, or give it keys.")
    if b"origin" not in headers:
        return
    origin = headers[b"origin"].decode("latin-1")
    if origin in server.settings.origins or origin.partition("://")[2] == host:
        return
    raise ProblemError(403, "Pages of this origin may not ask; name it with --origin.")


def _see_id(request: Request) -> None:
    """See that the id in a path is one that a body could hold."""
    name = request.path_params["id"]
    if len(name) > LONGEST:
        raise ProblemError(422, f"An id may have {LONGEST} characters, that in the path has {len(name)}.")
    if "\ufffd" in name:  # it may stand for what is no text; then it is not the id that was meant
        try:
            unquote_to_bytes(request.scope["raw_path"]).decode()
        except UnicodeDecodeError:
            raise ProblemError(400, "The id in the path is no UTF-8.") from None


async def read_body(request: Request, largest: int, slowest: float) -> bytes:
    """Return the body, unless it is too large or comes too slowly.

    Raises:
        ProblemError: It is.
    """
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > largest:
        raise ProblemError(413, f"A body may have {largest} bytes, got {told}.")
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(slowest):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(400, "The body ended early.")
                part = message.get("body", b"")
                more, size = message.get("more_body", False), size + len(part)
                if size > largest:
                    raise ProblemError(413, f"A body may have {largest} bytes; this one has more.")
                parts.append(part)
    except TimeoutError:
        raise ProblemError(408, f"The body did not arrive within {slowest:g} s; send it again.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def failure(error: Exception) -> ProblemError:
    """Return what a request gets for an error; what is ours to mend says nothing of how we are built."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, msgspec.ValidationError | ParameterError | DataError):
        return ProblemError(422, str(error))
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return ProblemError(400, f"The body is no JSON: {error}")
    if isinstance(error, UnknownNameError):
        return ProblemError(404, str(error))
    if isinstance(error, ArtifactError | ConfigError | ModelError):
        return ProblemError(409, str(error))
    if isinstance(error, StoreError):
        return ProblemError(
            503, "Events cannot be read or made durable now; send them again with the same ids.", _RETRY
        )
    if isinstance(error, HTTPException):
        return ProblemError(error.status_code, str(error.detail), error.headers)
    return ProblemError(500, "Something failed on our side; it has been noted under the id of this request.")


async def on_exception(request: Request, error: Exception) -> Reply:
    """Answer what no route takes."""
    if isinstance(error, HTTPException) and error.status_code == 404:
        return problem(ProblemError(404, "There is no such route; /openapi.json lists them."))
    return problem(failure(error))


def _note(level: int, name: str, route: Route, status: int, spent: float) -> None:
    """Write a line of the log: the pattern of the route, never the ids in it."""
    says = f"{route.method} {status} in %.1f ms"  # each status is a kind of its own
    log.log(level, says, 1000 * spent, extra={"request": name, "route": route.path})
