"""How far what everybody clicks just now goes, on real logs: `python benchmarks/recency.py`.

The last session of every person is asked for, at the instant it began.  `training` counts only
clicks that are in nobody's last session; `all` counts every click before the instant, as a live
system would.  Needs the data sets `globo` and `ebnerd` under `$NEXTSESSION_DATA`.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

from nextsession import SessionLog, create
from nextsession.data import sets
from nextsession.data.format import Filters
from nextsession.evaluation import EvaluationSettings, evaluate
from nextsession.splits import SplitSettings, split

WINDOWS = ("10m", "30m", "1h", "2h", "6h", "24h", "7d")
HALF_LIVES = ("2m", "5m", "10m", "20m", "30m", "1h", "2h", "6h", "24h")
RULES = EvaluationSettings(metrics=("ndcg", "recall", "mrr", "hitrate"), k=(10, 20, 100), bootstrap=300)
FEWER = Filters(item_events=5, user_sessions=3, user_events=5, passes=3)


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def measured(data: str, log: SessionLog, users: int) -> list[dict]:
    protocol = SplitSettings(protocol="leave-one-session-out", users=users)
    parts = split(log, protocol)
    models = [
        ("popular", {}),
        *(("recent", {"window": w}) for w in WINDOWS),
        *(("recent", {"half_life": h}) for h in HALF_LIVES),
    ]
    rows = []
    for counted, known in (("training", parts.train), ("all", log)):
        for name, settings in models:
            if name == "popular" and counted == "all":
                continue  # it would count the answers
            began = time.process_time()
            model = create(name, **settings).fit(known)
            fitted = time.process_time()
            report = evaluate(model, parts.test, RULES)
            cost = {
                "fit_cpu_s": round(fitted - began, 3),
                "answer_cpu_us": round(1e6 * (time.process_time() - fitted) / len(report), 1),
            }
            means = {key: round(found.mean, 4) for key, found in report.metrics.items()}
            intervals = {key: [round(found.low, 4), round(found.high, 4)] for key, found in report.metrics.items()}
            rows.append(
                {
                    "data": data, "protocol": protocol.in_force(), "counted": counted, "model": name,
                    "settings": settings, "seed": 0, "questions": len(report), "metrics": means,
                    "intervals": intervals, "cost": cost, "commit": commit(),
                }
            )  # fmt: skip
            shown = "  ".join(f"{key} {means[key]:.3f}" for key in ("ndcg@10", "ndcg@100", "recall@10", "recall@100"))
            print(f"{data:8} {counted:9} {name:8} {settings!s:24} {shown}  {cost}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recency.json")
    arguments = parser.parse_args()
    rows = measured("globo", sets.get("globo").prepare(filters=FEWER).log, 20_000)
    rows += measured("ebnerd", sets.get("ebnerd").prepare().log, 20_000)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
