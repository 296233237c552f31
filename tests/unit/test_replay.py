"""A replayed log leaves the state that live events would have left."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import ClassVar

import numpy as np
import pytest
from live import listening

from nextsession import SessionLog, create
from nextsession.errors import ConfigError, StoreError
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.replay import Line, batches, replay
from nextsession.serving.served import prepared
from nextsession.serving.server import Server, ServerSettings
from nextsession.testing.subjects import HOUR, START, training_log

NOW = START + 100_000 * HOUR


def server_of(store, **settings):
    model = create("popular").fit(training_log())
    arms = Arms({"main": (prepared(model, gap=1_800_000), 1.0)}, now=NOW)
    return Server(Engine(arms, store), lambda place: None, lambda: NOW, settings=ServerSettings(**settings))


def test_a_replay_gives_the_state_that_live_events_gave():
    log = training_log(users=40)
    live, replayed = (MemoryStore(Rules(ttl=NOW)) for _ in range(2))
    rows = np.repeat(np.arange(len(log)), np.diff(log.event_offsets))
    ids = log.vocabulary.ids
    for row, item, time, label in zip(rows, log.items, log.times, log.labels, strict=True):
        live.append([Event(f"{row}{time}", str(log.users[row]), ids[item], int(time), "click", int(label))], NOW)
    with listening(server_of(replayed)) as url:
        done = replay(log, url, batch=7, connections=3)
        assert (done.accepted, done.duplicate, done.refused) == (log.n_events, 0, 0)
        again = replay(log, url, batch=100)
        assert (again.accepted, again.duplicate) == (0, log.n_events), "a replay may be begun again"
        for user in log.users.tolist():
            one, other = (s.record(str(user), NOW).events for s in (live, replayed))
            assert [(e.time, e.item, e.label) for e in one] == [(e.time, e.item, e.label) for e in other]


def test_events_go_out_in_the_order_of_time():
    log = training_log(users=5)
    times = [event["time"] for batch in batches(log, 11) for event in batch]
    assert times == sorted(times)
    ids = [(event["visitor"], event["id"]) for batch in batches(log, 11) for event in batch]
    assert len(set(ids)) == len(ids) == log.n_events


def test_speed():
    waits, clock = [], iter(range(1000))
    log = SessionLog.from_lists([[["a"], ["a"]]], times=[[[0], [3_600_000]]])
    with listening(server_of(MemoryStore())) as url:
        replay(log, url, speed=60, batch=1, connections=1, sleep=waits.append, clock=lambda: 0 * next(clock))
    assert waits == [0, 60], "an hour in a minute"


def test_what_fails_is_sent_again():
    class Moody(MemoryStore):
        fails = 3

        def submit(self, events, now):
            self.fails -= 1
            if self.fails >= 0:
                raise StoreError("not now")
            return super().submit(events, now)

    store, waits = Moody(Rules(ttl=NOW)), []
    with listening(server_of(store)) as url:
        done = replay(training_log(users=3), url, connections=1, sleep=waits.append)
    assert done.accepted == len(list(store.events()))
    assert len(waits) == 3


def test_what_is_refused_for_good_is_said():
    with (
        listening(server_of(MemoryStore(), largest_body=10)) as url,
        pytest.raises(StoreError, match="A body may have"),
    ):
        replay(training_log(users=3), url)
    future = SessionLog.from_lists([[["a"]]], times=[[[NOW + 10**9]]])
    with listening(server_of(MemoryStore())) as url:
        done = replay(future, url)
    assert done.refused == 1
    assert "at most a day ahead" in done.reasons[0]
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9 does not take the events: ConnectionRefusedError"):
        Line("http://127.0.0.1:9", None, sleep=lambda s: None).send([{}])


def test_no_line_is_left_open_when_another_is_refused():
    """One line still waits to send again when the other's refusal ends the replay."""

    class Picky(BaseHTTPRequestHandler):
        protocol_version, open_lines, tried = "HTTP/1.1", [], threading.Event()
        tries: ClassVar[dict[bool, int]] = {True: 0, False: 0}

        def setup(self):
            super().setup()
            self.open_lines.append(self)

        def finish(self):
            super().finish()
            self.open_lines.remove(self)

        def do_POST(self):
            bad = b"bad" in self.rfile.read(int(self.headers["Content-Length"]))
            (self.tried.wait(5) if bad else self.tried.set())
            self.tries[bad] += 1
            self.send_response(400 if bad else 503 if self.tries[bad] < 5 else 200)
            self.send_header("Content-Length", "51")
            self.end_headers()
            self.wfile.write(b'{"outcomes": [{"status": "accepted", "id": "one"}]}')

        def log_message(self, *words):
            pass

    users = np.array(
        [
            next(f"{name}{i}" for i in range(99) if hash(f"{name}{i}") % 2 == line)
            for line, name in enumerate(["bad", "good"])
        ]
    )
    log = replace(SessionLog.from_lists([[["a"]], [["a"]]], times=[[[0]], [[1]]]), users=users)
    with ThreadingHTTPServer(("127.0.0.1", 0), Picky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StoreError):
            replay(log, f"http://127.0.0.1:{server.server_port}", connections=2, sleep=lambda s: sleep(0.05))
        server.shutdown()
        until = monotonic() + 5
        while Picky.open_lines and monotonic() < until:
            sleep(0.01)
        assert not Picky.open_lines


def test_wrong_wishes():
    with pytest.raises(ConfigError, match="without times cannot be replayed"):
        replay(replace(training_log(), timed=False), "http://x")
    with pytest.raises(ConfigError, match=r"A server has an address such as http://127\.0\.0\.1:8000, got 'shop'"):
        replay(training_log(), "shop")
    with pytest.raises(ConfigError, match="A batch holds 1 to 1000 events, got 0"):
        replay(training_log(), "http://x", batch=0)
