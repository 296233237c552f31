"""The pictures of a study, in the style of reports: they take light or dark colours from where they stand."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from nextsession.report.charts import COLOURS, MUTED, STYLE, inline, name_ends
from nextsession.report.leaderboard import metric_name
from nextsession.study.plans import bare
from nextsession.study.summary import GAIN, Summary

_INK, _PAPER = STYLE["text.color"], "#010204"


def picture(summary: Summary) -> str:
    """Return the picture of a study as SVG; empty if there is nothing to draw."""
    draw = {"alpha": _alpha, "time": _time, "scaling": _scaling, "intent": _intent}.get(summary.study, _gains)
    return draw(summary)


def _gains(summary: Summary) -> str:
    """Draw how far models are from what they are compared with."""
    found = [m for m in summary.models if GAIN in m.differences]
    if not found:
        return ""
    height = 1.0 + 0.32 * len(found)
    rivals = Counter(m.against for m in found)
    most, often = rivals.most_common(1)[0]
    usual = most if 2 * often > len(found) else ""
    names = [_short(m.name if m.against == usual else f"{m.name}, beside {m.against}") for m in reversed(found)]
    margin = 0.05 + 0.0084 * max(map(len, names))  # a letter is about 0.07 inches wide
    with _figure(summary, (9, height)) as (figure, drawn):
        axes = figure.subplots()
        figure.subplots_adjust(left=margin, right=0.97, bottom=0.6 / height, top=1 - 0.15 / height)
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, model in enumerate(reversed(found)):
            gain = model.differences[GAIN]
            colour = _INK if gain["low"] > 0 or gain["high"] < 0 else MUTED
            axes.plot([gain["low"], gain["high"]], [y, y], color=colour, linewidth=2.4)
            axes.plot(gain["mean"], y, "o", color=_PAPER, markersize=6, markeredgecolor=colour, markeredgewidth=2)
        axes.set_yticks(range(len(found)), names, color=_INK)
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_xlabel("mean gain over six metrics" + (f", beside {usual}" if usual else ""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.0%}" if v else "0"))
    return drawn[0]


def _alpha(summary: Summary) -> str:
    """Draw ranking inside what was shown, and retrieval, against the weight of the rank loss."""
    panels = [("slate_ndcg@10", "slate_auc"), ("recall@500", "recall@100", "ndcg@100")]
    panels = [tuple(m for m in some if m in summary.metrics) for some in panels]
    models = [m for m in summary.models if m.metrics and m.x is not None]
    with _figure(summary, (11, 3.7)) as (figure, drawn):
        figure.subplots_adjust(left=0.07, right=0.86, bottom=0.17, top=0.9, wspace=0.65)
        for axes, metrics, title in zip(
            figure.subplots(1, 2), panels, ("Ranking what was shown", "Retrieval from all items"), strict=True
        ):
            axes.set_title(f"{title}: change from 0", loc="left", fontsize=11.5)
            axes.axhline(0, color=MUTED, linewidth=1)
            ends = []
            for metric, colour in zip(metrics, COLOURS, strict=False):
                own = [m.differences.get(metric, {"mean": 0.0, "low": 0.0, "high": 0.0}) for m in models]
                _line(axes, range(len(models)), own, colour)
                ends.append((len(models) - 1, own[-1]["mean"], metric_name(metric), colour))
            axes.set_xticks(range(len(models)), [m.name for m in models])
            axes.set_xlabel("weight of the rank loss")
            axes.set_xlim(-0.2, len(models) - 0.8)
            _signs(axes)
            name_ends(axes, ends)
    return drawn[0]


def _time(summary: Summary) -> str:
    """Draw the score of the validation against the CPU-seconds of training."""
    lines = []
    for model in summary.models:
        metric = next((x for x in model.curve if "@" in x), None)
        if metric is not None and "cpu_seconds" in model.curve:
            seconds = np.cumsum([x or 0.0 for x in model.curve["cpu_seconds"]])
            pairs = [(s, y) for s, y in zip(seconds, model.curve[metric], strict=True) if y is not None]
            lines.append((model, metric, pairs))
    if not lines:
        return ""
    with _figure(summary, (9, 4.2)) as (figure, drawn):
        axes = figure.subplots()
        figure.subplots_adjust(left=0.08, right=0.78, bottom=0.14, top=0.96)
        axes.set_xscale("log")
        ends = []
        for (model, _, pairs), colour in zip(lines, COLOURS, strict=False):
            axes.plot([s for s, _ in pairs], [y for _, y in pairs], marker="o", color=colour, markersize=4)
            ends.append((float(pairs[-1][0]), float(pairs[-1][1]), model.name, colour))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("CPU-seconds of training")
        axes.set_ylabel(f"{metric_name(lines[0][1])} of the validation")
        last = max(x for x, *_ in ends)
        name_ends(axes, [(last, y, name, colour) for _, y, name, colour in ends])
    return drawn[0]


def _scaling(summary: Summary) -> str:
    """Draw the metric against events and against width, the law, and the extrapolation with what came of it."""
    metric, models = summary.more["metric"], {m.name: m for m in summary.models}
    cells = [{**cell, **models[cell["name"]].metrics[metric]} for cell in summary.more["cells"]]
    fitted, last = [c for c in cells if not c["held_out"]], next(c for c in cells if c["held_out"])
    widest, most = max(c["width"] for c in fitted), max(c["events"] for c in fitted)
    told, band = summary.more["prediction"], summary.more["band"]
    with _figure(summary, (11, 3.9)) as (figure, drawn):
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.97, bottom=0.16, top=0.9, wspace=0.25)
        left.set_title(f"Events learnt, width {widest}", loc="left", fontsize=11.5)
        left.fill_between(band["events"], band["low"], band["high"], color=COLOURS[0], alpha=0.15, linewidth=0)
        left.plot(band["events"], band["mean"], color=COLOURS[0], linewidth=1.4)
        _points(left, [(c["events"], c) for c in fitted if c["width"] == widest], _INK)
        left.plot([told["events"]] * 2, [told["low"], told["high"]], color=COLOURS[0], linewidth=5, alpha=0.5)
        _points(left, [(last["events"], last)], COLOURS[1])
        left.text(0.98, 0.06, "foretold, then measured", transform=left.transAxes, ha="right", color=COLOURS[1])
        left.set_xlabel("events learnt")
        _powers(left, sorted({c["events"] for c in cells}))
        right.set_title("Width of the model, half of the people", loc="left", fontsize=11.5)
        own = sorted((c for c in fitted if c["events"] == most), key=lambda c: c["width"])
        _points(right, [(c["width"], c) for c in own], _INK)
        right.set_xlabel("width")
        _powers(right, [c["width"] for c in own])
        for axes in (left, right):
            axes.set_ylabel(metric_name(metric))
    return drawn[0]


def _intent(summary: Summary) -> str:
    """Draw the gain of each model of sessions over the best of items against how long a wish lasts."""
    found = [m for m in summary.models if GAIN in m.differences and m.x is not None]
    names = list(dict.fromkeys(bare(m.name) for m in found))
    with _figure(summary, (9, 4)) as (figure, drawn):
        axes = figure.subplots()
        figure.subplots_adjust(left=0.09, right=0.74, bottom=0.15, top=0.96)
        axes.axhline(0, color=MUTED, linewidth=1)
        ends = []
        for name, colour in zip(names, COLOURS, strict=False):
            own = sorted((m for m in found if bare(m.name) == name), key=lambda m: m.x or 0.0)
            _line(axes, [m.x or 0.0 for m in own], [m.differences[GAIN] for m in own], colour)
            ends.append(
                (own[-1].x or 0.0, own[-1].differences[GAIN]["mean"], name.removeprefix("SessionRec, "), colour)
            )
        axes.set_xlabel("persistence: how often who returns at once still wants what he wanted")
        axes.set_ylabel("mean gain of SessionRec over six metrics")
        axes.xaxis.set_major_locator(FixedLocator(sorted({m.x or 0.0 for m in found})))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.0%}" if v else "0"))
        name_ends(axes, ends)
    return drawn[0]


def _points(axes: Axes, points: Sequence[tuple[float, dict[str, float]]], colour: str) -> None:
    for x, found in points:
        axes.plot([x, x], [found["low"], found["high"]], color=colour, linewidth=1.4)
        axes.plot(x, found["mean"], "o", color=colour)


def _powers(axes: Axes, places: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:.3g}k" if v >= 1000 else f"{v:g}"))


def _line(axes: Axes, xs: Sequence[float], found: Sequence[dict[str, float]], colour: str) -> None:
    axes.plot(xs, [f["mean"] for f in found], marker="o", color=colour)
    axes.fill_between(xs, [f["low"] for f in found], [f["high"] for f in found], color=colour, alpha=0.15, linewidth=0)


def _signs(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.3g}" if v else "0"))


def _short(name: str) -> str:
    return name if len(name) <= 52 else name[:51] + "…"


@contextmanager
def _figure(summary: Summary, size: tuple[float, float]) -> Iterator[tuple[Figure, list[str]]]:
    """Give a figure to draw on and, after the block, its SVG."""
    key, drawn = f"study-{summary.data['name']}-{summary.study}", [""]
    with mpl.rc_context(STYLE | {"svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size)
        yield figure, drawn
        held = io.StringIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn[0] = inline(held.getvalue(), key, f"{summary.study} on {summary.data['name']}")
