"""How long it takes to make the records of all visitors again from a log of a million events.

    python benchmarks/rebuild.py --events 1000000 --out benchmarks/results/load.json

Visitors are drawn by Zipf's law; the store is one file of SQLite, as `nextsession serve` keeps it.  All records
are forgotten first: SQLite does not write again what is there already to the byte.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from load import zipf

from nextsession.serving.events import Event
from nextsession.serving.sqlite import SQLiteStore

BEGIN, TOGETHER = 1_700_000_000_000, 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--visitors", type=int, default=100_000)
    parser.add_argument("--state", help="a folder on the disk that should be measured; the temporary one if not given")
    parser.add_argument("--out", type=Path, help="a JSON file of rows to add the result to")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    visitors = zipf(rng, args.visitors, 0.8, args.events).tolist()
    items = rng.integers(1_000_000, size=args.events).tolist()
    with tempfile.TemporaryDirectory(dir=args.state) as folder:
        store = SQLiteStore(Path(folder) / "events.sqlite", alone=True)
        began, spent = time.perf_counter(), time.process_time()
        for start in range(0, args.events, TOGETHER):
            places = range(start, min(start + TOGETHER, args.events))
            some = [Event(f"e{i}", f"v{visitors[i]}", str(items[i]), BEGIN + 1000 * i) for i in places]
            store.append(some, BEGIN + 1000 * places[-1])
        filled, filled_cpu = time.perf_counter() - began, time.process_time() - spent
        before = [store.record(f"v{visitor}", BEGIN + 1000 * args.events) for visitor in range(0, 1000, 10)]
        store.sweep(2 * BEGIN)
        began, spent = time.perf_counter(), time.process_time()
        number = store.rebuild()
        row = {
            "label": f"records of {args.events:,} events made again",
            "command": "python " + " ".join(sys.argv),
            "records": number,
            "rebuild_s": round(time.perf_counter() - began, 2),
            "rebuild_cpu_s": round(time.process_time() - spent, 2),
            "durable_events_per_second": round(args.events / filled),
            "cpu_us_per_event": round(1e6 * filled_cpu / args.events, 1),
            "load_average": [round(os.getloadavg()[0], 2)],
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "at": time.strftime("%Y-%m-%d"),
        }
        after = [store.record(f"v{visitor}", BEGIN + 1000 * args.events) for visitor in range(0, 1000, 10)]
        if [r.events for r in after] != [r.events for r in before]:
            raise SystemExit("The records are not what they were.")
        store.close()
    print(json.dumps(row))
    if args.out:
        rows = json.loads(args.out.read_text()) if args.out.exists() else []
        rows = [other for other in rows if other["label"] != row["label"]]
        args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
