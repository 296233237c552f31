"""What a SQLite store does beyond the contract: full disks, foreign files, erasure down to the bytes."""

import sqlite3
import stat
import threading
import time

import pytest

from nextsession.errors import StoreError
from nextsession.serving.claims import Turns
from nextsession.serving.events import DAY, Event, Rules, Shown
from nextsession.serving.groups import Groups, Job
from nextsession.serving.reading import Reader
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_000_000


def event(name, visitor="ann", item="tea", at=0):
    return Event(name, visitor, item, NOW + at)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.sqlite"


def test_a_full_disk_loses_nothing_acknowledged_and_goes_on_when_there_is_room(path):
    store = SQLiteStore(path, largest=40)
    acknowledged = []

    def fill():
        for place in range(10_000):
            store.append([event(f"{place}-{'x' * 200}")], NOW)
            acknowledged.append(f"{place}-{'x' * 200}")

    with pytest.raises(
        StoreError, match=r"cannot be written: database or disk is full\. Nothing was recorded; send it"
    ):
        fill()
    assert len(acknowledged) > 50
    assert store.health()["ok"] is False
    assert "full" in store.health()["error"]
    assert len(store.record("ann", NOW).events) == min(200, len(acknowledged))
    store._submit(lambda writing: writing._do("PRAGMA max_page_count = 100000").fetchall(), 0).result()
    assert store.append([event("again")], NOW)[0].status == "accepted"
    assert store.health()["ok"] is True
    assert [s.event.id for s in store.events()] == [*acknowledged, "again"]
    store.close()


def test_one_that_cannot_be_written_takes_nobody_along(path):
    store = SQLiteStore(path)
    gate = threading.Event()
    store._submit(lambda writing: gate.wait(10), 0)

    def broken(writing):
        raise ZeroDivisionError("a fault of ours")

    before, bad = store.submit([event("a")], NOW), store._submit(broken, 0)
    poisoned, after = store.submit([event("b", "\ud800")], NOW), store.submit([event("c")], NOW)
    gate.set()
    assert [x.status for x in before.result(10) + after.result(10)] == ["accepted", "accepted"]
    for failed in (bad, poisoned):
        with pytest.raises(StoreError, match=r"cannot be written: .*Nothing was recorded"):
            failed.result(10)
    assert [s.event.id for s in store.events()] == ["a", "c"]
    store.close()


def test_what_waits_is_bounded(path):
    store = SQLiteStore(path, waiting=3)
    gate = threading.Event()
    store._submit(lambda writing: gate.wait(10), 0)
    first = store.submit([event("a"), event("b")], NOW)
    with pytest.raises(StoreError, match=r"2 events wait to be written to .*; send them again later"):
        store.submit([event("c"), event("d")], NOW)
    store.submit_shown(Shown("r", "ann", NOW, "main", "v", ()))
    store.submit_shown(Shown("r", "ann", NOW, "main", "v", ()))  # one too many, and no reason to fail an answer
    gate.set()
    assert [x.status for x in first.result(10)] == ["accepted", "accepted"]
    store.close()
    assert len(list(SQLiteStore(path).shown())) == 1


def test_a_store_that_was_closed_says_so(path):
    store = SQLiteStore(path)
    store.close()
    with pytest.raises(StoreError, match="has been closed; open it again to write to it"):
        store.append([event("a")], NOW)
    with pytest.raises(StoreError, match="has been closed; open it again to read from it"):
        store.record("ann", NOW)


def test_files_that_are_no_store_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database at all" * 100)
    with pytest.raises(StoreError, match="text cannot be opened as a store: file is not a database"):
        SQLiteStore(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot be opened as a store: No such file"):
        SQLiteStore(tmp_path / "nowhere" / "events")


def test_a_newer_format_is_refused(path):
    SQLiteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="has format 9, this version reads up to 3: upgrade nextsession"):
        SQLiteStore(path)


def test_an_older_format_is_brought_up_to_date_by_whoever_writes(path):
    SQLiteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE shown DROP COLUMN shadow")
        connection.execute("ALTER TABLE shown DROP COLUMN explored")
        connection.execute("INSERT INTO people (name) VALUES ('ann')")
        connection.execute("INSERT INTO shown VALUES (1, 1, 'r', 5, 'main', 'v1', '[\"x\"]')")
        connection.execute("UPDATE counter SET seq = 1")
        connection.execute("PRAGMA user_version = 1")
    reader = Reader(path)
    with pytest.raises(StoreError, match="has format 1, and 3 is read here: start a server on it once"):
        list(reader.shown())
    reader.close()
    store = SQLiteStore(path)
    assert [shown for _, shown in store.shown()] == [Shown("r", "ann", 5, "main", "v1", ("x",))]
    store.submit_shown(Shown("s", "ann", 6, "new", "v2", ("y",), shadow=True, explored={"y": 0.5}))
    store.flush()
    assert [(shown.shadow, shown.explored) for _, shown in store.shown()] == [(False, {}), (True, {"y": 0.5})]
    store.close()


def test_the_file_is_for_its_owner_alone(path):
    SQLiteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_file_is_an_error_not_an_empty_history(path):
    store = SQLiteStore(path)
    store.append([event(f"e{i}", f"v{i}") for i in range(2000)], NOW)
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError):
        SQLiteStore(path).record("v7", NOW)


