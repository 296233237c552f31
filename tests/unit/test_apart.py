"""A process of its own that writes the file of a store: it may end, stand still or be refused, and nothing is lost."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from nextsession.errors import StoreError
from nextsession.serving.apart import Apart
from nextsession.serving.events import Event, Shown
from nextsession.serving.reading import Reader
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_000_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process can be given a socket there")


def event(name, visitor="ann", item="tea"):
    return Event(name, visitor, item, NOW)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.sqlite"


@pytest.fixture
def store(path):
    store = SQLiteStore(path, alone=True, apart=True, waiting=5_000)
    yield store
    store.close()


def pid_of(store):
    assert isinstance(store._writer, Apart)
    return store._writer._process.pid


def until(act, what, seconds=20.0):
    end = time.monotonic() + seconds
    while not act():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def ids(store):
    return [stored.event.id for stored in store.events()]


def test_a_process_that_ends_is_replaced_and_whoever_waits_hears_of_it(store, caplog):
    assert store.append([event("before")], NOW)[0].status == "accepted"
    os.kill(pid_of(store), signal.SIGSTOP)
    waiting = store.submit([event("during")], NOW)
    first = pid_of(store)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(StoreError, match=r"the process that writes it ended\. What waited may .* with the same ids"):
        waiting.result(20)
    until(lambda: "ended with exit code -9" in caplog.text, "it is noted")
    assert store.health()["waiting"] == 0

    def taken():
        try:
            return store.append([event("after")], NOW)[0].status in ("accepted", "duplicate")
        except StoreError:
            assert not store.health()["ok"]
            return False

    until(taken, "another writes")
    assert pid_of(store) != first
    assert store.append([event("during"), event("before")], NOW)[1].status == "duplicate"
    assert sorted(ids(store)) == ["after", "before", "during"]
    assert store.health()["ok"]


def test_whatever_it_was_killed_at_nothing_acknowledged_is_lost_and_retries_double_nothing(store):
    """Events are sent again, with the same ids, until they are acknowledged; the process is killed now and then."""
    acknowledged, lives = set(), 8
    for life in range(lives):
        names = {f"{life} {place}" for place in range(100)}
        for place, name in enumerate(sorted(names)):
            with contextlib.suppress(StoreError):
                store.submit([event(name)], NOW)
            if place == 12 * life:
                os.kill(pid_of(store), signal.SIGKILL)
        while names:
            try:
                sent = {name: store.submit([event(name)], NOW) for name in names}
                wait(sent.values(), 20)
            except StoreError:
                time.sleep(0.01)
                continue
            done = {name for name, future in sent.items() if future.exception() is None}
            assert {sent[name].result()[0].status for name in done} <= {"accepted", "duplicate"}
            acknowledged |= done
            names -= done
    found = ids(store)
    assert set(found) == acknowledged
    assert len(found) == 100 * lives


def test_one_that_stands_still_keeps_nobody_but_those_who_wait(store):
    """What cannot be sent is held, and more than a fixed number of events is refused; then all is written."""
    os.kill(pid_of(store), signal.SIGSTOP)
    began, sent = time.monotonic(), []
    for place in range(4_990):
        sent.append(store.submit([event(f"{place} {'x' * 200}", f"v{place % 50}")], NOW))
    for _ in range(20):
        store.submit_shown(Shown("r", "ann", NOW, "main", "v", ("tea",)))  # ten too many: no reason to fail an answer
    assert time.monotonic() - began < 10
    with pytest.raises(StoreError, match=r"5000 events wait to be written to .*; send them again later"):
        store.submit([event("one too many")], NOW)
    assert store.record("v1", NOW).events == (), "what was written can be read all the while"
    os.kill(pid_of(store), signal.SIGCONT)
    assert {future.result(30)[0].status for future in sent} == {"accepted"}
    store.flush()
    assert store.health()["waiting"] == 0
    assert len(ids(store)) == 4_990
    assert len(list(store.shown())) == 10


def test_what_nobody_waits_for_is_written_soon_all_the_same(store):
    store.submit_shown(Shown("r", "ann", NOW, "main", "v", ("tea",)))
    until(lambda: len(list(store.shown())) == 1, "a list is written that no event follows")


def test_one_event_that_is_no_text_takes_nobody_along(store):
    before, poisoned, after = (store.submit([event(n, v)], NOW) for n, v in (("a", "x"), ("b", "\ud800"), ("c", "x")))
    assert before.result(10)[0].status == after.result(10)[0].status == "accepted"
    with pytest.raises(StoreError, match=r"cannot be written: .*surrogates not allowed\. Nothing was recorded"):
        poisoned.result(10)


def test_what_keeps_it_from_opening_the_file_is_said(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database at all" * 100)
    with pytest.raises(StoreError, match="text cannot be opened as a store: file is not a database"):
        SQLiteStore(tmp_path / "text", apart=True)
    with pytest.raises(StoreError, match="cannot be opened as a store: No such file"):
        SQLiteStore(tmp_path / "nowhere" / "events", apart=True)


def test_one_that_cannot_begin_is_an_error(path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StoreError, match=r"no process could be started that writes it: .*No such file"):
        SQLiteStore(path, apart=True)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(StoreError, match=r"the process that writes it ended as it began|no process could be started"):
        SQLiteStore(path, apart=True)


def test_a_file_that_another_has_alone_is_refused(store, path):
    for apart in (True, False):
        with pytest.raises(StoreError, match="is being written by another server; end it, or name another folder"):
            SQLiteStore(path, apart=apart)


def test_signals_that_end_a_server_do_not_end_who_writes_for_it(store):
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid_of(store), number)
    assert store.append([event("a")], NOW)[0].status == "accepted"


def test_closing_waits_for_everything_and_leaves_no_process(path):
    store = SQLiteStore(path, alone=True, apart=True)
    sent = [store.submit([event(f"{i}")], NOW) for i in range(500)]
    store.submit_shown(Shown("r", "ann", NOW, "main", "v", ("tea",)))
    process = store._writer._process
    store.close()
    store.close()
    assert all(future.done() for future in sent)
    assert process.poll() == 0
    assert not path.with_name(path.name + "-wal").exists(), "all is carried over into the file"
    with pytest.raises(StoreError, match="has been closed; open it again to write to it"):
        store.append([event("late")], NOW)
    reader = Reader(path)
    assert len(list(reader.events())) == 500
    assert len(list(reader.shown())) == 1
    reader.close()


def test_a_loop_of_events_hears_for_itself_and_goes_on_with_the_next_process(store):
    """No thread wakes it; and whoever waits in its thread for an answer gets it, if only after a while."""
    threads = set()

    async def sent(name):
        future = store.submit([event(name)], NOW)
        future.add_done_callback(lambda _: threads.add(threading.current_thread()))
        return (await asyncio.wait_for(asyncio.wrap_future(future), 20))[0].status

    async def visit():
        store.attend(asyncio.get_running_loop())
        await asyncio.sleep(0.1)  # until the thread has left it to the loop
        assert [await sent(f"{i}") for i in range(50)] == ["accepted"] * 50
        assert threads == {threading.current_thread()}
        assert store.append([event("waited for")], NOW)[0].status == "accepted"
        first = pid_of(store)
        os.kill(first, signal.SIGKILL)
        while pid_of(store) == first or not store.health()["ok"]:
            with contextlib.suppress(StoreError):
                await sent("after")
            await asyncio.sleep(0.01)
        threads.clear()
        await asyncio.sleep(0.1)
        assert await sent("last") == "accepted"
        assert threads == {threading.current_thread()}
        await asyncio.to_thread(store.close)

    asyncio.run(visit())
    found = list(map(str, range(50)))
    assert [x.event.id for x in Reader(store._path).events()] == [*found, "waited for", "after", "last"]


def test_a_loop_that_has_ended_is_not_waited_for(path):
    store = SQLiteStore(path, alone=True, apart=True)

    async def visit():
        store.attend(asyncio.get_running_loop())

    asyncio.run(visit())
    assert store.append([event("a")], NOW)[0].status == "accepted"
    os.kill(pid_of(store), signal.SIGKILL)
    until(lambda: not store.health()["ok"], "it is noticed")
    store.close()


KILLED = """
import sys, os, signal
from nextsession.serving.events import Event
from nextsession.serving.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1], alone=True, apart=True)
for place in range(2_000):
    store.submit([Event(f"{place}", "ann", "tea", 1)], 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_sent_is_written_and_the_next_has_the_file(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    store = SQLiteStore(path, alone=True, apart=True)  # waits until the writer of the other has ended
    found = ids(store)
    assert found == [f"{place}" for place in range(len(found))]
    assert found, "nothing of what it had sent was written"
    store.close()
