"""The HTTP application: routes, the page, the description of the interface."""

import asyncio
import contextlib
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Address

from nextsession.serving import openapi
from nextsession.serving.calls import Route
from nextsession.serving.edge import Endpoint, Place, ProblemError, Straight, endpoint, on_exception, problem
from nextsession.serving.routes import ROUTES
from nextsession.serving.server import Server

PAGE = Path(__file__).parent / "page"
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


def application(server: Server, *, page: Path = PAGE) -> Starlette:
    """Return the ASGI application of a server; while it runs, so does what the server does every second."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        stop = asyncio.Event()
        await asyncio.to_thread(server.second)
        await asyncio.to_thread(server.learn)  # so that a server that starts again says what it said before
        server.engine.store.attend(asyncio.get_running_loop())
        work = asyncio.create_task(server.run(stop))
        try:
            yield
        finally:
            stop.set()
            await work
            await asyncio.to_thread(server.close)

    answers: dict[str, dict[str, Endpoint]] = {}
    for route in _ordered():
        answers.setdefault(route.path, {})[route.method] = endpoint(server, route)
    places = {path: Place(of_path) for path, of_path in answers.items()}
    routes = [Address(_greedy(path), place) for path, place in places.items()]
    routes.append(Address("/openapi.json", _description, methods=["GET"]))
    routes.append(Address("/{name:path}", _page(page), methods=["GET"]))
    middleware = []
    if server.settings.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(server.settings.origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["content-type", "x-api-key", "authorization"],
                expose_headers=["retry-after"],
                max_age=3600,
            )
        )
    straight = {path: place for path, place in places.items() if "{" not in path}
    middleware.append(Middleware(Straight, places=straight))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={404: on_exception, 405: on_exception, Exception: on_exception},
    )
    app.state.straight = straight
    return app


def _ordered() -> list[Route]:
    """Return the routes in the order in which they are tried.

    Those without an id first, they are asked most; one whose path goes on before one whose last part takes everything.
    """
    return sorted(ROUTES, key=lambda route: (route.has_id, -route.path.count("/")))


def _greedy(path: str) -> str:
    """Let an id hold slashes."""
    return path.replace("{id}", "{id:path}")


async def _description(request: Request) -> Response:
    return Response(openapi.text(), media_type="application/json")


def _page(folder: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        file = files.get(name)  # only what is listed can be had, whatever the name says
        if file is None:
            return problem(ProblemError(404, "There is no such route; /openapi.json lists them."))
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return Response(file.read_bytes(), media_type=kind, headers=_PAGE_HEADERS)

    return answer
