"""The plots of a report: small SVG pictures that take their colours from the page they stand in.

Matplotlib draws with stand-in colours, which are then replaced by CSS variables, so one picture
serves light and dark.  Text stays text.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nextsession.report.leaderboard import Entry, Leaderboard, metric_name, number

SERIES = 8
"""Models with a colour of their own; any further ones are grey."""

_INK, MUTED, _GRID, _PAPER = "#010201", "#010202", "#010203", "#010204"
COLOURS = tuple(f"#0103{i:02x}" for i in range(SERIES))
"""Stand for the colours of the first models; `inline` puts the page's in their place."""

_VARIABLES = {_INK: "--ink", MUTED: "--muted", _GRID: "--grid", _PAPER: "--paper"} | {
    colour: f"--s{i}" for i, colour in enumerate(COLOURS)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 11.5, "axes.edgecolor": _GRID,
    "axes.labelcolor": MUTED, "axes.labelsize": 11, "text.color": _INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
    "xtick.labelsize": 10.5, "ytick.labelsize": 10.5,
    "lines.linewidth": 2.0, "lines.markersize": 5.5, "lines.solid_capstyle": "round", "axes.formatter.useoffset": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
"""Settings of matplotlib for all pictures."""

_WIDTH, _HEIGHT = 5.8, 3.7  # inches
_LONGEST = 22  # characters of a label
_NAMES = 1.85  # inches for names beside lines
_LINE = 13.5  # points between two lines of text


@dataclass(frozen=True)
class Chart:
    """A picture with its heading and how to read it."""

    title: str
    caption: str
    svg: str


def charts(board: Leaderboard) -> list[Chart]:
    """Draw every picture that the rows hold numbers for."""
    drawn: list[Callable[[Leaderboard], Chart | None]] = [
        differences, quality_and_cost, by_k, by_session_length, by_popularity, calibration, spread, loss, validation,
    ]  # fmt: skip
    return [chart for draw in drawn if (chart := draw(board)) is not None]


def differences(board: Leaderboard) -> Chart | None:
    """Draw how far every model is from the leader, question by question."""
    found = [
        (e, d)
        for e in board.entries[1:]
        if (d := e.difference(board.primary)) is not None and board.leads(d.against)
    ]  # fmt: skip
    if not found:
        return None
    leader = board.entries[0].name
    left = 0.35 + 0.085 * max(len(_short(e.name)) for e, _ in found)
    with _picture("differences", "Paired differences", height=_tall(len(found)), left=left) as (axes, picture):
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, (_, d) in enumerate(reversed(found)):
            colour = _INK if d.low > 0 or d.high < 0 else MUTED
            axes.plot([d.low, d.high], [y, y], color=colour, linewidth=2.4)
            axes.plot(d.mean, y, "o", color=_PAPER, markersize=7, markeredgecolor=colour, markeredgewidth=2)
        axes.set_yticks(range(len(found)), [_short(e.name) for e, _ in reversed(found)], color=_INK)
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_xlabel(f"difference in {metric_name(board.primary)} from {_short(leader)}")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.3g}" if v else "0"))
    caption = (
        f"{metric_name(board.primary)} minus that of {leader}, question by question, with 95% intervals over users. "
        "Where the line crosses zero, the difference may be luck."
    )
    return Chart("Paired differences", caption, picture.svg)


def quality_and_cost(board: Leaderboard) -> Chart | None:
    """Draw quality against CPU time for an answer."""
    points = [
        (e, e.row.cost.answer_cpu_ms, m)
        for e in board.entries
        if e.row.cost.answer_cpu_ms and (m := e.mean(board.primary)) is not None
    ]
    if not points:
        return None
    with _picture("cost", "Quality and cost of an answer", height=_tall(len(points))) as (axes, picture):
        axes.set_xscale("log")
        for place, (entry, x, y) in enumerate(points):
            if interval := entry.interval(board.primary):
                axes.plot([x, x], interval, color=_colour(place), linewidth=1.4, alpha=0.7)
            axes.plot(x, y, "o", color=_colour(place), markersize=8)
        _reference_line(axes, board, board.primary)
        _log_limits(axes, [x for _, x, _ in points])
        _name_points(axes, [(x, y, e.name, _colour(p)) for p, (e, x, y) in enumerate(points)])
        axes.set_xlabel("CPU-milliseconds an answer")
        axes.set_ylabel(metric_name(board.primary))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return Chart(
        "Quality and cost",
        "Up is better, left is cheaper (each gridline to the left is ten times cheaper). Lines are 95% intervals.",
        picture.svg,
    )


