"""What the neighbour models cost: `python benchmarks/neighbours.py [PREPARED LOG ...]`.

Logs drawn at random (10^4 to 10^7 events, and 10^3 to 10^6 items) show how each cost grows; prepared
logs (folders that `nextsession data prepare` made) show what it is in life.  The last sessions of a
log are the questions, the others are learnt.  Each log has a process of its own; time is CPU time,
after one small run that compiles.
"""

import argparse
import json
import multiprocessing
import subprocess
import time
from pathlib import Path

import numpy as np

from nextsession import SessionLog, Vocabulary, create
from nextsession.cost import forget_peak, peak_memory
from nextsession.data.log import offsets_of
from nextsession.data.prepared import Prepared

MODELS = ("sknn", "vsknn", "stan", "vstan", "vmisknn")
EVENTS = (10_000, 100_000, 1_000_000, 10_000_000)
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
IN_BATCHES, ALONE, WARM_UP = 4000, 1000, 50
RESULTS = Path(__file__).parent / "results" / "neighbours.json"


def drawn(events: int, items: int, seed: int = 0) -> SessionLog:
    """Sessions of about three events: a Zipf-popular item, then items near it; one minute apart, in 30 days."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(1 + rng.geometric(0.5, events // 3), 50)
    popularity = np.cumsum(1 / np.arange(1, items + 1))
    first = np.searchsorted(popularity, rng.random(len(lengths)) * popularity[-1])
    offsets = offsets_of(lengths)
    steps = rng.geometric(0.3, offsets[-1]) - 1
    codes = (np.repeat(first, lengths) + steps) % items
    starts = np.sort(rng.integers(0, 30 * 86_400_000, len(lengths)))
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    times = np.repeat(starts, lengths) + 60_000 * within
    return SessionLog(codes.astype(np.int32), times, offsets, np.arange(len(offsets)), Vocabulary(np.arange(items)))


def prepared(folder: str) -> SessionLog:
    return Prepared.load(folder).log.positives().as_sessions()


def measure(name: str, source: tuple[str, ...] | tuple[int, int], answers: multiprocessing.SimpleQueue) -> None:
    log = drawn(*source) if isinstance(source[0], int) else prepared(source[0])
    late = log.session_starts >= np.quantile(log.session_starts, 0.98)
    train, asked = log.sessions(~late), log.sessions(late)
    row = {
        "data": name,
        "protocol": "the last 2 % of the sessions ask",
        "seed": 0,
        "events": train.n_events,
        "sessions": train.n_sessions,
        "items": train.n_items,
    }
    del log
    small = drawn(3000, 500)
    for model_name in MODELS:
        create(model_name).fit(small).recommend(small, 20)
        forget_peak()
        before = peak_memory()
        began = time.process_time()
        model = create(model_name).fit(train)
        fitted = time.process_time() - began
        peak = peak_memory()
        cost = {"fit_cpu_s": round(fitted, 3), **answering(model, asked)}
        if before is not None and peak is not None:
            cost |= {"fit_mb": round(peak - before), "peak_mb": round(peak)}
        answers.put({**row, "model": model_name, "settings": {}, "metrics": {}, "cost": cost})
    answers.put(None)


def answering(model, asked: SessionLog) -> dict[str, float]:
    """CPU time a prediction, in batches and alone; each question is the beginning of a session."""
    rng = np.random.default_rng(0)
    chosen = asked.take(rng.integers(0, len(asked), IN_BATCHES))
    lengths = np.diff(chosen.session_offsets)
    kept = np.repeat(np.maximum(1, rng.integers(0, lengths)), lengths)
    place = np.arange(chosen.n_events) - np.repeat(chosen.session_offsets[:-1], lengths)
    questions = chosen.events(place < kept)
    began = time.process_time()
    model.recommend(questions, 20)
    batch = (time.process_time() - began) / len(questions)
    alone = []
    for row in range(ALONE + WARM_UP):
        part = questions.rows(row, row + 1)
        ids, times = model.vocabulary_.decode(part.items).tolist(), part.times.tolist()
        began = time.process_time_ns()
        history = SessionLog.from_lists([[ids]], times=[[times]], vocabulary=model.vocabulary_)
        model.recommend(history, 20)
        alone.append((time.process_time_ns() - began) / 1e6)
    p50, p99 = np.quantile(alone[WARM_UP:], [0.5, 0.99])
    return {
        "batch_us_per_prediction": round(1e6 * batch, 1),
        "alone_p50_ms": round(float(p50), 3),
        "alone_p99_ms": round(float(p99), 3),
    }


def measured(name: str, *source) -> list[dict]:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=measure, args=(name, source, answers))
    process.start()
    rows = []
    while (row := answers.get()) is not None:
        rows.append(row)
        numbers = "  ".join(f"{key} {value}" for key, value in row["cost"].items())
        size = f"{row['events']:>9,} events {row['sessions']:>9,} sessions {row['items']:>9,} items"
        print(f"{name:24} {size}  {row['model']:8} {numbers}", flush=True)
    process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="*", type=Path, help="prepared logs to measure on as well")
    parser.add_argument("--largest", type=int, default=EVENTS[-1], help="largest number of events to draw")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go")
    given = parser.parse_args()
    rows = [row for log in given.logs for row in measured(log.name, str(log))]
    for events in (size for size in EVENTS if size <= given.largest):
        rows += measured(f"drawn: events {events:.0e}", events, events // 100)
    for items in ITEMS:
        rows += measured(f"drawn: items {items:.0e}", min(1_000_000, given.largest), items)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps([{**row, "commit": commit} for row in rows], indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows in {given.out}")


if __name__ == "__main__":
    main()
