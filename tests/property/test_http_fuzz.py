"""Whatever is sent, the server answers in its own forms, and nothing is a fault of ours."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nextsession import SessionLog, create
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.memory import MemoryStore
from nextsession.serving.openapi import openapi, statuses
from nextsession.serving.routes import ROUTES
from nextsession.serving.served import prepared
from nextsession.serving.server import Server

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(string.printable, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
DESCRIPTION = openapi()


def of_schema(schema, depth=0):
    """Give values that a schema allows, and some that it does not."""
    if "$ref" in schema:
        schema = DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    wrong = JSON if depth < 3 else st.none()
    if "anyOf" in schema:
        return st.one_of(*(of_schema(one, depth + 1) for one in schema["anyOf"])) | wrong
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | wrong
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        properties = {name: of_schema(one, depth + 1) for name, one in schema["properties"].items()}
        needed = {name: properties[name] for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional={n: s for n, s in properties.items() if n not in needed})
    if kind == "object":
        return st.dictionaries(
            st.text(max_size=5), of_schema(schema.get("additionalProperties") or {}, depth + 1), max_size=3
        )
    if kind == "array":
        return st.lists(of_schema(schema.get("items") or {}, depth + 1), max_size=4)
    if kind == "string":
        return st.text(max_size=300) | st.sampled_from(
            ["tea", "milk", "ann", "markov", "'; --", "\x00", "../..", "<b>"]
        )
    if kind in ("integer", "number"):
        return st.integers(-(2**70), 2**70) | st.integers(-5, 250)
    if kind == "boolean":
        return st.booleans()
    return wrong


@pytest.fixture(scope="module")
def client():
    model = create("markov").fit(SessionLog.from_lists([[["tea", "milk", "<b>"], ["tea", "milk"]]]))
    arms = Arms({"markov": (prepared(model, gap=1_800_000), 1.0)}, now=0)
    server = Server(Engine(arms, MemoryStore()), lambda place: None, lambda: 1_700_000_000_000)
    with TestClient(application(server), raise_server_exceptions=False) as client:
        yield client


def acceptable(route, response):
    assert response.status_code in {200, 404, *statuses(route)} - {500}, response.text
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
    assert "Traceback" not in response.text


@pytest.mark.parametrize("route", [route for route in ROUTES if route.takes is not None], ids=lambda r: r.path)
def test_bodies(client, route):
    schema = DESCRIPTION["paths"][route.path][route.method.lower()]["requestBody"]["content"]["application/json"][
        "schema"
    ]

    @settings(max_examples=150)
    @given(of_schema(schema) | JSON, st.binary(max_size=3))
    def run(body, cut):
        content = json.dumps(body).encode("utf-8", "surrogatepass")
        path = route.path.replace("{id}", "ann")
        acceptable(route, client.request(route.method, path, content=content))
        acceptable(route, client.request(route.method, path, content=content[: len(content) // 2] + cut))

    run()


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{id}" in route.path], ids=lambda r: f"{r.method} {r.path}"
)
def test_ids(client, route):
    from urllib.parse import quote

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300))
    def run(name):
        path = route.path.replace("{id}", quote(name, safe=""))
        response = client.request(route.method, path, content=b'{"into": "ann"}')
        assert response.status_code < 500, response.text

    run()


@given(
    st.dictionaries(st.sampled_from(["k", "arm", "search", "x"]), st.text(st.characters(codec="utf-8"), max_size=30))
)
def test_parameters(client, parameters):
    for path in ("/v1/items", "/v1/items/tea", "/v1/items/tea/similar"):
        response = client.get(path, params=parameters)
        assert response.status_code in (200, 404, 422), response.text


@given(
    st.dictionaries(
        st.sampled_from(["X-API-Key", "Authorization", "Origin", "Host", "Content-Type", "Content-Length", "Accept"]),
        st.text(string.ascii_letters + string.digits + " :;,/=-_*\\\"'", max_size=40),
    )
)
def test_headers(client, headers):
    response = client.post("/v1/recommendations", content=b"{}", headers=headers)
    assert response.status_code < 500, response.text
