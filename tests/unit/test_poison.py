"""Events that no shop would send: what is wrong is refused whole and named, what is odd is kept as it is."""

import json

import pytest
from starlette.testclient import TestClient

import redis_server
from nextsession import SessionLog, create
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.export import export
from nextsession.serving.learning import Learner
from nextsession.serving.memory import MemoryStore
from nextsession.serving.served import prepared
from nextsession.serving.server import Server
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_040_000
DEEP = b"[" * 50_000 + b"]" * 50_000


def with_field(name, text):
    return b'{"visitor": "ann", "item": "tea", "%s": %s}' % (name, text)


WRONG = {
    "NaN": (400, with_field(b"time", b"NaN")),
    "infinite": (400, with_field(b"time", b"-Infinity")),
    "too large for any number": (422, with_field(b"time", b"1e400")),
    "a time of 5,000 digits": (422, with_field(b"time", b"9" * 5000)),
    "a time before all": (422, with_field(b"time", b"-1")),
    "half a millisecond": (422, with_field(b"time", b"1.5")),
    "an item beyond 64 bits": (422, b'{"visitor": "ann", "item": 9223372036854775808}'),
    "an item of 5,000 digits": (422, b'{"visitor": "ann", "item": %s}' % (b"9" * 5000)),
    "half a character": (400, b'{"visitor": "ann", "item": "\\ud800"}'),
    "the other half": (400, b'{"visitor": "\\udfff", "item": "tea"}'),
    "half a character in bytes": (400, b'{"visitor": "ann", "item": "\xed\xa0\x80"}'),
    "Latin": (400, b'{"visitor": "ann", "item": "caf\xe9"}'),
    "UTF-16": (400, '{"visitor": "ann", "item": "tea"}'.encode("utf-16")),
    "a mark before it": (400, b'\xef\xbb\xbf{"visitor": "ann", "item": "tea"}'),
    "something after it": (400, b'{"visitor": "ann", "item": "tea"} {}'),
    "nothing": (400, b""),
    "an id of half a megabyte": (422, with_field(b"id", b'"' + b"x" * 500_000 + b'"')),
    "an item of half a megabyte": (422, b'{"visitor": "ann", "item": "' + b"x" * 500_000 + b'"}'),
    "no name": (422, b'{"visitor": "", "item": "tea"}'),
    "a list for a name": (422, b'{"visitor": ["ann"], "item": "tea"}'),
    "an object for an item": (422, b'{"visitor": "ann", "item": {"id": "tea"}}'),
    "null": (422, b'{"visitor": null, "item": "tea"}'),
    "a truth for a label": (422, with_field(b"label", b"true")),
    "a label of two": (422, with_field(b"label", b"2")),
    "consent in words": (422, with_field(b"consent", b'"no"')),
    "a field that there is not": (422, with_field(b"price", b"1")),
    "lists in lists": (422, DEEP),
    "lists in a field": (422, with_field(b"id", DEEP)),
    "lists in a field that there is not": (422, with_field(b"price", DEEP)),
    "lists without end": (422, b"[" * 100_000),
    "no events": (422, b"[]"),
    "one too many": (422, json.dumps([{"visitor": "ann", "item": "tea"}] * 1001).encode()),
    "a good one and a bad one": (422, b'[{"visitor": "ann", "item": "tea"}, {"visitor": "ann"}]'),
}
ODD = [
    {"visitor": "a\x00b", "item": "\x00", "id": "\x00"},
    {"visitor": "🦊", "item": "日本\u2028\u2029", "id": "é"},
    {"visitor": "\u202eann", "item": "\ufffd", "id": "\ufeff"},
    {"visitor": "'; DROP TABLE events; --", "item": "<script>alert(1)</script>", "id": "{{7*7}}"},
    {"visitor": "../../etc/passwd", "item": "=1+1", "id": "%s%n"},
    {"visitor": 2**63 - 1, "item": -(2**63), "id": "i"},
    {"visitor": "x" * 256, "item": "y" * 256, "id": "z" * 128, "action": "w" * 64, "request": "v" * 128},
    {"visitor": " ", "item": "\n", "id": "\t", "action": "\r", "request": "a\nb"},
    {"visitor": "ann", "item": "tea", "id": "t", "time": 0},
    {"visitor": "shown", "item": "tea", "id": "shown", "action": "shown"},
]