def by_k(board: Leaderboard) -> Chart | None:
    """Draw recall against the length of the list."""
    lengths = sorted(int(m.partition("@")[2]) for m in board.metrics if m.startswith("recall@"))
    if len(lengths) < 2:
        return None
    names = [f"recall@{k}" for k in lengths]
    lines = [(e, [e.mean(m) for m in names]) for e in _lines(board)]
    with _picture("by_k", "Recall by length of list", right=_NAMES) as (axes, picture):
        axes.set_xscale("log")
        axes.set_xticks(lengths, [str(k) for k in lengths])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        _draw_lines(axes, board, lengths, lines)
        axes.set_xlabel("length of the list, k")
        axes.set_ylabel("Recall@k")
    return Chart("Recall by length of the list", "How much of what was wanted is among the first k.", picture.svg)


def by_session_length(board: Leaderboard) -> Chart | None:
    """Draw the primary metric against how much of the session was known."""
    return _by_group(
        board,
        "session_length",
        "By length of the session",
        "events of the session before the question",
        "How much the answers gain from what the visitor has done in this session.",
    )


def by_popularity(board: Leaderboard) -> Chart | None:
    """Draw the primary metric against the popularity of what was wanted."""
    return _by_group(
        board,
        "item_popularity",
        "By popularity of the item",
        "popularity of the wanted item (1: most popular)",
        "Each group of items holds a tenth of the training events, the most popular first; “new” was never seen in "
        "training. Each wanted item counts as a question of its own.",
    )


def calibration(board: Leaderboard) -> Chart | None:
    """Draw the share of listed items by popularity beside the share of wanted ones."""
    lines = [e for e in _lines(board) if e.row.calibration.get("deciles")]
    targets = next((e.row.calibration["targets"] for e in lines if e.row.calibration.get("targets")), None)
    if not lines or targets is None:
        return None
    places = list(range(1, len(targets) + 1))
    with _picture("calibration", "Calibration of popularity", right=_NAMES) as (axes, picture):
        axes.bar(places, targets, color=_GRID, width=0.85, zorder=0.5)
        shares = [(e, list(e.row.calibration["deciles"])) for e in lines]
        axes.set_ylim(0, max(_top(shares), 1.05 * max(targets)))
        _draw_lines(axes, board, places, shares)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(places)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        axes.set_xlabel("popularity of items (1: most popular)")
    return Chart(
        "Calibration of popularity",
        "Lines: share of the items that each model lists; bars: share of the items that were wanted. A line above the "
        "bars on the left means that a model lists popular items more often than they are wanted.",
        picture.svg,
    )


def spread(board: Leaderboard) -> Chart | None:
    """Draw quality against how much of the catalogue, or how popular an item, a model lists."""
    k = board.primary.partition("@")[2]
    metric = next((m for name in ("coverage", "novelty", "popularity") if (m := f"{name}@{k}") in board.metrics), None)
    if metric is None:
        return None
    points = [(e, e.mean(metric), e.mean(board.primary)) for e in board.entries]
    kept = [(p, e, x, y) for p, (e, x, y) in enumerate(points) if x is not None and y is not None]
    if not kept:
        return None
    share = metric.startswith("coverage")
    with _picture("spread", "Quality and variety") as (axes, picture):
        for place, _, x, y in kept:
            axes.plot(x, y, "o", color=_colour(place), markersize=8)
        _reference_line(axes, board, board.primary)
        low, high = min(x for _, _, x, _ in kept), max(x for _, _, x, _ in kept)
        room = (high - low) or abs(high) or 1.0
        axes.set_xlim(max(0.0, low - 0.08 * room), high + 0.35 * room)
        if share:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}" if v <= 1 else ""))
        _name_points(axes, [(x, y, e.name, _colour(p)) for p, e, x, y in kept])
        axes.set_xlabel("share of the catalogue that is listed for anybody" if share else metric_name(metric))
        axes.set_ylabel(metric_name(board.primary))
    meaning = {
        "coverage": "the share of all items that stands in at least one list",
        "novelty": "how unexpected the listed items are, in bits",
        "popularity": "how popular the listed items are, from 0 to 1",
    }
    caption = f"{metric_name(metric)}: {meaning[metric.partition('@')[0]]}."
    return Chart("Quality and variety", caption, picture.svg)


# -- parts --------------------------------------------------------------------------------------


