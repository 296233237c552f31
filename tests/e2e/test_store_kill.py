"""Killed at any moment, a store has every event that it acknowledged, and after retries each once."""

import random
import subprocess
import sys
import time

import pytest

from nextsession.serving.events import Event
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_000_000

WRITER = """
import sys, threading
from nextsession.serving.events import Event
from nextsession.serving.sqlite import SQLiteStore

apart = sys.argv[3] == "apart"
store, life = SQLiteStore(sys.argv[1], alone=apart, apart=apart), sys.argv[2]

def write(thread):
    for i in range(10**6):
        names = [f"{life}-{thread}-{i}-{j}" for j in range(3)]
        store.append([Event(n, f"v{i % 50}", f"i{i % 7}", 1_700_000_000_000) for n in names], 1_700_000_000_000)
        sys.stdout.write("".join(f"{n} v{i % 50} i{i % 7}\\n" for n in names))
        sys.stdout.flush()

for thread in range(4):
    threading.Thread(target=write, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def killed(path, life, seconds, how):
    """Let a process write for a while, kill it, and return what it had acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), str(life), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        lines = [first, *process.stdout.readlines()]
    return [tuple(line.split()) for line in lines if line.endswith("\n") and len(line.split()) == 3]


def lives(path, times, seed, how):
    rng = random.Random(seed)
    acknowledged = []
    for life in range(times):
        acknowledged += killed(path, life, rng.uniform(0, 0.15), how)
    store = SQLiteStore(path, alone=how == "apart", apart=how == "apart")
    stored = [(s.event.id, s.event.visitor, s.event.item) for s in store.events()]
    assert set(acknowledged) <= set(stored), "an acknowledged event is lost"
    assert len(stored) == len(set(stored)), "an event is there twice"
    for place in range(0, len(acknowledged), 1000):
        found = store.append([Event(n, v, i, NOW) for n, v, i in acknowledged[place : place + 1000]], NOW)
        assert {x.status for x in found} == {"duplicate"}
    assert [s.event.id for s in store.events()] == [n for n, *_ in stored]
    records = [store.record(f"v{v}", NOW) for v in range(50)]
    store.rebuild()
    assert records == [store.record(f"v{v}", NOW) for v in range(50)], "a record is not what its log says"
    store.close()
    return len(acknowledged)


REBUILDER = """
import sys
from nextsession.serving.events import Rules
from nextsession.serving.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1], Rules(keep=int(sys.argv[2])))
print(flush=True)
store.rebuild()
"""


def test_killed_while_records_are_made_again_all_are_old_or_all_are_new(tmp_path):
    path, rng, visitors = tmp_path / "events.sqlite", random.Random(3), 2000
    store = SQLiteStore(path)
    for start in range(0, 20_000, 1000):
        store.append([Event(f"{i}", f"v{i % visitors}", "tea", NOW) for i in range(start, start + 1000)], NOW)
    store.close()
    for keep in range(2, 10):
        command = [sys.executable, "-c", REBUILDER, str(path), str(keep)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
        store = SQLiteStore(path)
        held = {len(store.record(f"v{v}", NOW).events) for v in range(visitors)}
        store.close()
        assert len(held) == 1, f"records of {held} events stand side by side"


@pytest.mark.parametrize("how", ["beside", "apart"])
def test_kill_8_times(tmp_path, how):
    assert lives(tmp_path / "events.sqlite", 8, 1, how) > 8


@pytest.mark.slow
@pytest.mark.parametrize("how", ["beside", "apart"])
def test_kill_200_times(tmp_path, how):
    assert lives(tmp_path / "events.sqlite", 200, 2, how) > 200
