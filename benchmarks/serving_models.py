"""Models of many items to put under load.

    python benchmarks/serving_models.py --model gru4rec --items 1000000 --events 10000000 --out runs/gru4rec-1m

Neither the public logs nor a simulated shop have a million items, so the log is drawn: items fall
into clusters of 250, popular by Zipf's law as a whole and within each cluster; most of a session stays
in one cluster.  The ids are numbers, 0 the most popular, as `benchmarks/load.py` asks for them.

With `--times 10` each item of `gru4rec` becomes ten, which differ from it by .7 of what the items of a
cluster differ: ten million items from a million, where to fit them would take more memory than there is.
What is measured of its quality is that of the million.

An index is only as good as the vectors it holds, and vectors that hardly moved from where they were
drawn are like no catalogue.  So the model must beat popularity clearly on sessions that it has not
seen; by how much, and what it cost, is printed as JSON and written beside it (`quality.json`).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from nextsession import SessionLog, Vocabulary, create
from nextsession.config import Runtime
from nextsession.data.log import offsets_of
from nextsession.golden import write_golden
from nextsession.index.kept import build_index, save_index
from nextsession.recommender import Recommender
from nextsession.scores import Targets

CLUSTER = 250
"""Items that belong together."""
STAYS, ZIPF, MEAN = 0.85, 0.8, 4
"""Share of steps that stay in the cluster; exponent of popularity; events of a session, on the mean."""
APART = 0.7
SETTINGS: dict[str, dict[str, Any]] = {
    "popular": {},
    "vmisknn": {},
    "gru4rec": {"layers": (64,), "batch_size": 128, "n_sample": 256, "epochs": 3},
    "sasrec": {
        "dim": 64,
        "max_length": 50,
        "epochs": 2,
        "batch_size": 512,
        "sparse": True,
        "loss": {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 512, "per": "batch"}},
    },
}


def drawn(n_items: int, n_events: int, *, seed: int) -> SessionLog:
    """Return a log of sessions of strangers, one a second."""
    rng = np.random.default_rng(seed)
    clusters = max(1, n_items // CLUSTER)
    lengths = 1 + rng.geometric(1 / (MEAN - 1), n_events // MEAN)
    offsets = offsets_of(lengths)
    n = int(offsets[-1])
    items = popular(rng, n_items, n)
    home = np.repeat(items[offsets[:-1]] % clusters, lengths)
    at_home = popular(rng, n_items // clusters, n) * clusters + home
    stays = rng.random(n) < STAYS
    stays[offsets[:-1]] = False
    times = 1000 * np.repeat(np.arange(len(lengths)), lengths) + np.arange(n) - np.repeat(offsets[:-1], lengths)
    each = np.arange(len(offsets))
    codes = np.where(stays, at_home, items).astype(np.int32)
    return SessionLog(codes, times, offsets, each, Vocabulary(np.arange(n_items)))


def popular(rng: np.random.Generator, n_items: int, size: int) -> np.ndarray:
    """Draw from `0..n_items` by Zipf's law."""
    cumulated = np.cumsum(np.arange(1, n_items + 1) ** -ZIPF)
    return np.minimum(np.searchsorted(cumulated, rng.random(size) * cumulated[-1]), n_items - 1)


def quality(model: Recommender[Any], test: SessionLog) -> dict[str, float]:
    """Return the share of last events among the best 20 and 100, beside that of the most popular."""
    last = test.session_offsets[1:] - 1
    targets = test.items[last]
    kept = np.ones(test.n_events, np.bool_)
    kept[last] = False
    offsets = offsets_of(np.diff(test.session_offsets) - 1)
    asked = SessionLog(test.items[kept], test.times[kept], offsets, np.arange(len(offsets)), test.vocabulary)
    above = model.scores(asked).ranks(Targets(np.arange(len(targets) + 1), targets)).greater
    found = {f"recall@{k}": float(np.mean(above < k)) for k in (20, 100)}
    return found | {f"recall@{k} of popularity": float(np.mean(targets < k)) for k in (20, 100)}


def multiplied(model: Recommender[Any], times: int) -> None:
    """Let each item of a fitted `gru4rec` become several, which differ by `APART` of what items of a cluster do."""
    rng = np.random.default_rng(0)
    n, clusters = len(model.items_), max(1, len(model.items_) // CLUSTER)
    known = model.items_[:, -2] > -1e8
    some = [model.items_[c::clusters, :-2][known[c::clusters]] for c in rng.choice(clusters, min(200, clusters), False)]
    spread = np.sqrt(np.mean([np.var(own, axis=0) for own in some], axis=0))
    items = np.repeat(model.items_, times, axis=0)
    for a in range(0, len(items), 200_000):
        block = items[a : a + 200_000]
        block[:, :-2] += APART * spread * rng.standard_normal(block[:, :-2].shape, dtype=np.float32)
        bias = 0.1 * rng.standard_normal(len(block), dtype=np.float32)
        block[:, -2] += np.where(block[:, -2] > -1e8, bias, 0)
    items[:, -1] = np.log1p(np.expm1(items[:, -1]) / times)
    model.items_, model.vocabulary_ = items, Vocabulary(np.arange(n * times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SETTINGS, default="gru4rec")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=6_000_000)
    parser.add_argument("--set", type=json.loads, default={}, help="settings as JSON, over those of this file")
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--index", choices=("none", "exact", "ivf"), default="ivf")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--times", type=int, default=1, help="items that each of gru4rec becomes")
    args = parser.parse_args()
    settings = SETTINGS[args.model] | args.set
    model = create(args.model, **settings)
    began = time.process_time()
    model.fit(
        drawn(args.items, args.events, seed=0),
        runtime=Runtime(device="cpu"),
        progress=lambda *told: print(*told, f"{time.process_time() - began:.0f} CPU-s", flush=True),
    )
    spent = time.process_time() - began
    facts = {"model": args.model, "settings": settings, "items": args.items, "events": args.events}
    facts |= {"fit_cpu_s": round(spent, 1), **quality(model, drawn(args.items, MEAN * args.questions, seed=1))}
    if args.times > 1:
        multiplied(model, args.times)
        facts["times"] = args.times
    model.save(args.out)
    write_golden(model, args.out)
    if args.index != "none":
        began = time.process_time()
        index = build_index(model, args.index)
        save_index(index, args.out)
        facts |= {"index": args.index, "index_recall@100": index.recall}
        facts |= {"index_effort": getattr(index, "effort", None), "index_cpu_s": round(time.process_time() - began, 1)}
    (args.out / "quality.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
