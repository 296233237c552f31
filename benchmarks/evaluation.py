"""How fast answers are measured: `python benchmarks/evaluation.py`.

A model that scores by dot products is asked through `evaluate` itself, once for ranks alone and once
for lists of 20 as well; then the same with ever more items.  Time is CPU time, after one run that compiles.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from nextsession.config import Settings
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.evaluation import EvaluationSettings, evaluate
from nextsession.recommender import Recommender
from nextsession.scores import DotScores
from nextsession.splits import Split, SplitSettings, split

DIM = 64
RESULTS = Path(__file__).parent / "results" / "evaluation.json"
RULES = {
    "ranks": EvaluationSettings(metrics=("ndcg", "recall", "mrr", "hitrate", "precision", "map"), k=(10, 20)),
    "ranks and lists": EvaluationSettings(k=(10, 20)),
}


class RandomVectorSettings(Settings):
    """None."""


class RandomVectors(Recommender[RandomVectorSettings]):
    """Scores items by their random vectors' products with that of the last item."""

    name = "randomvectors"

    def _fit(self, log, runtime):
        self.vectors_ = np.random.default_rng(runtime.seed).normal(size=(log.n_items, DIM)).astype(np.float32)

    def _score(self, histories, asked_at):
        last = histories.items[histories.event_offsets[1:] - 1]
        return DotScores(self.vectors_[last], self.vectors_)


def questions(users: int, items: int) -> Split:
    """Ask `users` users with 20 events for their last item; training knows all items."""
    events = 20
    rng = np.random.default_rng(0)
    codes = rng.integers(0, items, (users, events)).astype(np.int32)
    catalogue = np.arange(items, dtype=np.int32)
    log = SessionLog(
        items=np.concatenate([codes.ravel(), catalogue]),
        times=np.concatenate([np.tile(np.arange(events), users), np.arange(items)]) * 1000,
        session_offsets=np.append(np.arange(users + 1) * events, users * events + items),
        user_offsets=np.arange(users + 2),
        vocabulary=Vocabulary(catalogue),
    )
    return split(log, SplitSettings(protocol="leave-one-item-out", form="paper-like", users=users))


def measure(users: int, items: int) -> dict[str, float]:
    found = questions(users, items)
    model = RandomVectors().fit(found.train)
    row: dict[str, float] = {"users": users, "items": items}
    for name, rules in RULES.items():
        started = time.process_time()
        report = evaluate(model, found.test, rules, train=found.train)
        row[f"{name}_users_per_cpu_s"] = round(len(report) / (time.process_time() - started))
        started = time.process_time()
        _ = report.metrics
        row[f"{name}_intervals_cpu_s"] = round(time.process_time() - started, 2)
    return row


def intervals(groups: int) -> float:
    """Return the CPU-seconds of 1,000 resamples of so many users, for twelve metrics."""
    from nextsession.bootstrap import intervals as resample

    columns = np.random.default_rng(0).random((12, groups))
    started = time.process_time()
    resample(columns, np.arange(groups), resamples=1000, seed=0)
    return round(time.process_time() - started, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=6, help="power of ten of the largest catalogue (default 6)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go")
    given = parser.parse_args()
    measure(500, 1000)
    head = measure(100_000, 3417) | {"intervals_125k_users_cpu_s": intervals(125_000)}
    print(json.dumps(head))
    rows = []
    for power in range(3, given.largest + 1):
        rows.append(measure(max(200, min(50_000, 10**8 // 10**power)), 10**power))
        print(json.dumps(rows[-1]))
    given.out.write_text(json.dumps({"main": head, "growth": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
