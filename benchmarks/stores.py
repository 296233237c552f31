"""What the stores of the server cost: durable events from many threads, and reading a record.

python benchmarks/stores.py sqlite redis       # needs redis-server for the second
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextsession.errors import StoreError
from nextsession.serving.events import Event
from nextsession.serving.redis import RedisStore
from nextsession.serving.sqlite import SQLiteStore
from nextsession.serving.store import Store

NOW = 1_700_000_000_000


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Store]:
    if kind == "sqlite":
        store: Store = SQLiteStore(folder / "events.sqlite")
        yield store
        store.close()
        return
    command = [shutil.which("redis-server") or "redis-server", "--port", "0", "--unixsocket", str(folder / "socket")]
    command += ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        for attempt in range(200):
            time.sleep(0.05)
            try:
                store = RedisStore(f"unix://{folder / 'socket'}")
                break
            except StoreError:
                if attempt == 199:
                    raise
        yield store
        store.close()
        process.terminate()


def written(store: Store, events: int, threads: int) -> dict[str, float]:
    waited: list[float] = []

    def write(thread: int) -> None:
        for i in range(events // threads):
            began = time.perf_counter()
            store.append([Event(f"{thread}-{i}", f"v{(7 * i + thread) % 2000}", f"i{i % 1000}", NOW + i)], NOW + 10**6)
            waited.append(time.perf_counter() - began)

    workers = [threading.Thread(target=write, args=(n,)) for n in range(threads)]
    wall, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    waited.sort()
    return {
        "events_per_s": round(len(waited) / wall),
        "cpu_us": round(1e6 * cpu / len(waited)),
        "p50_ms": round(1e3 * waited[len(waited) // 2], 1),
        "p99_ms": round(1e3 * waited[int(0.99 * len(waited))], 1),
    }


def read(store: Store, times: int = 5000) -> dict[str, float]:
    store.append([Event(f"r{i}", "reader", f"i{i}", NOW + i) for i in range(20)], NOW + 100)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        store.record("reader", NOW + 200)
    return {
        "record_us": round(1e6 * (time.perf_counter() - wall) / times),
        "record_cpu_us": round(1e6 * (time.process_time() - cpu) / times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+", choices=["sqlite", "redis"])
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--threads", type=int, default=64)
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as the server does
    for kind in given.stores:
        with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as store:
            row = {"store": kind, "threads": given.threads, **written(store, given.events, given.threads)}
            print(json.dumps(row | read(store)), flush=True)


if __name__ == "__main__":
    main()
