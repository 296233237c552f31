"""What the counting models cost, by number of events and of items: `python benchmarks/counters.py`.

The logs are drawn: sessions of four events on average, items by a Zipf law.  First events grow from
ten thousand to ten million, a hundred times the items; then items from a thousand to a million, at
a million events.  Time is CPU time of one thread, after one run that compiles.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np

from nextsession import SessionLog, Vocabulary, create

MODELS = [
    ("popular", {}),
    ("recent", {"window": "1h"}),
    ("recent", {"half_life": "20m"}),
    ("sessionpopular", {}),
    ("markov", {}),
    ("markov", {"order": 3}),
    ("associationrules", {}),
    ("sequentialrules", {}),
    ("itemknn", {}),
    ("bprmf", {"dim": 64, "epochs": 1}),
    ("frequent", {}),
    ("tifuknn", {}),
    ("noop", {}),
]
EVENTS = (10_000, 100_000, 1_000_000, 10_000_000)
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
QUESTIONS = 2000
FEW_QUESTIONS = 100  # for what passes over all people


def drawn(events: int, items: int, seed: int = 0) -> SessionLog:
    """Return people of four sessions of four events on average, over thirty days."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.25, events // 4 + 1), 100)
    session_offsets = np.concatenate([[0], np.cumsum(lengths)])
    n_sessions = len(lengths)
    share = 1 / np.arange(1, items + 1)
    codes = np.searchsorted(np.cumsum(share) / share.sum(), rng.random(session_offsets[-1]))
    user_offsets = np.append(np.arange(0, n_sessions, 4), n_sessions)
    starts = rng.integers(0, 30 * 86_400_000, n_sessions)
    person = np.repeat(np.arange(len(user_offsets) - 1), np.diff(user_offsets))
    starts = starts[np.lexsort((starts, person))] + np.arange(n_sessions) % 4 * 10_000_000
    places = np.arange(session_offsets[-1]) - np.repeat(session_offsets[:-1], lengths)
    return SessionLog(
        items=np.minimum(codes, items - 1).astype(np.int32),
        times=np.repeat(starts, lengths) + 1000 * places,
        session_offsets=session_offsets,
        user_offsets=user_offsets,
        vocabulary=Vocabulary(np.arange(items)),
    )


def measure(name: str, settings: dict, log: SessionLog, asked: SessionLog) -> dict[str, float]:
    model = create(name, **settings)
    began = time.process_time()
    model.fit(log)
    fitted = time.process_time()
    questions = asked.rows(0, FEW_QUESTIONS if name == "tifuknn" else QUESTIONS)
    model.recommend(questions, 20)
    answered = time.process_time()
    alone = []
    for row in range(50):
        one = asked.rows(row, row + 1)
        start = time.process_time()
        model.recommend(one, 20)
        alone.append(time.process_time() - start)
    size = sum(array.nbytes for array in model._arrays().values())
    return {
        "fit_cpu_s": round(fitted - began, 4),
        "answer_cpu_us": round(1e6 * (answered - fitted) / len(questions), 2),
        "alone_cpu_us": round(1e6 * float(np.median(alone)), 1),
        "model_mb": round(size / 1e6, 2),
    }


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=float, default=1e7, help="events of the largest log")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "counters.json")
    arguments = parser.parse_args()
    small = drawn(2000, 20)
    for name, settings in MODELS:
        measure(name, settings, small, small)
    rows = []
    sweeps = [("events", events, events // 100) for events in EVENTS] + [("items", 1_000_000, n) for n in ITEMS]
    for sweep, events, items in sweeps:
        if events > arguments.most:
            continue
        log, asked = drawn(events, items), drawn(80_000, items, seed=1)
        for name, settings in MODELS:
            cost = measure(name, settings, log, asked)
            print(f"{events:>10,} {items:>9,} {name:18} {settings!s:28} {cost}", flush=True)
            row = {"data": f"drawn: {sweep}", "model": name, "settings": settings, "seed": 0, "cost": cost}
            sizes = {"events": log.n_events, "sessions": log.n_sessions, "users": len(log), "items": log.n_items}
            rows.append({**row, **sizes, "commit": commit()})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
