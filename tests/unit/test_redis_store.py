"""What a Redis store does beyond the contract: servers that stop, hang and are full, erasure down to the bytes."""

import signal
import threading
import time

import pytest

import redis_server
from nextsession.errors import ConfigError, StoreError
from nextsession.serving.events import DAY, Event, Rules, Shown

pytestmark = redis_server.needed
NOW = 1_700_000_000_000


def event(name, visitor="ann", item="tea", at=0):
    return Event(name, visitor, item, NOW + at)


@pytest.fixture
def server(tmp_path):
    server = redis_server.RedisServer(tmp_path)
    yield server.start()
    server.close()


def opened(server, rules=None, **how):
    from nextsession.serving.redis import RedisStore

    return RedisStore(server.url, rules, **how)


def until(act, what):
    """Try until it is true or gives something; a store recovers in a moment, not at once."""
    for _ in range(400):
        try:
            if found := act():
                return found
        except StoreError:
            pass
        time.sleep(0.025)
    raise AssertionError(f"never: {what}")


def test_killed_and_started_it_is_well_again_and_nothing_acknowledged_is_lost(server):
    store, acknowledged, stop = opened(server), [], threading.Event()

    def write(thread):
        for i in range(10**6):
            told = [event(f"{thread}-{i}-{j}", f"v{i % 20}") for j in range(3)]
            while not stop.is_set():  # what got an error is sent again, with the same ids
                try:
                    store.append(told, NOW)
                except StoreError:
                    time.sleep(0.005)
                else:
                    acknowledged.extend(e.id for e in told)
                    break
            if stop.is_set():
                return

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = len(acknowledged)
        until(lambda n=before: len(acknowledged) > n, "anything is acknowledged")
        server.kill()
        until(lambda: not store.health()["ok"], "it says that it is not well")
        with pytest.raises(StoreError, match=r"does not answer: .* Nothing was recorded; send it again"):
            store.append([event("x")], NOW)
        with pytest.raises(StoreError, match="does not answer"):
            store.record("v1", NOW)
        server.start()
        until(lambda: store.health()["ok"], "it is well again")
    stop.set()
    for thread in threads:
        thread.join()
    stored = [s.event.id for s in store.events()]
    assert set(acknowledged) <= set(stored), "an acknowledged event is lost"
    assert len(stored) == len(set(stored)), "an event is there twice"
    records = [store.record(f"v{v}", NOW) for v in range(20)]
    store.rebuild()
    assert records == [store.record(f"v{v}", NOW) for v in range(20)], "a record is not what its log says"
    store.close()


def test_one_that_hangs_holds_nobody_up(server):
    store = opened(server, patience=1.0)
    store.append([event("a")], NOW)
    server.send(signal.SIGSTOP)
    with pytest.raises(StoreError, match="cannot be read"):
        store.record("ann", NOW)
    with pytest.raises(StoreError, match="does not answer"):  # this one is not even asked
        store.record("ann", NOW)
    waits = store.submit([event("b")], NOW)
    with pytest.raises(StoreError, match="Send it again, with the same ids"):
        waits.result(20)
    with pytest.raises(StoreError, match="Nothing was recorded"):
        store.submit([event("c")], NOW)
    store.submit_shown(Shown("r", "ann", NOW, "main", "v", ()))  # no reason to fail an answer
    assert store.health()["ok"] is False
    server.send(signal.SIGCONT)
    until(lambda: store.record("ann", NOW).events, "it is well again")
    until(lambda: store.append([event("b")], NOW), "events are taken again")
    assert [s.event.id for s in store.events()] == ["a", "b"]
    store.close()


def test_a_full_one_refuses_events_and_goes_on_when_there_is_room(server):
    store = opened(server)
    store.append([event("a")], NOW)
    store._link._slow.config_set("maxmemory", "1mb")
    with pytest.raises(StoreError, match=r"cannot be written: .*maxmemory"):
        store.append([event("b")], NOW)
    assert "maxmemory" in store.health()["error"]
    assert [e.item for e in store.record("ann", NOW).events] == ["tea"]
    store._link._slow.config_set("maxmemory", "0")
    assert store.append([event("b")], NOW)[0].status == "accepted"
    assert store.health()["ok"] is True
    assert [s.event.id for s in store.events()] == ["a", "b"]
    store.close()


def test_an_erasure_leaves_no_byte(server):
    store = opened(server)
    secret, names = "visitor-4711-secret", [f"secret-event-{i}" for i in range(300)]
    store.append([event(n, secret, f"secret-item-{n}") for n in names], NOW)
    store.append([event(n, "bob", "common") for n in names], NOW)
    store.submit_shown(Shown("secret-request", secret, NOW, "main", "v", ("secret-shown",)))
    store.flush()

    def traces():
        content = b"".join(file.read_bytes() for file in server.folder.rglob("*") if file.is_file())
        return [t for t in (secret.encode(), b"secret-item", b"secret-shown", b"secret-request") if t in content]

    assert len(traces()) == 4
    assert store.erase(secret, NOW + DAY).events == 300
    until(lambda: not traces(), "the bytes are gone")
    assert len(store.record("bob", NOW).events) == 200
    store.close()


