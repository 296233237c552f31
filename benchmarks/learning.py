"""What it costs a server to tell a model what happened, and for how long an answer may wait meanwhile.

python benchmarks/learning.py recent vmisknn --json benchmarks/results/learning.json

The log is drawn, of the size of Globo.com's: 2.8 million clicks on 46,000 items that a model learnt from, and a day of
190,000 clicks since, in a store on the disk.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from nextsession import create
from nextsession.data.sessions import sessionise
from nextsession.recommender import Recommender
from nextsession.serving.arms import Arms
from nextsession.serving.events import DAY, Event
from nextsession.serving.learning import Learner
from nextsession.serving.served import prepared
from nextsession.serving.sqlite import SQLiteStore

NOW, GAP = 1_700_000_000_000, 1_800_000
ITEMS, VISITORS, LEARNT, SINCE = 46_000, 320_000, 2_800_000, 190_000
SETTINGS: dict[str, dict[str, Any]] = {
    "recent": {"half_life": "1h"},
    "sessionrec": {"epochs": 1, "moment": {"audience": 32}},
}


def drawn(events: int, begins: int, ends: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return visitors, items (the most wanted moving with time) and times, rising."""
    times = np.sort(rng.integers(begins, ends, events))
    fresh = (times - begins) / (ends - begins) * ITEMS / 2
    items = ((fresh + rng.zipf(1.3, events)) % ITEMS).astype(np.int64)
    return rng.integers(VISITORS, size=events), items, times


def learnt(name: str, rng: np.random.Generator) -> Recommender[Any]:
    """Return a model that knows the long log; networks learn vectors from a thousandth and are told the rest."""
    who, what, when = drawn(LEARNT, NOW - 16 * DAY, NOW - DAY, rng)
    log = sessionise([f"v{x}" for x in who.tolist()], [str(x) for x in what.tolist()], when, gap=GAP)
    model = create(name, **SETTINGS.get(name, {}))
    if name not in ("sessionrec",):
        return model.fit(log)
    some = rng.random(len(log)) < 0.001
    first = log.take(np.flatnonzero(some))
    return model.fit(first).update(log.take(np.flatnonzero(~some)))


class Answering:
    """A thread that does a little work again and again, as one that answers does, and notes how long that took."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.waits: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Answering":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.perf_counter()
        while not self._stop.is_set():
            sum(range(2000))
            time.sleep(0.0005)
            now = time.perf_counter()
            self.waits.append(now - before)
            before = now

    def told(self) -> dict[str, float]:
        waits = np.array(self.waits)
        return {
            "longest_ms": round(1000 * float(waits.max()), 2),
            "p99_ms": round(1000 * float(np.quantile(waits, 0.99)), 2),
        }


def measured(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    model = learnt(name, rng)
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "events.sqlite")
        who, what, when = drawn(SINCE, NOW - DAY, NOW, rng)
        for a in range(0, SINCE, 10_000):
            rows = zip(
                who[a : a + 10_000].tolist(), what[a : a + 10_000].tolist(), when[a : a + 10_000].tolist(), strict=True
            )
            events = [Event(f"e{a + i}", f"v{u}", f"{x}", t) for i, (u, x, t) in enumerate(rows)]
            store.append(events, int(when[min(a + 9_999, SINCE - 1)]))
        arms = Arms({"main": (prepared(model, gap=GAP, version="base"), 1.0)}, now=NOW)
        learner = Learner(arms, store, every=60_000)
        row: dict[str, Any] = {"model": name, "learnt_from": LEARNT, "since": SINCE, "items": ITEMS}
        cpu, wall = time.process_time(), time.perf_counter()
        learner.learn(NOW)
        row["first"] = {"cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.perf_counter() - wall, 3)}
        learner._rested = 0
        store.append([Event(f"new{i}", f"n{i}", str(i), NOW + 30_000) for i in range(130)], NOW + 30_000)
        cpu, wall = time.thread_time(), time.perf_counter()
        learner.learn(NOW + 60_000)
        row["next"] = {"cpu_s": round(time.thread_time() - cpu, 3), "wall_s": round(time.perf_counter() - wall, 3)}
        with Answering() as alone:
            time.sleep(3)
        row["alone"] = alone.told()
        learner._rested = 0
        store.append([Event(f"newer{i}", f"n{i}", str(i), NOW + 90_000) for i in range(130)], NOW + 90_000)
        with Answering() as beside:
            learner.learn(NOW + 120_000)
        row["beside"] = beside.told()
        state = learner.learnt["main"]
        assert state.times == 3, state
        row["events"] = state.events
        store.close()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as the server does
    rows = []
    for name in given.models:
        rows.append(measured(name))
        print(json.dumps(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
