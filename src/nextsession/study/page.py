"""The page of a study: one HTML file that loads nothing."""

import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nextsession.files import whole_file
from nextsession.report.leaderboard import metric_name, plain
from nextsession.study.pictures import picture
from nextsession.study.plans import METRICS, TITLES, bare
from nextsession.study.summary import GAIN, Measured, Summary
from nextsession.study.tables import cells, signed


def write_page(summary: Summary, path: Path) -> Path:
    """Write the page to a file, whole or not at all."""
    text = page(summary)
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path


def page(summary: Summary) -> str:
    """Return the page of a study."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style = files("nextsession.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        title=f"{TITLES[summary.study]} · {plain(summary.data['name'])}",
        verdict=verdict(summary),
        about=about(summary),
        tables=cells(summary, best="**{}**"),
        svg=Markup(picture(summary)),
        style=Markup(style),
        command=plain(summary.command),
        settings=json.dumps(summary.settings, indent=1),
    )


def about(summary: Summary) -> list[tuple[str, str]]:
    """Return the facts that all rows share."""
    data = summary.data
    learnt = ", ".join(f"{n:,} {plain(what)}" for what, n in data["train"].items())
    networks = [m.seeds for m in summary.models if m.kind in ("sessions", "items")]
    return [
        ("Data", plain(data["name"])),
        ("Protocol", f"{plain(data['protocol'])}, strict; every item is a candidate, nothing is left out"),
        ("Learnt from", learnt),
        ("Questions", f"{data['test_questions']:,}"),
        ("Seeds of each network", str(max(networks, default=1))),
    ]


def verdict(summary: Summary) -> str:
    """Say in a sentence or two what came of it, for better or worse."""
    if summary.study == "scaling":
        told, came, name = summary.more["prediction"], summary.more["check"], metric_name(summary.more["metric"])
        return (
            f"Of {told['events']:,.0f} events at width {told['width']} the law foretold {name} {told['mean']:.4f} "
            f"({told['low']:.4f} to {told['high']:.4f}); measured then was {came['observed']:.4f}, "
            f"{'inside' if came['inside'] else 'outside'} the interval."
        )
    if summary.study == "intent":
        return _where(summary)
    parts = []
    for timed in (False, True):
        some = [m for m in summary.models if m.metrics and m.timed == timed and m.kind != "oracle"]
        if some:
            best = max(some, key=lambda m: sum(m.metrics[x]["mean"] for x in METRICS))
            column = "Of what knows the instant" if timed else "Blind to the time"
            parts.append(f"{column}, {best.name} is best over the six metrics{_beside(best)}.")
    return " ".join(parts)


def _where(summary: Summary) -> str:
    """Say what the first model of sessions is worth where a wish lasts least and most."""
    compared = [m for m in summary.models if GAIN in m.differences]
    ours = [m for m in compared if bare(m.name) == bare(compared[0].name)]
    if not ours:
        return ""
    parts = [
        f"{signed(m.differences[GAIN], share=True)} beside {bare(m.against)} where persistence is {m.x:g}"
        for m in [*ours[:1], *ours[1:][-1:]]
    ]
    return f"{bare(ours[0].name)} is {', and '.join(parts)}."


def _beside(model: Measured) -> str:
    if GAIN not in model.differences:
        return ""
    return f", {signed(model.differences[GAIN], share=True)} beside {model.against}"
