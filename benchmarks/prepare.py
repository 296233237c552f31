"""What preparing a log costs: `python benchmarks/prepare.py [--globo FOLDER] [--largest 10000000]`.

Each run is a process of its own, after one small run that compiles: CPU seconds of all threads, from
opening the first file to the finished directory, and the peak of resident memory.  Generated logs
are CSV files of a tenth as many users as events, popular and rare items, in the order of time.
"""

import argparse
import json
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from nextsession.data.events import read_events
from nextsession.data.format import Columns, Filters, LogFormat, SessionRule
from nextsession.data.prepared import prepare

GLOBO = LogFormat(columns=Columns(item="click_article_id", time="click_timestamp", session="session_id"))
FILTERS = {
    "none": Filters(),
    "items >= 5, users >= 5 and 3 sessions": Filters(item_events=5, user_events=5, user_sessions=3, passes=3),
}
RESULTS = Path(__file__).parent / "results" / "prepare.json"


def measure(source, form, by, filters, out):
    started = time.process_time()
    prepared = prepare(read_events(source, form), out, form=form, sessions=SessionRule(by=by), filters=filters)
    seconds = time.process_time() - started
    return {"cpu_seconds": round(seconds, 2), "peak_mb": round(peak_bytes() / 1e6), **prepared.manifest["counts"]}


def peak_bytes():
    status = Path("/proc/self/status")
    if status.exists():  # what a process counts itself; getrusage would count the parent it was started from
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def generate(path, events):
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(1_600_000_000_000, 1_602_600_000_000, events))
    users = rng.integers(0, events // 10, events)
    items = rng.zipf(1.3, events) % 50_000
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_csv(path)
    return {"megabytes": round(path.stat().st_size / 1e6, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--globo", type=Path, help="the folder of the Globo.com data set's clicks_hour_*.csv.gz")
    parser.add_argument("--largest", type=int, default=10_000_000, help="events of the largest generated log")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go")
    options = parser.parse_args()
    rows = []
    alone = ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory() as folder, alone:
        log, out = Path(folder) / "log.csv", Path(folder) / "prepared"

        def run(name, *task):
            rows.append({"log": name, **alone.submit(measure, *task, out).result()})
            print(json.dumps(rows[-1]))

        alone.submit(generate, log, 1000).result()
        for filters in (Filters(), Filters(item_events=2)):  # compiles
            alone.submit(measure, log, LogFormat(), "gap", filters, out).result()
        if options.globo is not None:
            for name, filters in FILTERS.items():
                run(f"Globo.com, filters: {name}", str(options.globo / "*.csv.gz"), GLOBO, "id", filters)
        events = 10_000
        while events <= options.largest:
            size = alone.submit(generate, log, events).result()
            run(f"generated, {size['megabytes']:,} MB", log, LogFormat(), "gap", Filters())
            events *= 10
    options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
