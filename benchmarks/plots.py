"""Draw what things cost, from the rows in benchmarks/results/: `python benchmarks/plots.py`.

Writes `docs/explanation/cost-*.svg`, in the style of reports; each picture takes light or dark
colours as its reader's system asks.
"""

import io
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nextsession.report.charts import COLOURS, MUTED, STYLE, inline, name_ends

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "explanation"

COUNTING = (
    "popular", "recent", "markov", "associationrules", "sequentialrules", "itemknn", "bprmf", "tifuknn",
)  # fmt: skip
NEIGHBOURS = ("sknn", "vsknn", "stan", "vstan", "vmisknn")
EVENTS, ITEMS = "events learnt, a hundred an item", "items, at 10⁶ events"


class Line(NamedTuple):
    """What one line of a panel joins."""

    name: str
    points: Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One plot of a picture; both axes are logarithmic."""

    title: str
    across: str
    lines: Sequence[Line]


def main() -> None:
    counters, neighbours = rows("counters"), rows("neighbours")
    draw("prepare", "Cost of logs", logs(rows("prepare"), rows("simulate")))
    for cost, title, one, other in (
        ("fit", "Cost to fit", ("fit_cpu_s", 1.0), ("fit_cpu_s", 1.0)),
        ("answer", "Cost of an answer", ("answer_cpu_us", 1.0), ("batch_us_per_prediction", 1.0)),
    ):
        unit = "CPU-s to fit" if cost == "fit" else "CPU-µs an answer, in batches"
        panels = [
            Panel(f"{unit}: {group}", across, swept(found, sweep, models, *by))
            for group, found, models, by in (
                ("counting models", counters, COUNTING, one),
                ("neighbour models", neighbours, NEIGHBOURS, other),
            )
            for sweep, across in (("events", EVENTS), ("items", ITEMS))
        ]
        draw(cost, title, panels)
    draw("evaluation", "Cost of an evaluation", evaluation(rows("evaluation")["growth"]))
    draw("neural", "Cost of training and of answers of neural models", growth(rows("memory")["rows"]))


def rows(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def logs(prepared: list[dict[str, Any]], simulated: list[dict[str, Any]]) -> list[Panel]:
    """Return the panels of time and of memory, against events."""
    drawn = [row for row in prepared if row["log"].startswith("generated")]
    time = [
        Line("prepare CSV", [(row["events"], row["cpu_seconds"]) for row in drawn]),
        Line("simulate", [(row["events"], row["world_cpu_s"] + row["events_cpu_s"]) for row in simulated]),
    ]
    memory = [
        Line("prepare CSV", [(row["events"], row["peak_mb"]) for row in drawn]),
        Line("simulate", [(row["events"], row["peak_rss_mb"]) for row in simulated]),
    ]
    return [Panel("CPU-seconds", "events", time), Panel("Most memory, MB", "events", memory)]


def swept(found: list[dict[str, Any]], sweep: str, models: Sequence[str], cost: str, scale: float) -> list[Line]:
    """Return a line for each model with its default settings, or the first settings measured."""
    lines = []
    for model in models:
        own = [row for row in found if row["model"] == model and row["data"].startswith(f"drawn: {sweep}")]
        own = [row for row in own if row["settings"] == own[0]["settings"]]
        lines.append(Line(model, sorted((row[sweep], scale * row["cost"][cost]) for row in own)))
    return lines


def evaluation(found: list[dict[str, Any]]) -> list[Panel]:
    lines = [
        Line(name, [(row["items"], 1e6 / row[f"{name}_users_per_cpu_s"]) for row in found])
        for name in ("ranks and lists", "ranks")
    ]
    return [Panel("CPU-µs a question: 64-dimensional dot products", "items", lines)]


def growth(found: list[dict[str, Any]]) -> list[Panel]:
    """Return the panels of steps and of memory, against items and against the length of histories."""
    models = list(dict.fromkeys(row["model"] for row in found))
    panels = []
    for cost, title in (("step_cpu_s", "CPU-s a step of 3,200 events"), ("train_peak_mb", "Most memory, MB")):
        for sweep, across in (("items", "items, histories of 50 events"), ("length", "events of a history")):
            other, fixed = ("length", 50) if sweep == "items" else ("items", 10_000)
            some = [row for row in found if row[other] == fixed and cost in row]
            lines = [Line(m, sorted((r[sweep], r[cost]) for r in some if r["model"] == m)) for m in models]
            panels.append(Panel(title, across, [line for line in lines if len(line.points) > 1]))
    return panels


def draw(name: str, title: str, panels: Sequence[Panel]) -> None:
    down, across = (len(panels) + 1) // 2, min(2, len(panels))
    width, height = 5.0 * across, 3.5 * down
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"nextsession-{name}"}):
        figure = Figure(figsize=(width, height))
        places = figure.subplots(down, across, squeeze=False, sharey="row" if len(panels) > 2 else False)
        figure.subplots_adjust(
            left=0.6 / width, right=1 - 1.45 / width, bottom=0.62 / height, top=1 - 0.42 / height,
            wspace=2.0 / (width / across - 2.0), hspace=1.15 / (height / down - 1.15),
        )  # fmt: skip
        for panel, axes in zip(panels, places.flat, strict=True):
            plot(axes, panel)
        held = io.StringIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = inline(held.getvalue(), name, title)
    head, mark, rest = svg.partition(">")
    path = PAGES / f"cost-{name}.svg"
    path.write_text(f"{head}{mark}\n{style()}{rest.rstrip()}\n", encoding="utf-8")
    print(path.relative_to(ROOT))


def plot(axes: Axes, panel: Panel) -> None:
    axes.set(xscale="log", yscale="log", xlabel=panel.across)
    axes.set_title(panel.title, loc="left", fontsize=11.5)
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        axes.plot(*zip(*line.points, strict=True), marker="o", color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelleft=True, colors=MUTED)
    low, high = axes.get_ylim()
    if high < 12 * low:  # at least one power of ten, for a sense of scale
        axes.set_ylim(low / 3, high * 3)
    name_ends(axes, [(*line.points[-1], line.name, c) for line, c in zip(panel.lines, COLOURS, strict=False)])


def short(value: float) -> str:
    """Write a power of ten as people do.

    >>> short(1e4), short(1e6), short(0.01)
    ('10k', '1M', '0.01')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def style() -> str:
    """Return the colours of the page of a report, as a style sheet that a picture carries with it."""
    css = (files("nextsession.report") / "page.css").read_text(encoding="utf-8")
    light, dark = (
        " ".join(re.findall(r"--[\w-]+: #[0-9a-f]+;", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", css)[:2]
    )
    font = 'font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
    return f"<style>:root {{ {light} {font} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}</style>\n"


if __name__ == "__main__":
    main()
