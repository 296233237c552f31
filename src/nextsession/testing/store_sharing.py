"""Promises of stores that several threads or processes have, at once or one after another."""

from concurrent.futures import ThreadPoolExecutor

from nextsession.serving.events import Event, Rules, Shown
from nextsession.serving.store import Store
from nextsession.testing.store_subjects import NOW, StoreSubject, click, items_of
from nextsession.testing.subjects import expect


def check_threads(subject: StoreSubject) -> None:
    """Many threads may write and read at once: each event is there once, and each sees what it wrote."""
    store = subject.open(Rules(keep=1000))

    def one(thread: int) -> None:
        for i in range(40):
            store.append([click(f"{thread}-{i}"), click(f"both-{i}", at=1)], NOW)
            expect(f"{thread}-{i}" in items_of(store), "a thread does not see what it wrote.")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))
    expect(len(items_of(store)) == len(list(store.events())) == 280, f"of 280 events there are {len(items_of(store))}.")
    store.close()


def check_two_writers(subject: StoreSubject) -> None:
    """Two processes may write at once: each event is there once, and each knows at once what the other acknowledged."""
    if subject.join is None:
        return
    one = subject.open(Rules(keep=1000))
    other = subject.join(one)

    def write(mine: Store, theirs: Store, name: str) -> None:
        for i in range(60):
            event = Event(f"{name}{i}", f"v{i % 4}", "tea", NOW)
            mine.append([event, Event(f"both{i}", f"v{i % 4}", "milk", NOW)], NOW)
            held = theirs.known(event.visitor)
            expect(
                held is not None and event.id in [s.event.id for s in held.events], "the other does not know it yet."
            )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (one, other), (other, one), "ab"))
    places = [[s.seq for s in store.events()] for store in (one, other)]
    expect(places[0] == places[1], "they do not agree on the log.")
    expect(len(set(places[0])) == len(places[0]) == 180, f"of 180 events there are {len(places[0])}.")
    records = [one.record(f"v{v}", NOW) for v in range(4)]
    expect(records == [other.record(f"v{v}", NOW) for v in range(4)], "they do not agree on the records.")
    one.rebuild()
    expect(records == [other.record(f"v{v}", NOW) for v in range(4)], "a record changed when it was made again.")
    one.merge("v0", "v1", NOW)
    expect(len(items_of(other, "v0")) == 90, "the other does not know of a merge.")
    other.erase("v2", NOW)
    expect(items_of(one, "v2") == [], "the other does not know of an erasure.")
    late = one.append([Event("late", "v2", "tea", NOW)], NOW)
    expect(late[0].status == "refused", "the other takes what was erased.")
    other.note("x", "1")
    expect(one.noted("x") == "1", "the other does not know of a note.")
    expect(one.last() == other.last() and one.rewritten() == other.rewritten(), "they do not agree how far the log is.")
    one.close()
    other.close()


def check_reopened(subject: StoreSubject) -> None:
    """What was acknowledged is there when the store is opened again: records, log, merges, tombstones, notes."""
    if subject.reopen is None:
        return
    store = subject.open(Rules())
    store.append([click("a", "anon"), click("b", "bob"), click("c")], NOW)
    store.submit_shown(Shown("r", "bob", NOW, "main", "v1", ("x",)))
    store.merge("anon", "ann", NOW)
    store.erase("bob", NOW + 1)
    store.note("x", "1")
    before = store.known("ann"), store.record("ann", NOW), store.last()
    store.close()
    again = subject.reopen(store)
    expect((again.known("anon"), again.record("anon", NOW), again.last()) == before, "it is not what it was.")
    expect(
        [x.status for x in again.append([click("a"), click("b", "bob")], NOW)] == ["duplicate", "refused"], "forgot."
    )
    expect(again.noted("x") == "1", "a note is gone.")
    again.close()