def test_an_erasure_leaves_no_byte(path):
    store = SQLiteStore(path)
    secret, names = "visitor-4711-secret", [f"secret-event-{i}" for i in range(300)]
    for place in range(0, 300, 20):
        store.append([event(n, secret, f"secret-item-{n}") for n in names[place : place + 20]], NOW)
        store.append([event(n, "bob", "common") for n in names[place : place + 20]], NOW)
    store.submit_shown(Shown("secret-request", secret, NOW, "main", "v", ("secret-shown",)))
    store.flush()
    found = b"".join(f.read_bytes() for f in path.parent.iterdir())
    assert b"secret-item" in found
    assert b"secret-shown" in found
    assert store.erase(secret, NOW + DAY).events == 300
    files = {f.name: f.read_bytes() for f in path.parent.iterdir()}
    for name, content in files.items():
        for trace in (secret.encode(), b"secret-item", b"secret-shown", b"secret-request"):
            assert trace not in content, f"{trace!r} is still in {name}"
    assert len(store.record("bob", NOW).events) == 200
    store.close()


def test_a_file_that_one_process_has_alone_is_not_shared(path):
    store = SQLiteStore(path, alone=True)
    for alone in (True, False):
        with pytest.raises(StoreError, match="is being written by another server; end it, or name another folder"):
            SQLiteStore(path, alone=alone)
    store.close()
    SQLiteStore(path).close()


def test_a_writer_that_holds_the_file_too_long_is_an_error_that_passes(path):
    store = SQLiteStore(path, patience=0.1)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.append([event("a")], NOW)
        other.execute("ROLLBACK")
    assert store.append([event("a")], NOW)[0].status == "accepted"
    store.close()


def test_people_are_swept_some_at_a_time(path, monkeypatch):
    monkeypatch.setattr("nextsession.serving.sqlite._STEP", 3)
    store = SQLiteStore(path, Rules(ttl=5))
    store.append([event(f"e{i}", f"v{i}") for i in range(20)], NOW)
    assert store.sweep(NOW + 6) == 20
    store.sweep(NOW + 6, retention=0)
    assert len(list(store.events())) == 20, "all are as new as the newest"
    store.close()


def test_what_nobody_waits_for_goes_with_what_somebody_does():
    groups = Groups("a place", most=10)
    taken: list[tuple[list[Job], bool]] = []
    note = Job(None, 1, urgent=False)
    groups.put(note)
    thread = threading.Thread(target=lambda: taken.append(groups.taken()))
    thread.start()
    time.sleep(0.02)
    event = Job(None, 1)
    groups.put(event)
    thread.join()
    assert taken == [([note, event], True)]
    groups.put(note)
    assert groups.taken() == ([note], True)  # without one, too, after a while
    groups.put(note)
    groups.close()
    assert groups.taken() == ([note], False)


def test_a_group_with_events_that_are_there_adds_the_others_once(path):
    for alone in (True, False):
        store = SQLiteStore(path, alone=alone)
        gate = threading.Event()
        name = f"{alone}"
        assert store.append([event(f"{name} a")], NOW)[0].status == "accepted"
        store._submit(lambda writing, gate=gate: gate.wait(10), 0)
        waiting = [store.submit([event(f"{name} {x}"), event(f"{name} {x}", "bob")], NOW) for x in "abac"]
        gate.set()
        assert [[x.status for x in one.result(10)] for one in waiting] == [
            ["duplicate", "accepted"],
            ["accepted", "accepted"],
            ["duplicate", "duplicate"],
            ["accepted", "accepted"],
        ]
        store.close()
    ids = [s.event.id for s in SQLiteStore(path).events()]
    assert len(ids) == 12
    assert len(set(ids)) == 6


def test_the_log_is_carried_over_beside_the_writer_and_begun_anew(path, monkeypatch):
    """However long it is written without a pause, it does not grow for ever."""
    monkeypatch.setattr("nextsession.serving.carrying._EVERY", 0.02)
    monkeypatch.setattr("nextsession.serving.carrying._LARGE", 50)
    store = SQLiteStore(path, alone=True)
    log, sizes, place = path.with_name(path.name + "-wal"), [], 0
    until = time.monotonic() + 60
    while len(sizes) < 200 or len(set(sizes[-100:])) > 1:
        assert time.monotonic() < until, "it grows"
        store.append([event(f"e{place}", f"v{place}")], NOW)
        sizes.append(log.stat().st_size)
        place += 1
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as without_log:
        assert without_log.execute("SELECT count(*) FROM events").fetchone()[0] > 0
    store.close()
    assert len(list(SQLiteStore(path).events())) == place


def test_who_waits_for_the_turn_is_woken_when_it_comes(path):
    one, other = Turns(path), Turns(path)
    order = []

    def second():
        with other.mine():
            order.append("second")

    with one.mine():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    one.close()
    other.close()
    other.close()


def test_a_crowd_is_taken_together_and_one_that_comes_again_is_none(monkeypatch):
    monkeypatch.setattr(Groups, "spacing", 0.2)
    groups = Groups("a place", most=100)
    jobs = [Job(None, 1) for _ in range(4)]

    def taken(job):
        groups.put(job)
        found, _ = groups.taken()
        return found

    assert taken(jobs[0]) == [jobs[0]]
    groups.settle([jobs[0]], [None])
    assert taken(jobs[1]) == [jobs[1]], "nobody waited, so nobody waits"
    groups.put(jobs[2])
    groups.settle([jobs[1]], [None])
    thread = threading.Timer(0.05, groups.put, [jobs[3]])
    thread.start()
    assert groups.taken() == ([jobs[2], jobs[3]], True)
    thread.join()
