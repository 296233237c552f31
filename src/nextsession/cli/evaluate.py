"""`nextsession evaluate`: how good a saved model's answers are."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextsession.cli.request import ExperimentFile, open_split
from nextsession.cli.terminal import Json, Overrides, bars, examples, show, show_json, show_table

if TYPE_CHECKING:
    from nextsession.bootstrap import Estimate
    from nextsession.outcomes import Report

EXAMPLES = examples(
    "nextsession evaluate runs/markov",
    "nextsession evaluate runs/markov --against runs/popular --set evaluation.k=[5,10]",
)


def evaluate(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A model that `fit` wrote.")],
    experiment: ExperimentFile = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="OTHER", help="Another model: show the paired differences.")
    ] = None,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Ask a saved model the test questions of its experiment (or of another) and measure its answers.

    Intervals come of drawing users again.  A model that learnt from the events it would be asked
    about is refused.
    """
    from nextsession.evaluation import evaluate as measure
    from nextsession.registry import load
    from nextsession.runs import check_unseen, stored_experiment

    asked = stored_experiment(artifact, experiment, overrides or ())
    with bars() as progress:
        places = [artifact] if against is None else [artifact, against]
        models = [load(place) for place in places]
        source, parts = open_split(asked, progress)
        reports: list[Report] = []
        for place, model in zip(places, models, strict=True):
            check_unseen(place, model, parts, asked)
            reports.append(measure(model, parts.test, asked.evaluation, train=parts.train, progress=progress))
    differences = reports[0].compare(reports[1]) if against is not None else {}
    if json:
        facts = {"data": source.name, "split": dict(parts.facts), **reports[0].to_dict()}
        if against is not None:
            facts["against"] = reports[1].to_dict()
            facts["differences"] = {name: asdict(estimate) for name, estimate in differences.items()}
        show_json(facts)
        return
    show(reports[0].table().partition("\n")[0])
    show_table(*_rows(reports, differences, asked.evaluation.confidence))


def _rows(
    reports: list["Report"], differences: dict[str, "Estimate"], confidence: float
) -> tuple[list[str], list[list[str]]]:
    interval = f"{confidence:.0%} interval"
    columns = ["metric", reports[0].model, interval]
    if len(reports) > 1:
        columns += [reports[1].model, "difference", interval, ""]
    rows = []
    for name, estimate in reports[0].metrics.items():
        row = [name, f"{estimate.mean:.4f}", _span(estimate)]
        if len(reports) > 1:
            other = reports[1].metrics.get(name)
            row.append("" if other is None else f"{other.mean:.4f}")
            gap = differences.get(name)
            row += ["", "", ""] if gap is None else [f"{gap.mean:+.4f}", _span(gap), _verdict(name, gap)]
        rows.append(row)
    return columns, rows


def _span(estimate: "Estimate") -> str:
    return "" if estimate.low == estimate.high else f"{estimate.low:.4f} .. {estimate.high:.4f}"


def _verdict(metric: str, difference: "Estimate") -> str:
    """Say which way a difference goes; to list more popular or more varied items is neither better nor worse."""
    from nextsession.metrics import RANK_METRICS

    up, down = ("better", "worse") if metric.partition("@")[0] in RANK_METRICS else ("more", "less")
    if difference.low > 0:
        return up
    return down if difference.high < 0 else "no clear difference"