def _by_group(board: Leaderboard, key: str, title: str, axis: str, caption: str) -> Chart | None:
    groups = next((b for e in board.measured if (b := e.row.breakdown.get(key))), None)
    if groups is None or len(groups) < 2 or board.primary not in groups[0]["metrics"]:
        return None
    names = [str(g["group"]) for g in groups]
    lines = []
    for entry in _lines(board):
        means = {str(g["group"]): g["metrics"].get(board.primary) for g in entry.row.breakdown.get(key, [])}
        lines.append((entry, [_mean(means.get(name)) for name in names]))
    with _picture(key, title, right=_NAMES, bottom=0.8) as (axes, picture):
        places = list(range(len(names)))
        axes.set_ylim(0, _top(lines))
        _draw_lines(axes, board, places, lines)
        axes.set_xticks(places, [f"{name}\n{_count(g['n'])}" for name, g in zip(names, groups, strict=True)])
        axes.tick_params(axis="x", labelsize=9.5)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(axis)
        axes.set_ylabel(metric_name(board.primary))
    return Chart(title, f"{caption} Below each group: how many.", picture.svg)


def loss(board: Leaderboard) -> Chart | None:
    """Draw the loss of training of the models that learn in epochs."""
    return _by_epoch(
        board,
        "loss",
        "Loss while learning",
        "Mean loss of training by epoch. Losses of different kinds cannot be compared; a line that still falls at "
        "its end could have been trained for longer.",
    )


def validation(board: Leaderboard) -> Chart | None:
    """Draw the score of the validation after each epoch."""
    metrics = [name for e in _lines(board) for name in e.row.curve if name not in ("epoch", "loss", "cpu_seconds")]
    if not metrics:
        return None
    return _by_epoch(
        board,
        metrics[0],
        "Validation while learning",
        f"{metric_name(metrics[0])} of the validation questions by epoch; the weights of the best epoch answer.",
    )


def _by_epoch(board: Leaderboard, column: str, title: str, caption: str) -> Chart | None:
    curves = {e.name: e.row.curve for e in _lines(board) if any(x is not None for x in e.row.curve.get(column, []))}
    if not curves:
        return None
    last = max(len(curve[column]) for curve in curves.values())
    lines = [
        (e, [*curves[e.name][column], *[None] * (last - len(curves[e.name][column]))])
        for e in _lines(board)
        if e.name in curves
    ]
    with _picture(f"by_epoch_{column.partition('@')[0]}", title, right=_NAMES) as (axes, picture):
        if column == "loss" and len(lines) > 1 and all(y > 0 for _, ys in lines for y in ys if y is not None):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        _draw_lines(axes, board, list(range(1, last + 1)), lines)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss" if column == "loss" else metric_name(column))
    return Chart(title, caption, picture.svg)


def _top(lines: Sequence[tuple[Entry, Sequence[float | None]]]) -> float:
    """Return where an axis that begins at 0 is to end."""
    return 1.05 * max((y for _, ys in lines for y in ys if y), default=1.0)


def _mean(value: Any) -> float | None:
    found = value["mean"] if isinstance(value, dict) else value
    return None if found is None else float(found)


def _count(n: int) -> str:
    return f"{n / 1000:.3g}k" if n >= 1000 else str(n)


def _lines(board: Leaderboard) -> list[Entry]:
    """Return the entries that line plots show: as many as have colours, and the reference."""
    return board.entries[: SERIES - 1] + ([board.reference] if board.reference else [])


def _draw_lines(
    axes: Axes, board: Leaderboard, xs: Sequence[float], lines: Sequence[tuple[Entry, Sequence[float | None]]]
) -> None:
    """Draw a line for each entry and name it at its right end."""
    ends = []
    for entry, ys in lines:
        known = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        if not known:
            continue
        reference = entry is board.reference
        colour = _INK if reference else _colour((entry.place or SERIES + 1) - 1)
        axes.plot(
            [x for x, _ in known], [y for _, y in known], marker=None if reference else "o", color=colour,
            linestyle=(0, (4, 3)) if reference else "-", linewidth=1.4 if reference else 2.0,
            zorder=3 - 0.01 * (entry.place or 0),
        )  # fmt: skip
        ends.append((known[-1][0], known[-1][1], entry.name, colour))
    axes.autoscale_view()
    name_ends(axes, ends)


