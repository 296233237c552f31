"""The tables of a study as rows of text: models that know the instant of the question (◷) have tables of their own."""

from nextsession.report.leaderboard import metric_name, number
from nextsession.study.plans import METRICS
from nextsession.study.summary import GAIN, Interval, Measured, Summary

Table = tuple[str, list[str], list[list[str]]]
"""A title, the heads, and the cells."""

SLATES = ("slate_auc", "slate_mrr", "slate_ndcg@10")
_FEW = ("ndcg@100", "recall@100")
ORDERED = ("alpha", "encoders", "backbones", "scaling", "ablation", "intent")
"""Studies whose rows keep their order; others are sorted, the best first."""


def cells(summary: Summary, *, best: str = "{}") -> list[Table]:
    """Return the tables of a study.

    Args:
        summary: What came of it.
        best: How the best of a column is marked, such as `**{}**`.
    """
    found = [_quality(summary, models, title, best) for title, models in _together(summary)]
    found += [_differences(summary, timed) for timed in (False, True) if _compared(summary, timed)]
    if summary.study == "scaling":
        found.append(_law(summary))
    return found


def markdown(table: Table) -> str:
    """Return a table as Markdown, without its title."""
    _, head, lines = table
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def signed(found: Interval, *, share: bool = False) -> str:
    """Write a difference with its interval.

    >>> signed({"mean": 0.01, "low": -0.002, "high": 0.02}), signed({"mean": .1, "low": 0, "high": .2}, share=True)
    ('+0.0100 (-0.0020 to +0.0200)', '+10.0% (+0.0% to +20.0%)')
    """
    form = "{:+.1%}" if share else "{:+.4f}"
    mean, low, high = (form.format(found[x]) for x in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _together(summary: Summary) -> list[tuple[str, list[Measured]]]:
    """Return the models that stand in one table, and its title."""
    if summary.study == "intent":
        places = dict.fromkeys(m.x for m in summary.models if m.x is not None)
        return [(f"Persistence {x:g}", [m for m in summary.models if m.x == x]) for x in places]
    titles = ("Time-blind", "◷ Time-aware: what knows the instant of the question")
    return [(titles[timed], _those(summary, timed)) for timed in (False, True) if _those(summary, timed)]


def _those(summary: Summary, timed: bool) -> list[Measured]:
    models = [m for m in summary.models if m.timed == timed]
    if summary.study in ORDERED:
        return models
    return sorted(models, key=lambda m: (not m.metrics, -sum(m.metrics[x]["mean"] for x in METRICS if m.metrics)))


def _compared(summary: Summary, timed: bool) -> list[Measured]:
    return [m for m in _those(summary, timed) if m.differences]


def _quality(summary: Summary, models: list[Measured], title: str, best: str) -> Table:
    shown = [*METRICS, *(m for m in SLATES if m in summary.metrics and summary.study == "alpha")]
    top = {
        metric: max((m.metrics[metric]["mean"] for m in models if m.metrics and m.kind != "oracle"), default=None)
        for metric in shown
    }
    lines = []
    for model in models:
        if not model.metrics:
            lines.append([model.name, *["–"] * (len(shown) + 1), model.failure or ""])
            continue
        line = [model.name]
        for metric in shown:
            mean = model.metrics[metric]["mean"]
            text = f"{mean:.4f}"
            line.append(best.format(text) if mean == top[metric] and len(models) > 1 else text)
        spread = model.metrics["ndcg@100"].get("spread")
        lines.append([*line, "–" if spread is None else f"{spread:.4f}", number(model.fit_cpu_s)])
    return title, ["model", *(metric_name(m) for m in shown), "sd of seeds, NDCG@100", "fit, CPU-s"], lines


def _differences(summary: Summary, timed: bool) -> Table:
    of_slates = ("slate_auc", "slate_ndcg@10", "recall@100", "recall@500")
    shown: tuple[str, ...] = of_slates if summary.study == "alpha" else _FEW
    models = _compared(summary, timed)
    shown = tuple(m for m in shown if all(m in model.differences for model in models))
    lines = [
        [m.name, m.against, *(signed(m.differences[x]) for x in shown), signed(m.differences[GAIN], share=True)]
        for m in models
    ]
    title = "Paired differences" + (", ◷ time-aware" if timed else "")
    return title, ["model", "beside", *(metric_name(m) for m in shown), "mean gain over the six"], lines


def _law(summary: Summary) -> Table:
    more = summary.more
    lines: list[list[str]] = []
    meaning = {
        "floor": "missed at any size",
        "a": "missed for want of data, at the greatest size of the fit",
        "alpha": "its power",
        "b": "missed for want of width, at the greatest width of the fit",
        "beta": "its power",
    }
    for name, text in meaning.items():
        low, high = more["law_intervals"][name]
        lines.append([f"{name}: {text}", f"{more['law'][name]:.3f}", f"{low:.3f} to {high:.3f}"])
    told, came = more["prediction"], more["check"]
    name = metric_name(more["metric"])
    lines.append(
        [f"{name} foretold of the greatest size", f"{told['mean']:.4f}", f"{told['low']:.4f} to {told['high']:.4f}"]
    )
    lines.append([f"{name} then measured", f"{came['observed']:.4f}", "inside" if came["inside"] else "outside"])
    return f"The law of 1 - {name}", ["", "value", "95 % interval"], lines