@pytest.fixture
def redis(tmp_path):
    server = redis_server.RedisServer(tmp_path, appendfsync="everysec")
    yield server.start()
    server.close()


@pytest.fixture(params=["memory", "sqlite", "sqlite alone", pytest.param("redis", marks=redis_server.needed)])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "redis":
        from nextsession.serving.redis import RedisStore

        return RedisStore(request.getfixturevalue("redis").url)
    return SQLiteStore(tmp_path / "events.sqlite", alone=request.param == "sqlite alone")


@pytest.fixture
def server(store):
    log = SessionLog.from_lists([[["tea", "milk"], ["tea", "milk"]]], times=[[[1, 2], [3, 4]]])
    arms = Arms({"main": (prepared(create("recent").fit(log), gap=1_800_000), 1.0)}, now=NOW)
    learner = Learner(arms, store, every=60_000)
    found = Server(Engine(arms, store), lambda place: None, lambda: NOW, learner=learner)
    yield found
    found.close()


def test_wrong_ones_are_refused_and_good_ones_go_on(server, store):
    client = TestClient(application(server), raise_server_exceptions=False)
    for number, (name, (status, body)) in enumerate(WRONG.items()):
        for path, sent in (("/v1/events", body), ("/v1/recommendations", b'{"event": ' + body + b"}")):
            response = client.post(path, content=sent)
            assert response.status_code == status or (path != "/v1/events" and 400 <= response.status_code < 500), name
            assert response.headers["content-type"] == "application/problem+json", name
        good = {"visitor": "ann", "item": "tea", "id": f"good {number}"}
        assert client.post("/v1/events", json=good).json()["outcomes"][0]["status"] == "accepted"
    assert [stored.event.id for stored in store.events()] == [f"good {n}" for n in range(len(WRONG))]


def test_bodies_of_all_routes_may_be_as_deep_as_they_like(server):
    client = TestClient(application(server), raise_server_exceptions=False)
    for path in ("/v1/models", "/v1/items", "/v1/explorations", "/v1/recommendations", "/v1/visitors/a/merge"):
        for body in (DEEP, b'{"do": %s}' % DEEP, b'{"where": {"kind": %s}}' % DEEP, b'{"a":' * 50_000):
            assert client.post(path, content=body).status_code in (400, 422), path


def test_odd_ones_are_kept_as_they_are_and_harm_nobody(server, store, tmp_path):
    client = TestClient(application(server), raise_server_exceptions=False)

    def post(path, body):
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    half = len(ODD) // 2
    told = post("/v1/events", ODD[:half])["outcomes"]
    told += [post("/v1/recommendations", {"visitor": one["visitor"], "event": one})["recorded"] for one in ODD[half:]]
    assert [one["status"] for one in told] == ["accepted"] * len(ODD)
    assert [one["status"] for one in post("/v1/events", ODD)["outcomes"]] == ["duplicate"] * len(ODD)
    kept = [(s.event.visitor, s.event.item, s.event.id) for s in store.events()]
    assert kept == [(str(one["visitor"]), str(one["item"]), one["id"]) for one in ODD]
    server.second()
    server.learner.learn(NOW + 120_000)
    assert not any(learnt.error for learnt in server.learner.learnt.values())
    for one in ODD:
        answer = post("/v1/recommendations", {"visitor": one["visitor"], "k": 20, "explain": True})
        assert answer["degraded"] == []
        assert answer["items"]
        post("/v1/explorations", {"visitor": one["visitor"]})
    listed = {one["item"] for one in post("/v1/recommendations", {"k": 200})["items"]}
    assert {"\x00", "日本\u2028\u2029", "<script>alert(1)</script>", "y" * 256} <= listed
    assert client.get("/v1/operations").status_code == client.get("/metrics").status_code == 200
    export(store, tmp_path / "events.jsonl", shown=True)
    lines = (tmp_path / "events.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines if line]
    assert [(row["visitor"], row["item"]) for row in rows if row["action"] != "shown"] == [
        (visitor, item) for visitor, item, name in kept if name != "shown"
    ]
    for one in ODD:
        erased = client.delete("/v1/visitors/" + "".join(f"%{byte:02x}" for byte in str(one["visitor"]).encode()))
        assert erased.json()["events"] >= 1, one
    assert list(store.events()) == []