def name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names beside the right ends of lines, in one column, moved as little as keeps them apart."""
    ends = sorted(ends, key=lambda end: end[1])
    heights = [_place(axes, x, y)[1] for x, y, _, _ in ends]
    low, high = (axes.transAxes.transform((0, y))[1] * _points(axes) for y in (0, 1))
    for (x, y, name, colour), was, height in zip(ends, heights, _apart(heights, _LINE, low, high), strict=True):
        _write(axes, name, (x, y), (9, height - was), colour)


def _name_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write a name beside each point: to the right if there is room, else elsewhere near by."""
    axes.autoscale_view()
    places = [_place(axes, x, y) for x, y, _, _ in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    edge, floor = axes.transAxes.transform((0, 0)) * _points(axes)
    for (x, y), (a, b, name, colour) in zip(places, points, strict=True):
        width = 6.2 * len(_short(name))

        def box(right: float, up: float, x: float = x, y: float = y, width: float = width) -> tuple[float, ...]:
            left = x + right if right > 0 else x + right - width
            return left, y + up - _LINE / 2, left + width, y + up + _LINE / 2

        spots = [(side * 9.0, up * 6.0) for up in sorted(range(-12, 13), key=abs) for side in (1, -1)]
        free = [s for s in spots if not any(_touch(box(*s), other) for other in taken)]
        inside = [s for s in free if edge < box(*s)[0] and floor < box(*s)[1]]
        spot = (inside or free or spots)[0]
        taken.append((*box(*spot),))  # type: ignore[arg-type]
        _write(axes, name, (a, b), spot, colour)


def _touch(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _points(axes: Axes) -> float:
    """Return how many typographic points a pixel has."""
    return 72 / axes.figure.dpi


def _place(axes: Axes, x: float, y: float) -> tuple[float, float]:
    pixels = axes.transData.transform((x, y)) * _points(axes)
    return float(pixels[0]), float(pixels[1])


def _write(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float], colour: str) -> None:
    axes.annotate(
        _short(name), point, offset, textcoords="offset points", va="center", ha="left" if offset[0] > 0 else "right",
        color=colour, fontsize=10.5, annotation_clip=False, zorder=5,
    )  # fmt: skip


def _apart(heights: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Move rising heights as little as keeps them `least` apart and, if there is room, within `low..high`.

    >>> _apart([1.0, 1.0, 9.0], 2.0, 0.0, 10.0)
    [0.0, 2.0, 9.0]
    """
    clusters: list[tuple[float, int]] = []  # lowest height, how many
    for height in heights:
        start, n = height, 1
        while clusters and clusters[-1][0] + clusters[-1][1] * least > start:
            before, m = clusters.pop()
            middle = ((before + (m - 1) * least / 2) * m + (start + (n - 1) * least / 2) * n) / (m + n)
            n += m
            start = max(low, min(middle - (n - 1) * least / 2, high - (n - 1) * least))
        clusters.append((start, n))
    return [start + i * least for start, n in clusters for i in range(n)]


def _reference_line(axes: Axes, board: Leaderboard, metric: str) -> None:
    """Draw the level of the reference, if that is no further away than the models are apart."""
    level = board.reference.mean(metric) if board.reference else None
    if level is None:
        return
    axes.axhline(level, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"oracle {number(level)}", (0, level), (4, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=_INK, fontsize=10.5,
    )  # fmt: skip


def _log_limits(axes: Axes, xs: Sequence[float]) -> None:
    """Leave room on the right of a logarithmic axis for names, and show at least one power of ten."""
    low, high = math.log10(min(xs)), math.log10(max(xs))
    room = max(high - low, 1.0)
    axes.set_xlim(10 ** (low - 0.12 * room), 10 ** (high + 0.5 * room))


def _tall(models: int) -> float:
    """Return a height that gives each model a line."""
    return max(_HEIGHT, min(9.0, 1.1 + 0.3 * models))


def _colour(place: int) -> str:
    return COLOURS[place] if place < SERIES - 1 else MUTED


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


class _Picture:
    svg: str = ""


@contextmanager
def _picture(
    key: str, title: str, *, height: float = _HEIGHT, left: float = 0.72, right: float = 0.15, bottom: float = 0.62
) -> Iterator[tuple[Axes, _Picture]]:
    """Give axes to draw on, with margins in inches, and, after the block, the SVG of what was drawn."""
    picture = _Picture()
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"nextsession-{key}"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has its own fonts
        figure = Figure(figsize=(_WIDTH, height))
        box = left / _WIDTH, bottom / height, 1 - (left + right) / _WIDTH, 1 - (bottom + 0.15) / height
        axes = figure.add_axes(box)
        yield axes, picture
        held = io.StringIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    picture.svg = inline(held.getvalue(), key, title)


def inline(svg: str, key: str, title: str) -> str:
    """Make a file of matplotlib's a part of a page: no header, no size of its own, our colours and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<svg", f'<svg role="img" aria-label="{title}"', svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
