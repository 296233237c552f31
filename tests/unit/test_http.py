"""The HTTP interface: routes, the one form of error, keys, limits, the page; what is described is what there is."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from nextsession import SessionLog, create
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.errors import ConfigError, StoreError
from nextsession.golden import write_golden
from nextsession.serving import openapi
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import DAY, Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.routes import ROUTES
from nextsession.serving.security import Keys
from nextsession.serving.served import prepared, serve
from nextsession.serving.server import Server, ServerSettings
from nextsession.serving.sqlite import SQLiteStore

GAP, NOW = 1_800_000, 1_700_000_000_000
LOG = SessionLog.from_lists([[["tea", "milk", "sugar"], ["tea", "milk"]], [["coffee", "sugar", "milk"]], [["a/b c"]]])
TABLE = ItemTable(
    {"kind": ItemFeature.of([["odd"], ["drink"], ["drink"], ["food"], ["drink"]])},
    np.array(["<script>alert(1)</script>", "Coffee beans", "Fresh milk", "Brown sugar", "Green tea"], dtype=object),
)
ROOT = Path(__file__).parents[2]


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def server_of(clock, store=None, *, keys=None, models=(), **settings):
    arms = {
        name: (prepared(create(name).fit(LOG), gap=GAP, table=TABLE, version=f"{name}-1"), weight)
        for name, weight in (("markov", 1.0), ("popular", 0.0))
    }
    store = store or MemoryStore(Rules())
    return Server(
        Engine(Arms(arms, now=NOW), store),
        lambda place: serve(place, gap=GAP),
        clock,
        models=tuple(models),
        keys=keys or Keys(),
        settings=ServerSettings(**settings),
    )


@pytest.fixture
def server(clock):
    return server_of(clock)


@pytest.fixture
def client(server):
    with TestClient(application(server), raise_server_exceptions=False) as client:
        yield client


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in response.text
    return body["detail"]


# -- events -------------------------------------------------------------------------------------


def test_events_one_and_many(client, server):
    one = client.post("/v1/events", json={"visitor": "ann", "item": "tea", "id": "e1", "time": NOW - 5})
    assert one.json() == {"outcomes": [{"id": "e1", "status": "accepted", "reason": ""}]}
    many = client.post(
        "/v1/events",
        json=[
            {"visitor": "ann", "item": "tea", "id": "e1"},
            {"visitor": 7, "item": 42, "id": "e2", "action": "purchase"},
            {"visitor": "ann", "item": "milk", "id": "e3", "time": NOW + DAY + 1},
            {"visitor": "eve", "item": "milk", "id": "e4", "consent": False},
            {"visitor": "ann", "item": "milk", "id": "e5", "action": "shown"},
        ],
    )
    assert [x["status"] for x in many.json()["outcomes"]] == ["duplicate", "accepted", "refused", "refused", "accepted"]
    assert "at most a day ahead" in many.json()["outcomes"][2]["reason"]
    assert "without consent" in many.json()["outcomes"][3]["reason"]
    logged = [(s.event.visitor, s.event.item, s.event.action, s.event.label) for s in server.engine.store.events()]
    assert logged == [("ann", "tea", "click", 1), ("7", "42", "purchase", 1), ("ann", "milk", "shown", 0)]


def test_an_event_without_an_id_gets_one_that_is_the_same_when_it_is_sent_again(client):
    event = {"visitor": "ann", "item": "tea", "time": NOW - 5}
    first, again = (client.post("/v1/events", json=event).json()["outcomes"][0] for _ in range(2))
    assert first["id"] == again["id"]
    assert [first["status"], again["status"]] == ["accepted", "duplicate"]
    untimed = [client.post("/v1/events", json={"visitor": "a", "item": "b"}).json()["outcomes"][0] for _ in range(2)]
    assert untimed[0]["id"] != untimed[1]["id"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"visitor": "ann"}, "missing required field `item`"),
        ({"visitor": "", "item": "tea"}, "length >= 1 - at `$.visitor`"),
        ({"visitor": "x" * 257, "item": "tea"}, "length <= 256"),
        ({"visitor": "ann", "item": 1.5}, "Expected `int | str`, got `float` - at `$.item`"),
        ({"visitor": "ann", "item": "tea", "time": -1}, "`int` >= 0"),
        ({"visitor": "ann", "item": "tea", "label": 2}, "Invalid enum value 2"),
        ({"visitor": "ann", "item": "tea", "colour": 2}, "unknown field `colour`"),
        ([], "length >= 1"),
        ([{"visitor": "ann", "item": "tea"}] * 1001, "length <= 1000"),
        ("tea", "got `str`"),
    ],
)
def test_wrong_events_are_refused_whole(client, server, body, says):
    assert says in problem(client.post("/v1/events", json=body), 422)
    assert list(server.engine.store.events()) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"visitor": "\\ud800", "item": "x"}', b"{'a': 1}", b"[" * 5000]
)
def test_what_is_no_json_is_refused(client, body):
    response = client.post("/v1/events", content=body)
    assert response.status_code in (400, 422)
    problem(response, response.status_code)


# -- lists --------------------------------------------------------------------------------------


def test_a_list_with_an_event_on_the_way(client):
    body = {"visitor": "ann", "k": 2, "event": {"visitor": "ann", "item": "tea", "id": "e1"}}
    answer = client.post("/v1/recommendations", json=body).json()
    assert answer["items"][0] == {
        "item": "milk", "title": "Fresh milk", "score": 1.0, "source": "model", "because": [],
    }  # fmt: skip
    assert answer["recorded"] == {"status": "accepted", "reason": ""}
    assert (answer["arm"], answer["model"], answer["version"], answer["degraded"]) == (
        "markov",
        "markov",
        "markov-1",
        [],
    )
    assert answer["request"].startswith("markov.")
    assert set(answer["took"]) == {"history", "model", "store"}


def test_reasons_over_http(client):
    client.post("/v1/events", json={"visitor": "ann", "item": "tea"})
    answer = client.post("/v1/recommendations", json={"visitor": "ann", "k": 1, "explain": True}).json()
    assert answer["history"] == [
        {
            "item": "tea", "title": "Green tea", "time": NOW, "action": "click", "label": 1, "session": 0,
            "known": True, "weight": 1.0,
        }
    ]  # fmt: skip
    assert answer["items"][0]["because"] == [{"event": 0, "weight": 1.0, "place": None}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"k": 0}, "`int` >= 1 - at `$.k`"),
        ({"k": 201}, "`int` <= 200"),
        ({"exclude": "all"}, "Invalid enum value 'all'"),
        ({"where": {"kinds": ["x"]}}, "items have no feature 'kinds'. Did you mean 'kind'?"),
        ({"visitr": "ann"}, "unknown field `visitr`"),
    ],
)
def test_wrong_questions(client, body, says):
    assert says in problem(client.post("/v1/recommendations", json=body), 422)


def test_an_arm_that_there_is_not(client):
    assert "There is no arm 'b'" in problem(client.post("/v1/recommendations", json={"arm": "b"}), 404)
    assert client.post("/v1/recommendations", json={"arm": "popular"}).json()["model"] == "popular"


# -- items and visitors -------------------------------------------------------------------------


def test_items(client):
    assert client.get("/v1/items/tea").json() == {
        "item": "tea", "title": "Green tea", "features": {"kind": ["drink"]}, "known": True, "in_stock": True,
    }  # fmt: skip
    assert client.get("/v1/items/a%2Fb%20c").json()["title"] == "<script>alert(1)</script>"
    assert client.get("/v1/items/a%2Fb%20c/similar").json()["item"] == "a/b c"
    assert "knows no item 'nothing'" in problem(client.get("/v1/items/nothing"), 404)
    assert "knows no item 'x/similar'" in problem(client.get("/v1/items/x/similar/similar"), 404)
    found = client.get("/v1/items", params={"search": "GREEN te"}).json()["items"]
    assert [x["item"] for x in found] == ["tea"]
    assert len(client.get("/v1/items?k=3").json()["items"]) == 3
    assert [x["item"] for x in client.get("/v1/items/tea/similar?k=1").json()["items"]] == ["milk"]
    assert "k must be a whole number from 1 to 200, got '0'" in problem(client.get("/v1/items?k=0"), 422)
    assert "got '9e9'" in problem(client.get("/v1/items/tea/similar?k=9e9"), 422)
    assert "There is no arm 'x'" in problem(client.get("/v1/items?arm=x"), 404)


def test_stock(client):
    assert client.post("/v1/items", json={"out_of_stock": ["milk", 7]}).json() == {"out_of_stock": 2}
    assert client.get("/v1/items/milk").json()["in_stock"] is False
    listed = client.post("/v1/recommendations", json={"items": ["tea"], "k": 9}).json()["items"]
    assert "milk" not in {x["item"] for x in listed}
    assert client.post("/v1/items", json={"in_stock": ["milk"]}).json() == {"out_of_stock": 1}


def test_a_visitor_can_see_everything_be_merged_and_be_erased(client):
    assert "Nothing is held" in problem(client.get("/v1/visitors/ann"), 404)
    client.post("/v1/events", json={"visitor": "anon/7", "item": "tea", "id": "e1"})
    request = client.post("/v1/recommendations", json={"visitor": "anon/7", "k": 1}).json()["request"]
    assert client.post("/v1/visitors/anon%2F7/merge", json={"into": "ann"}).json() == {"moved": 1}
    held = client.get("/v1/visitors/ann").json()
    assert (held["visitor"], held["identities"]) == ("ann", ["ann", "anon/7"])
    assert [(e["id"], e["item"]) for e in held["events"]] == [("e1", "tea")]
    assert [(s["request"], s["items"]) for s in held["shown"]] == [(request, ["milk"])]
    receipt = client.delete("/v1/visitors/ann").json()
    assert receipt == {
        "tombstone": hashlib.sha256(b"ann").hexdigest(),
        "erased_at": NOW, "events": 1, "impressions": 1, "identities": 2,
    }  # fmt: skip
    problem(client.get("/v1/visitors/ann"), 404)
    again = client.post("/v1/events", json={"visitor": "anon/7", "item": "tea", "id": "e1", "time": NOW - 1})
    assert "erased" in again.json()["outcomes"][0]["reason"]


# -- models -------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path):
    model = create("sequentialrules").fit(LOG)
    folder = tmp_path / "models" / "rules"
    model.save(folder)
    write_golden(model, folder)
    return folder


def test_models_are_loaded_weighed_and_rolled_back(clock, artifact):
    server = server_of(clock, models=[artifact.parent])
    with TestClient(application(server)) as client:
        load = {"do": "load", "arm": "markov", "artifact": str(artifact)}
        arms = client.post("/v1/models", json=load).json()["arms"]
        assert (arms[0]["model"], arms[0]["previous"], arms[0]["golden"]) == ("sequentialrules", ["markov-1"], 5)
        assert client.post("/v1/recommendations", json={}).json()["model"] == "sequentialrules"
        back = client.post("/v1/models", json={"do": "roll_back", "arm": "markov"}).json()["arms"]
        assert back[0]["version"] == "markov-1"
        assert "has had no other model" in problem(
            client.post("/v1/models", json={"do": "roll_back", "arm": "markov"}), 409
        )
        weights = {"do": "weigh", "weights": {"markov": 0, "popular": 2}}
        assert [arm["weight"] for arm in client.post("/v1/models", json=weights).json()["arms"]] == [0, 2]
        assert client.post("/v1/recommendations", json={"visitor": "x"}).json()["arm"] == "popular"


def test_a_fallback_is_loaded_swapped_and_dismissed_as_any_model_is(clock, artifact, tmp_path):
    path = tmp_path / "events.sqlite"
    one, other = (server_of(clock, SQLiteStore(path), models=[artifact.parent]) for _ in range(2))
    with TestClient(application(one)) as client:
        load = {"do": "load", "arm": "second", "artifact": str(artifact), "role": "fallback"}
        arms = client.post("/v1/models", json=load).json()["arms"]
        assert [(arm["arm"], arm["role"], arm["weight"]) for arm in arms][1:] == [
            ("popular", "answer", 0),
            ("second", "fallback", 0),
        ]
        listed = client.post("/v1/recommendations", json={"items": ["tea"], "k": 4}).json()["items"]
        assert [x["source"] for x in listed][:2] == ["model", "fallback"]
        assert client.get("/v1/operations").json()["chain"] == ["model", "fallback", "recent", "usual", "any"]
        assert client.get("/v1/operations").json()["answers"]["fallback"] == 1
        assert 'nextsession_items_total{source="fallback"} 1' in client.get("/metrics").text
        other.second()
        assert other.engine.arms.fallback.name == "second"
        said = problem(client.post("/v1/models", json={"do": "weigh", "weights": {"second": 1}}), 409)
        assert "is there to fill lists: its weight must be 0" in said
        said = problem(client.post("/v1/models", json={**load, "arm": "third"}), 409)
        assert "is the fallback already" in said
        (artifact / "golden.json").write_text('[{"items": ["tea"], "list": ["coffee", "a/b c"]}]')
        assert "answers otherwise" in problem(client.post("/v1/models", json=load), 409)
        client.post("/v1/models", json={"do": "assign", "arm": "second", "role": "answer"})
        assert client.get("/v1/operations").json()["chain"] == ["model", "recent", "usual", "any"]
        problem(client.post("/v1/models", json={"do": "assign", "arm": "nobody", "role": "answer"}), 404)
        problem(client.post("/v1/models", json={"do": "assign", "arm": "second", "role": "boss"}), 422)
        other.second()
        assert other.engine.arms.fallback is None
    other.engine.store.close()


def test_models_from_elsewhere_and_damaged_ones_are_refused(clock, artifact, tmp_path):
    server = server_of(clock, models=[artifact.parent])
    (tmp_path / "outside").mkdir()
    with TestClient(application(server)) as client:
        for place in (str(tmp_path / "outside"), f"{artifact.parent}/../outside", "/etc", "../../../etc/passwd"):
            said = problem(client.post("/v1/models", json={"do": "load", "arm": "a", "artifact": place}), 409)
            assert "must lie in one of the folders that the server was given" in said
        said = problem(client.post("/v1/models", json={"do": "load", "arm": "a", "artifact": "a\x00b"}), 409)
        assert "is no place that an artifact could be" in said
        for name in ('a"b', "a.b", "", "a b"):
            body = {"do": "load", "arm": name, "artifact": str(artifact)}
            assert "at `$.arm`" in problem(client.post("/v1/models", json=body), 422)
        (artifact / "arrays.safetensors").write_bytes(b"nothing")
        body = {"do": "load", "arm": "markov", "artifact": str(artifact)}
        assert "is damaged" in problem(client.post("/v1/models", json=body), 409)
        assert client.get("/v1/models").json()["refused"][0]["artifact"] == str(artifact.resolve())
        assert client.post("/v1/recommendations", json={}).json()["version"] == "markov-1"
        assert "Invalid value 'drop'" in problem(client.post("/v1/models", json={"do": "drop", "arm": "a"}), 422)


def test_one_that_may_not_be_read_is_refused(clock, artifact, monkeypatch):
    """By whoever is not root, whom nothing stops."""

    def locked(folder):
        raise PermissionError(13, "Permission denied", str(folder / "arrays.safetensors"))

    server = server_of(clock, models=[artifact.parent])
    server.load = lambda place: serve(place, gap=1)
    monkeypatch.setattr("nextsession.serving.served.load_runtime", locked)
    with TestClient(application(server)) as client:
        said = problem(client.post("/v1/models", json={"do": "load", "arm": "a", "artifact": str(artifact)}), 409)
        assert said == f"{artifact.resolve() / 'arrays.safetensors'} cannot be read: Permission denied."


def test_workers_follow_one_another(clock, artifact, tmp_path):
    path = tmp_path / "events.sqlite"
    one, other = (server_of(clock, SQLiteStore(path), models=[artifact.parent]) for _ in range(2))
    with TestClient(application(one)) as client:
        client.post("/v1/models", json={"do": "load", "arm": "new", "artifact": str(artifact)})
        client.post("/v1/models", json={"do": "weigh", "weights": {"new": 3}})
        client.post("/v1/items", json={"out_of_stock": ["milk"]})
        other.second()
        assert other.engine.arms.named("new").served.model.name == "sequentialrules"
        assert other.engine.arms.named("new").weight == 3
        assert "milk" in other.engine.out_of_stock
        client.post("/v1/models", json={"do": "load", "arm": "markov", "artifact": str(artifact)})
        other.second()
        client.post("/v1/models", json={"do": "roll_back", "arm": "markov"})
        other.second()
        assert other.engine.arms.named("markov").served.version == "markov-1"
    other.engine.store.close()


def test_what_was_loaded_holds_for_servers_that_were_started_with_the_same(clock, artifact, tmp_path):
    path = tmp_path / "events.sqlite"

    def started(weight):
        server = server_of(clock, SQLiteStore(path), models=[artifact.parent])
        server.engine.arms.weigh({"popular": weight})
        return Server(server.engine, server.load, clock, models=server.models)

    one = started(0.0)
    with TestClient(application(one)) as client:
        client.post("/v1/models", json={"do": "load", "arm": "markov", "artifact": str(artifact)})
    for weight, serves in ((0.0, "sequentialrules"), (0.5, "markov")):
        again = started(weight)
        again.second()
        assert again.engine.arms.named("markov").served.model.name == serves
        assert again.engine.arms.named("popular").weight == weight
        again.engine.store.close()


# -- numbers ------------------------------------------------------------------------------------


def test_numbers(client, server, clock):
    for _ in range(3):
        request = client.post("/v1/recommendations", json={"visitor": "ann", "items": ["tea", "?"]}).json()["request"]
    client.post("/v1/recommendations", json={"visitor": "ann", "arm": "popular"})
    client.post("/v1/events", json={"visitor": "ann", "item": "milk", "request": request})
    client.post("/v1/events", json={"visitor": "ann", "item": "milk", "request": "forged.x"})
    client.post("/v1/events", json={"nonsense": 1})
    clock.now += 1000
    server.second()
    found = client.get("/v1/operations").json()
    assert found["latency"]["recommend"]["count"] == 4
    assert found["latency"]["recommend"]["p50"] > 0
    assert {arm["arm"]: (arm["answers"], arm["clicks"]) for arm in found["arms"]} == {
        "markov": (3, 1),
        "popular": (0, 0),
    }
    assert found["errors"] == {"422": 1}
    assert found["cold_share"] == 0.5
    assert 0 < found["fallback_share"] < 1
    assert found["coverage"]["markov"] > 0
    text = client.get("/metrics").text
    assert 'nextsession_requests_total{method="POST",route="/v1/events",status="422"} 1' in text
    assert 'nextsession_seconds_count{stage="recommend"} 4' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP nextsession_", "# TYPE nextsession_", "nextsession_")), line
    assert "ann" not in text


def test_readiness(client, server):
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").status_code == 200
    server.ready = False
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "not ready")


# -- what fails ---------------------------------------------------------------------------------


class Full(MemoryStore):
    full = False

    def submit(self, events, now):
        if self.full:
            raise StoreError("/secret/path cannot be written: disk is full")
        return super().submit(events, now)


def test_events_are_never_dropped_in_silence(clock):
    store = Full()
    with TestClient(application(server_of(clock, store))) as client:
        store.full = True
        response = client.post("/v1/events", json={"visitor": "ann", "item": "tea"})
        assert "send them again with the same ids" in problem(response, 503)
        assert response.headers["retry-after"] == "1"
        assert "/secret" not in response.text
        answer = client.post("/v1/recommendations", json={"event": {"visitor": "ann", "item": "tea"}, "k": 1})
        assert (answer.status_code, answer.json()["degraded"], answer.json()["recorded"]) == (200, ["store"], None)
        store.full = False
        assert client.post("/v1/events", json={"visitor": "ann", "item": "tea"}).status_code == 200


def test_a_disk_that_is_too_slow(clock):
    class Slow(MemoryStore):
        def submit(self, events, now):
            return type(super().submit([], now))()  # never done

    with TestClient(application(server_of(clock, Slow(), patience=0.05))) as client:
        problem(client.post("/v1/events", json={"visitor": "ann", "item": "tea"}), 503)
        answer = client.post("/v1/recommendations", json={"event": {"visitor": "ann", "item": "tea"}}).json()
        assert answer["degraded"] == ["store"]


def test_a_fault_of_ours_tells_nothing(clock, caplog):
    server = server_of(clock)
    server.engine.store.known = lambda visitor: 1 / 0
    with TestClient(application(server), raise_server_exceptions=False) as client:
        said = problem(client.get("/v1/visitors/secret-visitor"), 500)
        assert said == "Something failed on our side; it has been noted under the id of this request."
    assert "ZeroDivisionError" in caplog.text
    assert "secret-visitor" not in caplog.text


def test_unknown_routes_and_methods(client):
    for path in ("/nothing", "/v1/nothing", "/v2/events", "/../app.py", "/%2e%2e/app.py", "/page", "/index.html/"):
        assert "/openapi.json lists them" in problem(client.get(path), 404)
    for method, path, allowed in (
        ("GET", "/v1/events", "POST"),
        ("PUT", "/v1/events", "POST"),
        ("DELETE", "/v1/models", "GET, POST"),
        ("OPTIONS", "/v1/visitors/ann", "DELETE, GET"),
        ("TRACE", "/v1/items/a/similar", "GET"),
    ):
        response = client.request(method, path)
        assert problem(response, 405) == f"This path takes {allowed} and not {method}."
        assert response.headers["allow"] == allowed
    assert client.head("/healthz").status_code == 200


def test_every_route_answers_a_problem_when_it_is_asked_nonsense(client):
    for route in ROUTES:
        path = route.path.replace("{id}", "x" * 5000)
        response = client.request(route.method, path, content=b'{"nonsense": [')
        assert response.status_code < 500, (route, response.text)
        if response.status_code >= 400:
            problem(response, response.status_code)


# -- limits -------------------------------------------------------------------------------------


def test_large_bodies(clock):
    with TestClient(application(server_of(clock, largest_body=1000))) as client:
        assert "A body may have 1000 bytes" in problem(client.post("/v1/events", content=b"x" * 1001), 413)
        chunks = (b"x" * 600 for _ in range(3))
        assert "this one has more" in problem(client.post("/v1/events", content=chunks), 413)


def test_too_many_requests(clock):
    with TestClient(application(server_of(clock, rate=1.0))) as client:
        found = [client.post("/v1/recommendations", json={}) for _ in range(4)]
        assert [x.status_code for x in found] == [200, 200, 429, 429]
        assert int(found[2].headers["retry-after"]) >= 1
        problem(found[2], 429)
        assert client.get("/healthz").status_code == 200


def test_too_many_at_once(clock):
    server = server_of(clock, in_flight=5)
    with TestClient(application(server)) as client:
        server.in_flight = 5
        assert "More requests are being answered" in problem(client.post("/v1/recommendations", json={}), 503)
        server.in_flight = 0
        assert client.post("/v1/recommendations", json={}).status_code == 200


# -- keys ---------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[shop]\nsha256 = "{hashlib.sha256(b"secret").hexdigest()}"\nscopes = ["read"]\nrate = 0.5\n'
        f'[boss]\nsha256 = "{hashlib.sha256(b"master").hexdigest().upper()}"\nscopes = ["read", "write", "admin"]\n'
    )
    return Keys.read(path)


def test_keys_and_scopes(clock, keys):
    with TestClient(application(server_of(clock, keys=keys))) as client:
        response = client.post("/v1/recommendations", json={})
        assert "The key is missing" in problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert "is not known" in problem(client.post("/v1/recommendations", json={}, headers={"X-API-Key": "x"}), 401)
        shop, boss = {"X-API-Key": "secret"}, {"Authorization": "Bearer master"}
        assert client.post("/v1/recommendations", json={}, headers=shop).status_code == 200
        said = problem(client.post("/v1/events", json={"visitor": "a", "item": "b"}, headers=shop), 403)
        assert said == "The key 'shop' may not do this; it lacks the scope 'write'."
        assert client.get("/v1/operations", headers=boss).status_code == 200
        assert client.post("/v1/recommendations", json={}, headers=shop).status_code == 429
        for route in ROUTES:
            expected = 401 if route.scope is not None else 200
            response = client.request(route.method, route.path.replace("{id}", "x"), content=b"{}")
            assert response.status_code == expected, route.path
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is no file of keys"),
        ("", "holds no key, so nobody could ask anything"),
        ('[a]\nsha256 = "12"', "a: sha256 must be 64 hexadecimal digits"),
        (f'[a]\nsha256 = "{"0" * 64}"\nscopes = ["all"]', "Invalid enum value 'all'"),
        (f'[a]\nsha256 = "{"0" * 64}"\nscope = ["read"]', "unknown field `scope`"),
    ],
)
def test_files_of_keys_that_are_wrong(tmp_path, text, says):
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.toml") as caught:
        Keys.read(tmp_path / "keys.toml")
    assert says in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Keys.read(tmp_path / "none.toml")


def test_pages_of_others_cannot_ask_an_open_server(clock):
    server = server_of(clock, origins=("https://shop.example",), hosts=("testserver",))
    with TestClient(application(server)) as client:
        said = problem(client.post("/v1/recommendations", json={}, headers={"Origin": "https://evil.example"}), 403)
        assert "Pages of this origin may not ask" in said
        assert client.post("/v1/recommendations", json={}, headers={"Origin": "http://testserver"}).status_code == 200
        asked = client.post("/v1/recommendations", json={}, headers={"Origin": "https://shop.example"})
        assert asked.headers["access-control-allow-origin"] == "https://shop.example"
        assert "not called 'evil.example'" in problem(
            client.post("/v1/recommendations", json={}, headers={"Host": "evil.example:8000"}), 403
        )
        before = client.options(
            "/v1/events",
            headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"},
        )
        assert before.status_code == 200
        assert "POST" in before.headers["access-control-allow-methods"]


# -- the page and the description ---------------------------------------------------------------


def test_the_page_lets_nothing_in_from_elsewhere(client):
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_page_has_only_its_own_files(clock, tmp_path):
    folder = tmp_path / "page"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<p>hello")
    (folder / "parts" / "app.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    with TestClient(application(server_of(clock), page=folder)) as client:
        assert client.get("/").text == "<p>hello"
        assert client.get("/parts/app.js").headers["content-type"].startswith("text/javascript")
        for path in (
            "/../secret.txt",
            "/%2e%2e%2fsecret.txt",
            "/parts/..%2f..%2fsecret.txt",
            f"/{tmp_path}/secret.txt",
        ):
            assert client.get(path).status_code == 404


def test_the_description_is_what_lies_in_the_documentation(client):
    kept = (ROOT / "docs/reference/openapi.json").read_text(encoding="utf-8")
    assert client.get("/openapi.json").text == kept, "run `make docs`"
    described = json.loads(kept)
    assert {(m.upper(), path) for path, methods in described["paths"].items() for m in methods} == {
        (route.method, route.path) for route in ROUTES
    }


def test_every_route_is_in_the_reference():
    page = (ROOT / "docs/reference/http.md").read_text(encoding="utf-8")
    for route in ROUTES:
        assert f"`{route.method} {route.path}`" in page, route.path
    for name, schema in openapi.openapi()["components"]["schemas"].items():
        if name.endswith("Message"):
            assert [
                field for field in schema["properties"] if f"`{field}`" not in page and f'"{field}"' not in page
            ] == []


def test_examples_of_the_description_are_valid(client):
    for path, methods in openapi.openapi()["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                example = operation["requestBody"]["content"]["application/json"]["example"]
                response = client.request(method, path.replace("{id}", "x"), json=example)
                assert response.status_code in (200, 404), (path, response.text)


def test_statuses_are_described():
    for operation in (o for methods in openapi.openapi()["paths"].values() for o in methods.values()):
        assert {"200"} < set(operation["responses"]) or operation["operationId"] in ("healthy", "show_metrics")


def test_logs_have_no_visitor_in_them(clock, caplog):
    with caplog.at_level(logging.DEBUG), TestClient(application(server_of(clock, access_log=True))) as client:
        client.post(
            "/v1/recommendations",
            json={"visitor": "secret-visitor", "event": {"visitor": "secret-visitor", "item": "t"}},
        )
        client.get("/v1/visitors/secret-visitor")
        client.delete("/v1/visitors/secret-visitor")
    ours = [record for record in caplog.records if record.name.startswith("nextsession")]
    assert len(ours) == 3
    assert "secret-visitor" not in " ".join(f"{record.getMessage()} {vars(record)}" for record in ours)
