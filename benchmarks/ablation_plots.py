"""Draw docs/explanation/losses-*.svg from the rows of the ablation; `python benchmarks/ablation.py` does."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from ablation import PAGE, ROOT, Arms, Pair, loss_of, negatives_of, of_interest
from ablation import head as head_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from plots import style

from nextsession.report.charts import COLOURS, MUTED, STYLE, inline, name_ends
from nextsession.rows import Row

INK, PAPER = "#010201", "#010204"  # stand for the colours of the page, as in nextsession.report.charts

LEAST = 0.01
"""MRR@20 of what is worth drawing."""


def draw(rows: Sequence[Row], pairs: Sequence[Pair]) -> None:
    arms = Arms.of(rows)
    found = {(pair.key, pair.metric, pair.length): pair for pair in pairs}
    differences(arms, found)
    lengths(arms, found)


def differences(arms: Arms, pairs: dict[tuple[str, str, str], Pair]) -> None:
    """Draw how far each loss and each kind of negatives is from the reference."""
    parts = [
        [(f"{loss_of(row)}{_against(row, arms)}", row) for row in arms.losses],
        [(f"{negatives_of(row)}{_corrected(row)}", row) for row in arms.negatives],
        [(head_of(row).removeprefix(", "), row) for row in arms.heads],
    ]
    parts = [[(name, pairs[row.key, "mrr@20", "all"]) for name, row in part if learnt(row)] for part in parts]
    shown = [
        sorted((item for item in part if item[1].key != arms.first.key), key=lambda x: x[1].mean) for part in parts
    ]
    height = 0.27 * sum(len(part) + 1 for part in shown) + 0.9
    with mpl.rc_context(STYLE | {"svg.hashsalt": "nextsession-losses"}):
        figure = Figure(figsize=(9, height))
        axes = figure.subplots()
        figure.subplots_adjust(left=4.0 / 9, right=0.97, bottom=0.6 / height, top=1 - 0.15 / height)
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=MUTED, linewidth=1)
        places, names, y = [], [], 0
        for part in reversed(shown):
            for name, pair in part:
                colour = INK if pair.low > 0 or pair.high < 0 else MUTED
                axes.plot([pair.low, pair.high], [y, y], color=colour, linewidth=2.4)
                axes.plot(pair.mean, y, "o", color=PAPER, markersize=6, markeredgecolor=colour, markeredgewidth=2)
                places.append(y)
                names.append(name)
                y += 1
            y += 1
        axes.set_yticks(places, names, color=INK)
        axes.set_ylim(-0.7, y - 1.3)
        axes.set_xlabel("MRR@20 beside that of the reference")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.3g}" if v else "0"))
        write(figure, "differences", "What each loss and sampler gains or loses")


def learnt(row: Row) -> bool:
    """Say whether a row is better than nothing: one that is not would make the others a point."""
    return bool(row.metrics) and row.metrics["mrr@20"]["mean"] > LEAST


def _against(row: Row, arms: Arms) -> str:
    """Name the negatives where they are not those of the reference."""
    own = negatives_of(row)
    return "" if own in ("all", negatives_of(arms.first)) else f", {own}"


def _corrected(row: Row) -> str:
    logq = row.settings["loss"]["logq"]
    return "" if logq == "none" else f", logQ {logq}"


def lengths(arms: Arms, pairs: dict[tuple[str, str, str], Pair]) -> None:
    """Draw MRR@20 by length of session, and how far others are from the reference."""
    groups = [group for group in arms.first.breakdown["session_length"] if group["n"]]
    ticks = [group["group"] for group in groups]
    lines = [("all events read", arms.first), *of_interest(arms)]
    with mpl.rc_context(STYLE | {"svg.hashsalt": "nextsession-lengths"}):
        figure = Figure(figsize=(11, 3.7))
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.05, right=0.87, bottom=0.16, top=0.9, wspace=0.62)
        for axes, title in ((left, "MRR@20"), (right, "MRR@20 beside that with all events read")):
            axes.set_title(title, loc="left", fontsize=11.5)
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlabel("events known of the session")
            axes.set_xlim(-0.2, len(ticks) - 0.8)
        ends = []
        for (name, row), colour in zip(lines, COLOURS, strict=False):
            means = [group["metrics"]["mrr@20"] for group in row.breakdown["session_length"] if group["n"]]
            left.plot(means, marker="o", color=colour)
            ends.append((len(means) - 1, means[-1], name, colour))
        right.axhline(0, color=COLOURS[0], linewidth=2)
        name_ends(left, ends)
        ends = []
        for (name, row), colour in zip(lines[1:], COLOURS[1:], strict=False):
            own = [pairs[row.key, "mrr@20", tick] for tick in ticks]
            right.plot([pair.mean for pair in own], marker="o", color=colour)
            right.fill_between(
                range(len(own)), [p.low for p in own], [p.high for p in own], color=colour, alpha=0.18, linewidth=0
            )
            ends.append((len(own) - 1, own[-1].mean, name, colour))
        name_ends(right, ends)
        signs(right)
        write(figure, "lengths", "Results by length of session")


def signs(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.3g}" if v else "0"))


def write(figure: Figure, name: str, title: str) -> None:
    held = io.StringIO()
    figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    path: Path = PAGE.with_name(f"losses-{name}.svg")
    path.write_text(inked(inline(held.getvalue(), f"losses-{name}", title)), encoding="utf-8")
    print(path.relative_to(ROOT))


def inked(svg: str) -> str:
    """Return a picture that stands by itself: with the colours that a page would give it."""
    start, mark, rest = svg.partition(">")
    return f"{start}{mark}\n{style()}{rest.rstrip()}\n"
