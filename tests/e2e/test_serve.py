"""`nextsession serve` as a process: killed, stopped, swapped under load, with several workers, and what it says."""

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nextsession import SessionLog, Vocabulary, create
from nextsession.golden import write_golden
from nextsession.serving.sqlite import SQLiteStore

NEXTSESSION = [sys.executable, "-m", "nextsession"]
ITEMS = 50


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three versions of a model that can be told apart: each lists items of a range of its own."""
    folder = tmp_path_factory.mktemp("models")
    for version in range(3):
        # after anything, the items of this version: noop lists the most frequent
        counts = np.where(np.arange(ITEMS * 3) // ITEMS == version, 5, 1)
        items = np.repeat(np.arange(ITEMS * 3), counts)
        log = SessionLog.from_lists([[items.tolist()]], vocabulary=Vocabulary(np.arange(ITEMS * 3)))
        model = create("noop", length=20).fit(log)
        model.save(folder / f"v{version}", notes={"version": version})
        write_golden(model, folder / f"v{version}")
    return folder


@contextlib.contextmanager
def serving(*arguments, port=0):
    command = [*NEXTSESSION, "serve", *map(str, arguments), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())
            assert found, process.stderr.read()
            process.port = int(found[1])
            process.lines = []
            reader = threading.Thread(target=lambda: process.lines.extend(process.stderr), daemon=True)
            reader.start()
            wait_until_ready(process.port)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
            reader.join(5)


def wait_until_ready(port):
    for _ in range(600):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(port, "GET", "/readyz")[0] == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not become ready")


def ask(port, method, path, body=None, timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class Clients:
    """Visitors that send events, retry what got no answer, and note what was acknowledged."""

    def __init__(self, number, port):
        self.port, self.acknowledged, self.stop = port, [], threading.Event()
        self.statuses = []
        self.threads = [threading.Thread(target=self.visit, args=(n,), daemon=True) for n in range(number)]
        for thread in self.threads:
            thread.start()

    def visit(self, number):
        for i in itertools.count():
            if self.stop.is_set():
                return
            name = f"{number}-{i}"
            event = {"visitor": f"v{number}", "item": i % ITEMS, "id": name, "time": 1_700_000_000_000 + i}
            body = event if i % 2 else {"visitor": f"v{number}", "event": event, "k": 5}
            path = "/v1/events" if i % 2 else "/v1/recommendations"
            while not self.stop.is_set():
                try:
                    status, answer = ask(self.port, "POST", path, body, timeout=5)
                except (OSError, http.client.HTTPException, ValueError):
                    time.sleep(0.02)
                    continue
                told = answer["outcomes"][0] if "outcomes" in answer else answer.get("recorded")
                self.statuses.append(status)
                if status == 200 and told is not None:
                    assert told["status"] in ("accepted", "duplicate")
                    self.acknowledged.append(name)
                    break

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def free_port():
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def kill_under_load(models, state, times, seed):
    rng, port = random.Random(seed), free_port()
    clients = Clients(4, port)
    try:
        for _ in range(times):
            with serving(models / "v0", "--state", state, port=port) as process:
                time.sleep(rng.uniform(0.05, 0.6))
                process.send_signal(signal.SIGKILL)
        with serving(models / "v0", "--state", state, port=port):
            time.sleep(0.3)
            clients.end()
    finally:
        clients.stop.set()
    store = SQLiteStore(Path(state) / "events.sqlite")
    stored = [stored.event.id for stored in store.events()]
    store.close()
    assert set(clients.acknowledged) <= set(stored), "an acknowledged event is lost"
    assert len(stored) == len(set(stored)), "an event is there twice"
    return len(clients.acknowledged)


def test_killed_under_load_nothing_acknowledged_is_lost(models, tmp_path):
    assert kill_under_load(models, tmp_path / "state", 3, seed=1) > 20


@pytest.mark.slow
def test_killed_under_load_200_times(models, tmp_path):
    assert kill_under_load(models, tmp_path / "state", 200, seed=2) > 1000


def writers_of(pid):
    """Return the processes that write for a server, or for its workers."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            here = b"nextsession.serving.scribe" in Path(f"/proc/{child}/cmdline").read_bytes()
            found += [int(child)] if here else writers_of(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked for under /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_writers_killed_under_load_are_replaced_and_nothing_acknowledged_is_lost(models, tmp_path, workers):
    """Lists go out all the while; events are refused for a moment, and sent again."""
    with serving(models / "v0", "--state", tmp_path / "state", "--workers", workers) as process:
        clients, killed = Clients(4, process.port), set()
        for _ in range(5):
            time.sleep(0.3)
            while len(writers_of(process.pid)) < workers:
                time.sleep(0.05)
            for writer in writers_of(process.pid):
                os.kill(writer, signal.SIGKILL)
                killed.add(writer)
            status, answer = ask(process.port, "POST", "/v1/recommendations", {"visitor": "somebody", "k": 5})
            assert (status, len(answer["items"])) == (200, 5)
        before = len(clients.acknowledged)
        time.sleep(1.5)
        clients.end()
        assert len(killed) >= 5 * workers
        assert len(clients.acknowledged) > before, "events are recorded again"
        assert set(clients.statuses) <= {200, 503}
        assert ask(process.port, "GET", "/v1/operations")[1]["store"]["ok"]
    store = SQLiteStore(tmp_path / "state" / "events.sqlite")
    stored = [stored.event.id for stored in store.events()]
    assert set(clients.acknowledged) <= set(stored), "an acknowledged event is lost"
    assert len(stored) == len(set(stored)), "an event is there twice"
    store.close()


def test_told_to_stop_it_answers_what_it_has_begun(models, tmp_path):
    with serving(models / "v0", "--state", tmp_path / "state") as process:
        clients = Clients(3, process.port)
        time.sleep(0.5)
        process.terminate()
        clients.end()
        assert process.wait(20) == 0
        assert set(clients.statuses) == {200}
        said = [json.loads(line) for line in process.lines]
        assert not [row for row in said if row["level"] in ("error", "critical")]
        assert "v0-" not in "".join(process.lines)
    store = SQLiteStore(tmp_path / "state" / "events.sqlite")
    assert set(clients.acknowledged) <= {stored.event.id for stored in store.events()}
    store.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_models_swapped_under_load(models, tmp_path, workers):
    """No request fails, no list is of two models, and a list is of the model that it names."""
    versions, wrong, stop = {}, [], threading.Event()
    with serving(models / "v0", "--state", tmp_path / "state", "--workers", workers) as process:

        def visit():
            while not stop.is_set():
                status, answer = ask(process.port, "POST", "/v1/recommendations", {"k": 20})
                ranges = {int(one["item"]) // ITEMS for one in answer.get("items", ()) if one["source"] == "model"}
                if status != 200 or len(ranges) != 1:
                    wrong.append((status, answer))
                else:
                    versions.setdefault(answer["version"], set()).update(ranges)

        threads = [threading.Thread(target=visit) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            body = {"do": "load", "arm": "v0", "artifact": str(models / f"v{(turn + 1) % 3}")}
            assert ask(process.port, "POST", "/v1/models", body)[0] == 200
            time.sleep(0.3)
        assert ask(process.port, "POST", "/v1/models", {"do": "load", "arm": "v0", "artifact": str(models)})[0] == 409
        time.sleep(1.5)
        stop.set()
        for thread in threads:
            thread.join()
        served = {ask(process.port, "GET", "/v1/models")[1]["arms"][0]["version"] for _ in range(10)}
        assert len(served) == 1, "workers disagree"
    assert wrong == []
    assert all(len(ranges) == 1 for ranges in versions.values()), "a version listed items of another"
    assert len(versions) == 3


def test_workers_share_what_they_know_and_one_that_dies_is_replaced(models, tmp_path):
    with serving(models / "v0", "--state", tmp_path / "state", "--workers", "2") as process:
        for i in range(20):
            assert ask(process.port, "POST", "/v1/events", {"visitor": "ann", "item": i, "id": str(i)})[0] == 200
            held = ask(process.port, "GET", "/v1/visitors/ann")[1]["events"]
            assert len(held) == i + 1, "another worker does not know it yet"
        for _ in range(100):  # they tell one another their numbers every second, when they come to it
            found = {ask(process.port, "GET", "/v1/operations")[1]["workers"] for _ in range(6)}
            if found == {2}:
                break
            time.sleep(0.2)
        assert found == {2}
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if children.exists():
            workers = [
                int(p)
                for p in children.read_text().split()
                if b"resource_tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()
            ]
            subprocess.run(["kill", "-9", str(workers[0])], check=True)
            time.sleep(1.0)
            wait_until_ready(process.port)
            for _ in range(8):
                assert ask(process.port, "POST", "/v1/recommendations", {"visitor": "ann"})[0] == 200
            assert any("another is started" in line for line in process.lines)


# -- what it says -------------------------------------------------------------------------------


def told(*arguments):
    done = subprocess.run([*NEXTSESSION, "serve", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_dry_run_loads_the_models_and_touches_nothing(models, tmp_path):
    status, out, _ = told(f"old={models / 'v0'}:3", f"new={models / 'v1'}", "--state", tmp_path / "state", "--dry-run")
    assert status == 0
    found = json.loads(out)
    assert [(arm["arm"], arm["weight"], arm["golden"]) for arm in found["arms"]] == [("old", 3.0, 16), ("new", 1.0, 16)]
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are counted in /proc, which this system has not"
)
def test_products_of_vectors_have_no_threads_of_their_own(models):
    """Threads of a library that spin while they wait took 60 % of the core that requests needed."""
    count = "import os, threading; print(len(os.listdir('/proc/self/task')) - threading.active_count())"
    program = f"""
import sys
from nextsession.cli import main
try:
    main(["--quiet", "serve", {str(models / "v0")!r}, "--dry-run"])
except SystemExit:
    {count}
"""
    bare = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    found = [
        subprocess.run([sys.executable, "-c", program], env=bare | more, capture_output=True, text=True, check=True)
        for more in ({}, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    ]
    assert len({done.stdout.splitlines()[-1] for done in found}) == 1


def test_a_fallback_and_shadows_are_arms_that_answer_nobody(models):
    status, out, err = told(models / "v0", "--fallback", models / "v1", "--state", "memory", "--dry-run")
    assert status == 0, err
    found = json.loads(out)
    assert [(arm["arm"], arm["role"], arm["weight"]) for arm in found["arms"]] == [
        ("v0", "answer", 1.0),
        ("fallback", "fallback", 0.0),
    ]
    assert found["chain"] == ["model", "fallback", "recent", "usual", "any"]
    status, out, err = told(models / "v0", "--shadow", models / "v1", "--shadow", f"x={models / 'v2'}", "--dry-run")
    assert [(arm["arm"], arm["role"]) for arm in json.loads(out)["arms"]] == [
        ("v0", "answer"),
        ("v1", "shadow"),
        ("x", "shadow"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is not a saved model: it has no manifest.json"),
        (["{v0}", "{v0}"], "Two artifacts would be the arm 'v0'; name them, as in old=runs/a new=runs/b"),
        (["{v0}:0"], "At least one arm must have a weight above 0"),
        (["{v0}", "--host", "0.0.0.0"], "name a file of keys with --keys, or serve this machine alone"),
        (["{v0}", "--state", "memory", "--workers", "2"], "Several workers need a store that they share"),
        (["{v0}", "--gap", "soon"], "--gap must be a duration such as '30m', '2h' or '7d', got 'soon'"),
        (["{v0}", "--keys", "none.toml"], "none.toml cannot be read"),
        (["{v0}", "--fallback", "v0={v0}"], "Two artifacts would be the arm 'v0'"),
        (["{v0}", "--fallback", "{v0}:2"], "--fallback takes no weight"),
        (["{v0}", "--shadow", "v1={v0}:0.5"], "--shadow takes no weight"),
        (["{v0}", "--index", "best"], "--index must be one of exact, ivf, pq, hnsw, got 'best'"),
        (["a.b={v0}"], "An arm needs a name of letters, digits, - and _, got 'a.b'"),
    ],
)
def test_wrong_wishes_are_told_in_one_line(models, arguments, says):
    given = [argument.replace("{v0}", str(models / "v0")) for argument in arguments]
    status, _, err = told(*given, "--dry-run")
    assert status == 2
    assert err.startswith("Error: ")
    assert says in err
    assert len(err.splitlines()) == 1


def test_nobody_is_let_in_before_it_answers(models):
    """A proxy that is refused asks another server; one that is let in waits."""
    port, refused = free_port(), 0
    command = [*NEXTSESSION, "serve", str(models / "v0"), "--state", "memory", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while True:
            try:
                status, _ = ask(port, "GET", "/readyz", timeout=5)
                break
            except ConnectionRefusedError:
                refused += 1
                time.sleep(0.01)
        assert status == 200
        assert refused
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_told_to_stop_as_soon_as_it_has_begun_it_stops(models, tmp_path, workers):
    state = ["--state", str(tmp_path / "state"), "--workers", str(workers)]
    for _ in range(4):
        command = [*NEXTSESSION, "serve", str(models / "v0"), *state, "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert "Serving on" in process.stderr.readline()
            process.terminate()
            try:
                assert process.wait(15) == 0
            finally:
                process.kill()


def test_a_port_that_is_taken_and_a_store_that_is_taken(models, tmp_path):
    with serving(models / "v0", "--state", tmp_path / "state") as process:
        status, _, err = told(models / "v0", "--state", tmp_path / "other", "--port", process.port)
        assert status == 2
        assert "cannot be listened on" in err
        status, _, err = told(models / "v0", "--state", tmp_path / "state", "--port", "0")
        assert status == 1
        assert "is being written by another server" in err


def test_what_keeps_workers_from_beginning_is_told_once(models, tmp_path):
    state = ("--state", tmp_path / "state", "--workers", 2, "--port", "0")
    status, _, err = told("nowhere", *state)
    assert status == 2
    assert err.count("nowhere is not a saved model") == 1
    with serving(models / "v0", "--state", tmp_path / "state"):
        status, _, err = told(models / "v0", *state)
        assert status == 1
        assert err.count("is being written by another server") == 1


def test_workers_that_have_not_begun_can_be_stopped(models, tmp_path):
    """At any instant, also before the first of them has begun."""
    command = [*NEXTSESSION, "serve", models / "v0", "--state", tmp_path / "state", "--workers", "2", "--port", "0"]
    for wait in (0.5, 1.0, 1.5, 2.5):
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(wait)
        process.terminate()
        said, _ = process.communicate(timeout=60)
        assert b"Traceback" not in said


def test_what_many_click_now_is_listed_for_others_after_the_next_update(tmp_path):
    day = 86_400_000
    now = time.time_ns() // 1_000_000
    log = SessionLog.from_lists([[[i, i + 1]] for i in range(20)], times=[[[now - day, now - day + 1]]] * 20)
    model = create("recent", half_life="1h").fit(log)
    model.save(tmp_path / "recent")
    write_golden(model, tmp_path / "recent")
    arguments = (tmp_path / "recent", "--state", tmp_path / "state", "--learn", "1s", "--workers", 2)
    question = {"visitor": "somebody else", "k": 3}

    def listed(port):
        answer = ask(port, "POST", "/v1/recommendations", question)[1]
        return answer["version"], [(x["item"], x["score"] is not None, x["source"]) for x in answer["items"]]

    with serving(*arguments) as process:
        version, before = listed(process.port)
        assert "777" not in [item for item, _, _ in before]
        for i in range(30):
            event = {"visitor": f"v{i}", "item": 777, "id": f"e{i}"}
            assert ask(process.port, "POST", "/v1/events", event)[0] == 200
        for _ in range(1200):
            (learning,) = ask(process.port, "GET", "/v1/operations")[1]["learning"]
            told = listed(process.port)
            if learning["events"] == 30 and told[0] == learning["version"]:
                break
            time.sleep(0.1)
        assert told[1][0] == ("777", True, "model")
        assert told[0].startswith(f"{version}+")
        assert (learning["arm"], learning["every"], learning["not_because"]) == ("recent", 1000, None)
    with serving(*arguments) as process:  # it was told before it was ready
        assert listed(process.port) == told
    with serving(tmp_path / "recent", "--state", tmp_path / "state", "--learn", "never") as process:
        assert listed(process.port)[0] == version
        (learning,) = ask(process.port, "GET", "/v1/operations")[1]["learning"]
        assert (learning["events"], learning["not_because"]) == (0, "the server was told to learn never")
