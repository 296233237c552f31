"""The pictures of a `Description`: six small panels on one sheet."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextsession.config import duration_text
from nextsession.errors import ConfigError

if TYPE_CHECKING:
    from nextsession.data.describe import Description, Spread

_INK, _MUTED, _GRID = "#22303c", "#6b7a88", "#e3e8ec"
_BLUE, _PALE, _ORANGE = "#2a6f97", "#a9cfe2", "#e07a3f"


def draw(description: "Description", path: Path) -> Path:
    """Draw the panels and write them as `.png`, `.svg` or `.pdf`; no display is needed.

    Raises:
        ConfigError: The name ends otherwise.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"Plots are written as .png, .svg or .pdf, got {path.name!r}.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.titlecolor": _INK, "axes.edgecolor": _MUTED, "axes.labelcolor": _MUTED, "text.color": _INK,
        "xtick.color": _MUTED, "ytick.color": _MUTED, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": _GRID, "axes.axisbelow": True,
        "svg.hashsalt": "nextsession", "axes.formatter.useoffset": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(12, 6.4), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        timed = description.timeline is not None
        _lengths(axes[0 if not timed else 1], description.session_events, "Events of a session")
        _lengths(axes[1 if not timed else 2], description.user_sessions, "Sessions of a user")
        _popularity(axes[3], description)
        if timed:
            _events_over_time(axes[0], description)
            _new_items(axes[4], description)
            _hours(axes[5], description)
        else:
            _lengths(axes[2], description.user_events, "Events of a user")
            _shares(axes[4], description)
            _lengths(axes[5], description.item_events, "Items, by events")
        d = description
        figure.suptitle(
            f"{d.events:,} events · {d.sessions:,} sessions · {d.users:,} users · {d.items_seen:,} items",
            x=0.01, ha="left", fontsize=12, color=_INK,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {} if path.suffix.lower() == ".png" else {"CreationDate" if path.suffix == ".pdf" else "Date": None}
        figure.savefig(path, dpi=150, metadata=metadata)
    return path


def _lengths(axes: Any, spread: "Spread", title: str) -> None:
    """A histogram whose bins widen, drawn with bars of equal width, each named after its bin."""
    axes.set_title(title)
    last = max((i for i, c in enumerate(spread.counts) if c), default=-1)
    first = next((i for i, c in enumerate(spread.counts) if c), 0)
    shown = range(first, last + 1)
    total = sum(spread.counts)
    axes.bar(range(len(shown)), [spread.counts[i] / total for i in shown], color=_BLUE, width=0.86)
    names = [_bin_name(spread.edges[i], spread.edges[i + 1], spread.quantiles[-1]) for i in shown]
    step = max(1, math.ceil(len(names) / 9))
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.yaxis.set_major_formatter(_percent())
    if total:
        _note(axes, f"mean {spread.mean:,.1f} · median {spread.quantiles[2]:,.0f} · most {spread.quantiles[-1]:,.0f}")


def _bin_name(low: float, high: float, most: float) -> str:
    top = min(math.ceil(high) - 1, math.ceil(most))
    return _short(low) if top <= low else f"{_short(low)}–{_short(top)}"


def _short(x: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= 10 * size:
            return f"{x / size:.0f}{letter}"
    return f"{x:.0f}"


def _percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:g} %")


def _note(axes: Any, text: str) -> None:
    """Write the figures of a panel at the right end of its title line, where no bar can cover them."""
    axes.set_title(text, loc="right", fontsize=8, fontweight="normal", color=_MUTED)


def _popularity(axes: Any, d: "Description") -> None:
    axes.set_title("Events of an item")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(d.popularity.ranks, d.popularity.events, color=_BLUE, linewidth=2, marker="o", markersize=2.5)
    axes.set_xlabel("rank of the item")
    if len(d.popularity.ranks) == 1:
        axes.set_xlim(0.5, 2)
    _short_counts(axes.xaxis)
    _short_counts(axes.yaxis)
    _note(axes, f"top 1 % have {d.popularity.top_share[0]:.1%} · Gini {d.popularity.gini:.2f}")


def _events_over_time(axes: Any, d: "Description") -> None:
    timeline = d.timeline
    if timeline is None:
        return
    axes.set_title(f"Events in bins of {duration_text(timeline.width)}")
    width = timedelta(milliseconds=timeline.width)
    places = [_date(s) + width / 2 for s in timeline.starts]
    if d.labels.ignored:
        axes.bar(places, timeline.events, width=width * 0.9, color=_PALE, label="shown and ignored")
        axes.bar(places, timeline.wanted, width=width * 0.9, color=_BLUE, label="wanted")
        axes.legend(frameon=False, fontsize=8, labelcolor=_MUTED)
    else:
        axes.bar(places, timeline.events, width=width * 0.9, color=_BLUE)
    _short_counts(axes.yaxis)
    _dates(axes)


def _new_items(axes: Any, d: "Description") -> None:
    timeline = d.timeline
    if timeline is None:
        return
    axes.set_title("Share on new items")
    width = timedelta(milliseconds=timeline.width)
    places = [_date(s) + width / 2 for s in timeline.starts]
    # A bin with hardly any events says nothing: a few late strays would fill the panel.
    shares = [
        new if 1000 * n >= d.events else math.nan for new, n in zip(timeline.new_items, timeline.events, strict=True)
    ]
    axes.plot(places, shares, color=_ORANGE, linewidth=2, marker="o", markersize=2.5)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(_percent())
    _dates(axes)
    if d.newness is not None:
        _note(axes, f"later half of the events {d.newness.unseen:.1%}")


def _hours(axes: Any, d: "Description") -> None:
    if d.timeline is None:
        return
    axes.set_title("Hour of the day, UTC")
    axes.bar(range(24), [h / d.events for h in d.timeline.hours], color=_BLUE, width=0.86)
    axes.set_xticks(range(0, 24, 3))
    axes.yaxis.set_major_formatter(_percent())


def _shares(axes: Any, d: "Description") -> None:
    axes.set_title("Repeats and labels, share of events")
    bars: Sequence[tuple[str, float]] = (
        ("wanted", d.labels.wanted / max(1, d.events)),
        ("item in the history", d.repeats.history),
        ("item in the session", d.repeats.session),
        ("item just before", d.repeats.before),
    )
    axes.barh([name for name, _ in bars], [share for _, share in bars], color=_BLUE, height=0.6)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.xaxis.set_major_formatter(_percent())
    axes.grid(visible=False)
    for place, (_, share) in enumerate(bars):
        axes.text(share + 0.02, place, f"{share:.1%}", va="center", color=_MUTED)


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)


def _dates(axes: Any) -> None:
    from matplotlib import dates

    library: Any = dates  # its classes are not typed
    locator = library.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(library.ConciseDateFormatter(locator))


def _short_counts(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))
