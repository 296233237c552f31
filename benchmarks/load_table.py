"""Write the tables of docs/explanation/live-state.md that benchmarks/results/load.json fills.

python benchmarks/load_table.py            # write
python benchmarks/load_table.py --check    # exit code 1 if a table is not what the rows say
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "load.json"
PAGE = ROOT / "docs" / "explanation" / "live-state.md"
MARK, END = "<!-- load: table -->", "<!-- end of load -->"
STAGES = ("read", "history", "model", "list", "write", "http", "store", "other", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    before = PAGE.read_text(encoding="utf-8")
    head, found, rest = before.partition(MARK)
    if not found:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no mark {MARK}")
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    after = f"{head}{MARK}\n{tables(rows)}\n{END}{rest.partition(END)[2]}"
    if check:
        if after != before:
            print(f"{PAGE.relative_to(ROOT)} is not what the rows say: run python benchmarks/load_table.py")
        sys.exit(after != before)
    PAGE.write_text(after, encoding="utf-8")


def tables(rows: list[dict[str, Any]]) -> str:
    loads = [row for row in rows if "latency_ms" in row]
    waits = [
        [
            row["label"],
            f"{row['answered_per_second']:,.0f}",
            *(milliseconds(row["latency_ms"][p]) for p in ("p50", "p90", "p99")),
            f"{row['stages_ms']['model']['p90']:.1f}" if "model" in row["stages_ms"] else "",
            failed(row),
            " → ".join(f"{mb:,.0f}" for mb in row["server_mb"]),
            f"{row['ready_s']:.1f}",
            " → ".join(f"{load:.1f}" for load in row["load_average"]),
        ]
        for row in loads
    ]
    head = ["", "answered/s", "p50, ms", "p90, ms", "p99, ms", "model p90", "failed", "MB", "ready, s", "load average"]
    cpu = [[row["label"], *(f"{row['cpu_us'].get(stage, 0):,.0f}" for stage in STAGES)] for row in loads]
    parts = [
        markdown(head, waits),
        "Microseconds of CPU of a request, by stage:",
        markdown(["", *STAGES], cpu),
        *(
            f"{row['label'][0].upper()}{row['label'][1:]}: {row['records']:,} records in {row['rebuild_s']:.1f} s "
            f"({row['rebuild_cpu_s']:.1f} s of CPU); before, the same events were made durable at "
            f"{row['durable_events_per_second']:,} a second (load average {row['load_average'][0]:.1f})."
            for row in rows
            if "rebuild_s" in row
        ),
    ]
    return "\n\n".join(parts)


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def failed(row: dict[str, Any]) -> str:
    """Return how many requests got no answer, or another than 200; and of how many lists something was degraded."""
    wrong = row["unanswered"] + sum(n for status, n in row["statuses"].items() if status != "200")
    return str(wrong) + (f", {row['degraded']} degraded" if row["degraded"] else "")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
