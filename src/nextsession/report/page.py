"""The report as one HTML file that loads nothing from anywhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nextsession.comparison import Row
from nextsession.files import whole_file
from nextsession.report.headline import about, provenance, settings_text
from nextsession.report.leaderboard import Entry, Leaderboard, metric_name, number, plain, size

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Cell:
    """A number of the table: as text, as a number to sort by, with its interval and its length as a bar."""

    text: str
    sort: float | None
    interval: str = ""
    share: float = 0.0
    best: bool = False
    alike: bool = False
    """Not to be told from the leader."""


def html(rows: Sequence[Row], *, title: str = "", when: str = "", facts: Mapping[str, Any] | None = None) -> str:
    """Return the page.

    Args:
        rows: Of one table.
        title: The heading; by default the data and the protocol.
        when: The day the report was made, as it is to be shown.
        facts: More about the data, such as the manifest of a prepared log: text, numbers, mappings, lists.

    Raises:
        DataError: The rows cannot stand in one table.
    """
    from nextsession.report.charts import charts

    board = Leaderboard(rows)
    row = board.first
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.tests["mapping_of_facts"] = lambda value: isinstance(value, Mapping)
    environment.tests["list_of_facts"] = _is_table
    environment.filters["written"] = _written
    environment.filters["labelled"] = lambda name: plain(name).replace("_", " ")
    return environment.get_template("page.html.j2").render(
        title=plain(title) or f"{plain(row.data.get('name', 'log'))} · {plain(row.protocol.get('name', ''))}",
        when=plain(when),
        verdict=board.verdict(),
        board=board,
        about=about(board),
        heads=[metric_name(m) for m in board.shown],
        lines=[(e, [_cell(board, e, m) for m in board.shown], _costs(e)) for e in board.measured],
        all_heads=[metric_name(m) for m in board.metrics],
        all_lines=[(e, [_cell(board, e, m) for m in board.metrics]) for e in board.measured],
        primary=metric_name(board.primary),
        shares={e.name: board.of_reference(e) for e in board.entries},
        charts=[(chart, Markup(chart.svg)) for chart in charts(board)],
        data=_data_facts(row.data),
        facts=facts or {},
        split=row.protocol.get("settings") or {},
        provenance=provenance(board),
        commands=sorted({plain(r.command) for r in board.rows if r.command}),
        settings_text=settings_text,
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def write_html(
    rows: Sequence[Row], out: Path, *, title: str = "", when: str = "", facts: Mapping[str, Any] | None = None
) -> Path:
    """Write `html(...)` to a file, whole or not at all.

    Raises:
        DataError: The rows cannot stand in one table.
    """
    text = html(rows, title=title, when=when, facts=facts)
    with whole_file(out) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return out


def _cell(board: Leaderboard, entry: Entry, metric: str) -> Cell:
    mean, interval, best = entry.mean(metric), entry.interval(metric), board.best(metric)
    ranked = entry.place is not None
    return Cell(
        number(mean),
        mean,
        f"{number(interval[0])} – {number(interval[1])}" if interval else "",
        min(1.0, mean / best) if ranked and best and mean is not None else 0.0,
        ranked and mean is not None and mean == best,
        ranked and board.indistinct(entry, metric),
    )


def _costs(entry: Entry) -> list[Cell]:
    cost = entry.row.cost
    return [
        Cell(number(cost.fit_cpu_s), cost.fit_cpu_s),
        Cell(number(cost.answer_cpu_ms), cost.answer_cpu_ms),
        Cell(size(cost.bytes), cost.bytes),
        Cell(size(None if cost.peak_rss_mb is None else 1e6 * cost.peak_rss_mb), cost.peak_rss_mb),
    ]


def _data_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value not in (None, "", {}, [])}


def _is_table(value: object) -> bool:
    """Say whether a value is a list of mappings with the same names: a table."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(row, Mapping) and list(row) == list(value[0]) for row in value)
    )


def _written(value: object) -> str:
    """Write a plain value for people."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)} {_written(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_written(v) for v in value) or "–"
    return plain(value)
