"""`nextsession serve` with a Redis that two servers share, as on two machines; it is killed and started under load."""

import http.client
import json
import subprocess
import time

import pytest
from test_serve import NEXTSESSION, Clients, ask, models, serving  # noqa: F401 - a fixture is among them

import redis_server

pytestmark = redis_server.needed


@pytest.fixture
def redis(tmp_path):
    (tmp_path / "redis").mkdir()
    server = redis_server.RedisServer(tmp_path / "redis")
    yield server.start()
    server.close()


def until(act, what):
    for _ in range(400):
        if act():
            return
        time.sleep(0.025)
    raise AssertionError(f"never: {what}")


def sent(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    found = response.status, response.headers, json.loads(response.read())
    connection.close()
    return found


def test_redis_killed_and_started_under_load(models, redis):  # noqa: F811
    from nextsession.serving.redis import RedisStore

    with serving(models / "v0", "--state", redis.url) as one, serving(models / "v0", "--state", redis.url) as other:
        clients = [Clients(2, one.port), Clients(2, other.port)]
        for turn in range(3):
            before = [len(c.acknowledged) for c in clients]
            until(lambda b=before: all(len(c.acknowledged) > n for c, n in zip(clients, b, strict=True)), "recorded")
            redis.kill()
            for port in (one.port, other.port):
                event = {"visitor": "ann", "item": 3, "id": f"gone-{turn}-{port}"}
                until(lambda p=port, e=event: sent(p, "/v1/events", e)[0] == 503, "events are refused")
                status, headers, said = sent(port, "/v1/events", event)
                assert (status, headers["retry-after"]) == (503, "1")
                assert "send them again with the same ids" in said["detail"]
                status, _, answer = sent(port, "/v1/recommendations", {"visitor": "ann", "event": event, "k": 5})
                assert (status, answer["degraded"], len(answer["items"])) == (200, ["store"], 5)
                assert answer["recorded"] is None
                assert ask(port, "GET", "/v1/operations")[1]["store"]["ok"] is False
            redis.start()
            for port in (one.port, other.port):
                until(lambda p=port: sent(p, "/v1/recommendations", {"visitor": "ann"})[2]["degraded"] == [], "well")
                assert ask(port, "GET", "/v1/operations")[1]["store"]["durable"].startswith("always")
        for c in clients:
            c.end()
        known = [ask(port, "GET", "/v1/visitors/v1")[1]["events"] for port in (one.port, other.port)]
        assert known[0] == known[1] != [], "two servers know different things"
    store = RedisStore(redis.url)
    stored = [(s.event.visitor, s.event.id) for s in store.events()]
    store.close()
    acknowledged = {name for c in clients for name in c.acknowledged}
    assert acknowledged <= {name for _, name in stored}, "an acknowledged event is lost"
    assert len(stored) == len(set(stored)), "an event is there twice"
    assert not any(visitor == "ann" for visitor, _ in stored), "what was refused was recorded"


def test_workers_share_it_and_its_events_are_exported(models, redis, tmp_path):  # noqa: F811
    with serving(models / "v0", "--state", redis.url, "--workers", "2") as process:
        for i in range(3):
            assert ask(process.port, "POST", "/v1/events", {"visitor": "ann", "item": i, "id": str(i)})[0] == 200
        until(lambda: ask(process.port, "GET", "/v1/operations")[1]["workers"] == 2, "workers know one another")
        done = subprocess.run(
            [*NEXTSESSION, "export", redis.url, str(tmp_path / "out.jsonl")], capture_output=True, text=True, check=True
        )
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["visitor"], row["item"]) for row in rows] == [("ann", "0"), ("ann", "1"), ("ann", "2")]
    assert "go on with --after 3" in done.stdout


def test_a_redis_that_is_not_there_and_a_secret_in_its_address(models):  # noqa: F811
    def told(*more):
        command = [*NEXTSESSION, "serve", str(models / "v0"), "--state", "redis://shop:secret@localhost:1/0", *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = told("--port", "0")
    assert done.returncode == 1
    assert "redis://localhost:1/0 cannot be opened as a store" in done.stderr
    assert "secret" not in done.stderr
    done = told("--dry-run")
    assert json.loads(done.stdout)["settings"]["state"] == "redis://localhost:1/0"
