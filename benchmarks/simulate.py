"""How fast the simulated shop makes events, and in how much memory: `python benchmarks/simulate.py`.

Each size runs in a process of its own; time is CPU time, after one small run that compiles.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

from nextsession.data.shop import Shop, ShopSettings

RESULTS = Path(__file__).parent / "results" / "simulate.json"


def measure(events: int) -> dict[str, float]:
    for _ in Shop(ShopSettings.sized(100)).blocks():
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.process_time()
    shop = Shop(ShopSettings.sized(events))
    shop.world  # noqa: B018 - draws the world
    built = time.process_time()
    made = sum(len(batch.frame) for batch in shop.batches())
    ended = time.process_time()
    return {
        "asked": events,
        "events": made,
        "items": shop.settings.items,
        "users": shop.settings.users,
        "world_cpu_s": round(built - began, 3),
        "events_cpu_s": round(ended - built, 3),
        "events_per_cpu_s": round(made / (ended - built)),
        "rss_before_mb": round(before),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=7, help="power of ten of the largest log (default 7)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go")
    given = parser.parse_args()
    rows = []
    for power in range(4, given.largest + 1):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (10**power,)))
        print(json.dumps(rows[-1]), file=sys.stderr)
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
