"""Write the tables of results that the README and docs/reference/results.md show, from benchmarks/results/.

python benchmarks/table.py            # write
python benchmarks/table.py --check    # exit code 1 if a table is not what the rows say
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nextsession.rows import Row, read_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "results.md"
README = ROOT / "README.md"
MARKS = ("<!-- results: {} -->", "<!-- end of results -->")
IN_README = "rsc15-100k"
_SHORT = 3
"""Settings that a name holds whether or not other rows of the model have them too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not what benchmarks/results say: run python benchmarks/table.py")
        else:
            path.write_text(pages()[path], encoding="utf-8")
    sys.exit(1 if check and stale else 0)


def pages() -> dict[Path, str]:
    """Return the text of both pages."""
    found = {path.stem: read_rows(path) for path in sorted(RESULTS.glob("*.json")) if is_comparison(path)}
    start, end = MARKS[0].format(IN_README), MARKS[1]
    head, _, rest = README.read_text(encoding="utf-8").partition(start)
    tail = rest.partition(end)[2]
    return {
        README: f"{head}{start}\n{table(found[IN_README])}\n{end}{tail}",
        PAGE: page(found),
    }


def is_comparison(path: Path) -> bool:
    """Say whether the rows are those of a recipe; others are timings of one part, or an ablation with its own page."""
    return not path.stem.startswith("ablation") and (ROOT / "recipes" / f"{path.stem}.toml").exists()


def page(found: dict[str, list[Row]]) -> str:
    parts = [
        "# Results\n\n<!-- written by `python benchmarks/table.py`; do not edit -->\n\n"
        "Every registered model with its default settings, and the variants that a recipe names, on each recipe of\n"
        "`recipes/`. Full ranking of all items, ties at the median place, 95 % bootstrap intervals over users.\n"
        "CPU time is that of one process with one thread on a shared two-core server; compare rows, not machines.\n"
        "◷: reads the instant of the question. Of rows of one model with many settings only what tells them apart is\n"
        "named; the recipe holds the rest. Make them again with `nextsession bench` (it resumes)."
    ]
    for name, rows in found.items():
        first = rows[0]
        learnt, asked = first.data["train"], first.data["test_questions"]
        parts.append(
            f"## {name}\n\nProtocol `{first.protocol['name']}`; learnt from {learnt['events']:,} events in "
            f"{learnt['sessions']:,} sessions of {learnt['items']:,} items; {asked:,} questions.\n\n{table(rows)}"
        )
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown, best first; the oracle, which knows the truth, last."""
    measured = [row for row in rows if row.metrics]
    metrics = shown(measured)
    ranked = sorted(measured, key=lambda row: (row.model == "oracle", -row.metrics[metrics[0]]["mean"]))
    head = ["model", *metrics, "fit, CPU-s", "answer, CPU-ms"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for row in ranked:
        first = row.metrics[metrics[0]]
        lines.append(
            [
                named(row, measured),
                f"{first['mean']:.4f} ({first['low']:.4f}-{first['high']:.4f})",
                *(f"{row.metrics[m]['mean']:.4f}" for m in metrics[1:]),
                f"{row.cost.fit_cpu_s or 0:.2f}",
                f"{row.cost.answer_cpu_ms or 0:.3f}",
            ]
        )
    for row in rows:
        if not row.metrics:
            lines.append([named(row), row.failure or "", *[""] * (len(head) - 2)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(rows: Sequence[Row]) -> list[str]:
    """Choose three metrics: NDCG at the shortest list, recall and MRR at the longest that there is."""

    def at(metric: str, place: int) -> list[str]:
        lengths = sorted(int(m.partition("@")[2]) for m in rows[0].metrics if m.startswith(f"{metric}@"))
        return [f"{metric}@{lengths[place]}"] if lengths else []

    return [*at("ndcg", 0), *(at("recall", -1) or at("hitrate", -1)), *at("mrr", -1)]


def named(row: Row, beside: Sequence[Row] = ()) -> str:
    """Return the model with its settings that are not the defaults; of several rows of one, what tells them apart."""
    settings = changed_of(row)
    others = [changed_of(other) for other in beside if other.model == row.model and other is not row]
    if others and len(settings) > _SHORT:
        settings = {k: v for k, v in settings.items() if any(other.get(k) != v for other in others)}
    changed = [f"{name}={value}" for name, value in settings.items()]
    if any(other.model == row.model and other.seed != row.seed for other in beside):
        changed.append(f"seed {row.seed}")
    return f"{row.model}{' ◷' if row.reads_clock else ''}{' (' + ', '.join(changed) + ')' if changed else ''}"


def changed_of(row: Row) -> dict[str, object]:
    from nextsession.registry import model_class

    return {} if row.model == "oracle" else model_class(row.model).settings_class(**row.settings).changed()


if __name__ == "__main__":
    main()