def test_an_erasure_while_the_file_is_being_rewritten_is_not_forgotten(server, monkeypatch):
    from redis.exceptions import ResponseError

    store = opened(server)
    store.append([event("a", "secret-visitor")], NOW)
    rewrite, refused = store._link._slow.bgrewriteaof, []

    def once():
        if refused:
            return rewrite()
        refused.append(1)
        raise ResponseError("Background append only file rewriting already in progress")

    monkeypatch.setattr(store._link._slow, "bgrewriteaof", once)
    store.erase("secret-visitor", NOW)
    until(lambda: not store._link.rewrite, "it is tried again")
    assert refused
    store.close()


def test_what_an_acknowledgement_means_is_said(server, caplog):
    store = opened(server)
    assert store.health()["durable"] == "always: what was acknowledged is on the disk"
    assert not caplog.records
    redis = store._link._slow
    for setting, value, says in [
        ("appendfsync", "everysec", "everysec: what was acknowledged within the last second or two is lost"),
        ("appendfsync", "no", "no: what was acknowledged within the last half minute"),
        ("appendonly", "no", "snapshots: what was acknowledged since the last snapshot is lost"),
    ]:
        redis.config_set(setting, value)
        other = opened(server)
        assert other.health()["durable"].startswith(says)
        assert says.partition(": ")[2] in caplog.records[-1].getMessage()
        other.close()
    store.close()


def test_what_cannot_be_a_store_is_refused(server, tmp_path):
    from nextsession.serving.redis import RedisStore

    store = opened(server)
    redis = store._link._slow
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("maxmemory", "100mb")
    with pytest.raises(StoreError, match=r"throws keys away when its memory is full .*set it to noeviction"):
        opened(server)
    redis.config_set("maxmemory", "0")
    opened(server).close()
    redis.set("{nextsession}:format", 9)
    with pytest.raises(StoreError, match="has format 9, this version reads up to 1: upgrade nextsession"):
        opened(server)
    store.close()
    with pytest.raises(StoreError, match=r"unix:.*/nowhere cannot be opened as a store: "):
        RedisStore(f"unix://{tmp_path}/nowhere")
    with pytest.raises(StoreError, match=r"redis://localhost:1/0 cannot be opened") as told:
        RedisStore("redis://shop:secret@localhost:1/0")
    assert "secret" not in str(told.value)
    with pytest.raises(ConfigError, match="http://x is no address of a Redis"):
        RedisStore("http://x")


def test_somebody_empties_the_cache_of_scripts(server):
    store = opened(server)
    store._link._slow.script_flush()
    assert store.append([event("a")], NOW)[0].status == "accepted"
    store._link._slow.script_flush()
    assert [e.item for e in store.record("ann", NOW).events] == ["tea"]
    store.close()


def test_ids_that_are_no_text_are_refused_alone(server):
    store = opened(server)
    with pytest.raises(StoreError, match="cannot be written"):
        store.submit([event("b", item="\ud800")], NOW)
    assert store.append([event("c")], NOW)[0].status == "accepted"
    store.close()


def test_everything_is_looked_through_some_at_a_time(server, monkeypatch):
    monkeypatch.setattr("nextsession.serving.redis._SLICE", 3)
    store = opened(server, Rules(ttl=5))
    store.append([event(f"e{i}", f"v{i}") for i in range(20)], NOW)
    store.append([event(f"f{i}", f"v{i}") for i in range(10)], NOW + 3)
    assert [s.event.id for s in store.events(after=4, limit=9)] == [f"e{i}" for i in range(4, 13)]
    assert store.rebuild() == 20
    assert store.sweep(NOW + 6, retention=2) == 10
    assert [s.event.id for s in store.events()] == [f"f{i}" for i in range(10)]
    assert store.sweep(NOW + 100, retention=2) == 10
    assert len(list(store.events())) == 10
    store.close()


def test_a_batch_may_be_large_and_a_visitor_busy(server):
    store = opened(server, Rules(keep=3000))
    store.append([event(f"e{i}", at=-i) for i in range(5000)], NOW)
    assert len(store.record("ann", NOW).events) == 3000
    before = store.record("ann", NOW)
    store.rebuild()
    assert store.record("ann", NOW) == before
    assert store.merge("ann", "bob", NOW) == 5000
    assert store.record("bob", NOW) == before
    assert store.erase("ann", NOW + 1).events == 5000
    assert list(store.events()) == []
    store.close()


def test_a_store_that_was_closed_says_so(server):
    one = opened(server)
    one.close()
    with pytest.raises(StoreError, match="has been closed; open it again to read from it"):
        one.record("v1", NOW)
    with pytest.raises(StoreError, match="has been closed; open it again to write to it"):
        one.append([event("a")], NOW)
