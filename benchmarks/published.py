"""Write docs/reference/published.md: our rows beside what others published for the same data and protocol.

python benchmarks/published.py            # write
python benchmarks/published.py --check    # exit code 1 if the page is not what the rows say
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextsession.rows import Row, read_rows

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reference" / "published.md"
PREFIXES = HERE / "results" / "prefixes.json"
"""Trainings that were stopped before their end, and never measured: recipe, model, settings, epochs planned, curve."""

HEAD = """# Published figures, and ours

Same data, same protocol, all items ranked; intervals are 95 % over users. *Within* says whether the published
figure lies in our interval or below it. Published figures are in `benchmarks/published.toml`, ours in
`benchmarks/results/`; `nextsession bench recipes/<recipe>.toml --budget 10000` makes ours anew, and
`python benchmarks/published.py` this page. Each row says by which command and which commit it was made.
"""

STOPPED = """
## Stopped before their end

For want of time, with the settings of the recipes; they were measured in validation only. Curves and settings are in
`benchmarks/results/prefixes.json`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    text = page()
    if check:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
        if stale:
            print(f"{PAGE.name} is not what the rows say: run python benchmarks/published.py")
        sys.exit(int(stale))
    PAGE.write_text(text, encoding="utf-8")


def page() -> str:
    """Return the text of the page."""
    claims = tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))["published"]
    lines = [["recipe", "model", "metric", "published", "ours", "within", "epochs", "fit, CPU-s", "source"]]
    lines.append(["---", "---", "---", "--:", "--:", "---", "--:", "--:", "---"])
    for claim in claims:
        lines += _lines(claim)
    text = HEAD + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    return text + (_curves() if _stopped() else "")


def _lines(claim: Mapping[str, Any]) -> list[list[str]]:
    file = HERE / "results" / f"{claim['recipe']}.json"
    rows = read_rows(file) if file.exists() else []
    found = [row for row in rows if row.model == claim["model"] and row.metrics and _fits(row, claim["with"])]
    if not found:
        name = _name(claim)
        return [
            [claim["recipe"], name, metric, f"{value:.4f}", _instead(claim), "", "", "", claim["source"]]
            for metric, value in claim["figures"].items()
        ]
    return [
        [
            claim["recipe"],
            _name(claim) + (f", seed {row.seed}" if len(found) > 1 else ""),
            metric,
            f"{value:.4f}",
            f"{row.metrics[metric]['mean']:.4f} ({row.metrics[metric]['low']:.4f}-{row.metrics[metric]['high']:.4f})",
            "yes" if value <= row.metrics[metric]["high"] else "no",
            _epochs(row),
            f"{row.cost.fit_cpu_s or 0:.0f}",
            claim["source"],
        ]
        for row in found
        for metric, value in claim["figures"].items()
    ]


def _instead(claim: Mapping[str, Any]) -> str:
    """Return what stands in the place of a figure that nobody has measured."""
    for part in _stopped():
        same = (part["recipe"], part["model"]) == (claim["recipe"], claim["model"])
        if same and all(part["settings"].get(name) == value for name, value in claim["with"].items()):
            return f"stopped after {len(part['curve']['epoch'])} of {part['epochs']} epochs, see below"
    return str(claim.get("why", "not run"))


def _stopped() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(PREFIXES.read_text(encoding="utf-8")) if PREFIXES.exists() else []
    return found


def _curves() -> str:
    """Return the section on trainings that were stopped before their end."""
    lines = [["recipe", "model", "epochs", "planned", "in validation, after each so many epochs", "CPU-s"]]
    lines.append(["---", "---", "--:", "--:", "---", "--:"])
    for part in _stopped():
        curve, metric = part["curve"], part["metric"]
        scores = " ".join(f"{score:.4f}" for score in curve[metric] if score is not None)
        preset = part["settings"].get("preset")
        lines.append(
            [
                part["recipe"],
                part["model"] + (f" (preset={preset})" if preset else ""),
                str(len(curve["epoch"])),
                str(part["epochs"]),
                f"{metric}, {part['settings']['validate_every']}: {scores}",
                f"{sum(curve['cpu_seconds']):.0f}",
            ]
        )
    return STOPPED + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _fits(row: Row, settings: Mapping[str, Any]) -> bool:
    return all(row.settings.get(name) == value for name, value in settings.items())


def _name(claim: Mapping[str, Any]) -> str:
    more: Sequence[str] = [f"{k}={v}" for k, v in claim["with"].items()]
    return claim["model"] + (f" ({', '.join(more)})" if more else "")


def _epochs(row: Row) -> str:
    """Return how many epochs were trained."""
    if not row.curve:
        return str(row.settings.get("epochs", ""))
    return str(len(row.curve["epoch"]))


if __name__ == "__main__":
    main()
