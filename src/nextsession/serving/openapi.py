"""The description of the HTTP interface, written from the routes and the types of their messages."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from nextsession.serving.calls import Route
from nextsession.serving.routes import ROUTES
from nextsession.serving.wire import LONGEST, MOST_LISTED, Problem

_REF = "#/components/schemas/{name}"
_STATUS = {
    400: "The request is malformed.",
    401: "The key is missing or unknown.",
    403: "The key lacks the scope, or the page is another origin's.",
    404: "There is none of that name.",
    408: "The body came too slowly.",
    409: "It was refused; the model before goes on.",
    413: "The body is too large.",
    422: "A field is wrong; the message names it.",
    429: "Too many requests; `Retry-After` says when to come again.",
    503: "It cannot be done now; `Retry-After` says when to come again.",
}
_QUERY: dict[str, dict[str, Any]] = {
    "k": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20},
    "search": {"type": "string"},
    "arm": {"type": "string"},
}
_EXAMPLES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/events"): {"visitor": "ann", "item": "42", "id": "0192f3a0", "time": 1700000000000},
    ("POST", "/v1/recommendations"): {"visitor": "ann", "k": 10, "explain": True},
    ("POST", "/v1/explorations"): {"visitor": "ann", "arm": "main"},
    ("POST", "/v1/items"): {"out_of_stock": ["17"], "in_stock": ["18"]},
    ("POST", "/v1/visitors/{id}/merge"): {"into": "ann"},
    ("POST", "/v1/models"): {"do": "roll_back", "arm": "main"},
}


def openapi() -> dict[str, Any]:
    """Return the description (OpenAPI 3.1)."""
    types = [t for route in ROUTES for t in (route.takes, route.gives) if t is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_REF)
    schema_of = {id(t): s for t, s in zip([*types, Problem], schemas, strict=True)}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nextsession",
            "version": version("nextsession"),
            "description": "Events in, recommendations out.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def text() -> str:
    """Return the description as it is kept in the documentation."""
    return msgspec.json.format(msgspec.json.encode(openapi(), order="deterministic"), indent=1).decode() + "\n"


def _operation(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    kind = "text/plain" if route.gives is str else "application/json"
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handle.__name__,
        "responses": {
            "200": {"description": "Done.", "content": {kind: {"schema": schema_of[id(route.gives)]}}},
            **{str(status): _problem(status, route, schema_of) for status in statuses(route)},
        },
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST},
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [{"name": name, "in": "query", "required": False, "schema": _QUERY[name]} for name in route.query]
    if parameters:
        found["parameters"] = parameters
    if route.takes is not None:
        content = {"schema": schema_of[id(route.takes)], "example": _EXAMPLES[route.method, route.path]}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    if route.scope is not None:
        found["security"] = [{"key": []}]
        found["x-scope"] = route.scope
    return found


def statuses(route: Route) -> Sequence[int]:
    """Return the statuses of the problems that a route may answer with."""
    found = set(route.fails)
    if route.scope is not None:
        found |= {401, 403, 429, 503}
    if route.takes is not None:
        found |= {400, 408, 413, 422}
    if route.query:
        found |= {404, 422}
    if route.has_id:
        found |= {400, 422}
    return sorted(found)


def _problem(status: int, route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    if route.path == "/readyz":
        return {"description": "Not yet.", "content": {"application/json": {"schema": schema_of[id(route.gives)]}}}
    content = {"application/problem+json": {"schema": schema_of[id(Problem)]}}
    return {"description": _STATUS[status], "content": content}
