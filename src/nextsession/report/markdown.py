"""The table of a comparison as Markdown, to paste into an issue or a README."""

from collections.abc import Sequence
from pathlib import Path

from nextsession.comparison import Row
from nextsession.files import whole_file
from nextsession.report.headline import about
from nextsession.report.leaderboard import Entry, Leaderboard, metric_name, number, plain, size


def markdown(rows: Sequence[Row]) -> str:
    """Return the leaderboard, what was asked and by which rules.

    Raises:
        DataError: The rows cannot stand in one table.
    """
    board = Leaderboard(rows)
    heads = ["", "model", *map(metric_name, board.shown), "fit CPU-s", "CPU-ms an answer", "size"]
    lines = [f"**{_cell(board.verdict())}**", ""]
    lines += [_line(heads), "|" + "|".join(["--:", ":--"] + ["--:"] * (len(heads) - 2)) + "|"]
    lines += [_line(_cells(board, entry)) for entry in board.measured]
    lines += [
        _line(["", _cell(f"{e.name} ({plain(e.row.failure)})")] + [""] * (len(heads) - 2)) for e in board.failures
    ]
    lines += ["", *(f"- {_cell(name)}: {_cell(value)}" for name, value in about(board))]
    notes = ["In brackets: 95% intervals over users. **Bold**: the best of a column."]
    if any(e.row.reads_clock for e in board.measured):
        notes.append("◷ reads the clock: the instant of the question can change its answer.")
    if board.missing_baselines:
        notes.append(f"This comparison lacks simple models: {', '.join(board.missing_baselines)}.")
    return "\n".join([*lines, "", *notes]) + "\n"


def write_markdown(rows: Sequence[Row], out: Path) -> Path:
    """Write `markdown(rows)` to a file, whole or not at all.

    Raises:
        DataError: The rows cannot stand in one table.
    """
    text = markdown(rows)
    with whole_file(out) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return out


def _cells(board: Leaderboard, entry: Entry) -> list[str]:
    name = _cell(entry.name) + (" ◷" if entry.row.reads_clock else "")
    cells = ["–" if entry.place is None else str(entry.place), name]
    for metric in board.shown:
        mean, interval = entry.mean(metric), entry.interval(metric)
        text = number(mean)
        if entry.place is not None and mean is not None and mean == board.best(metric):
            text = f"**{text}**"
        cells.append(text + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""))
    cost = entry.row.cost
    return [*cells, number(cost.fit_cpu_s), number(cost.answer_cpu_ms), size(cost.bytes)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Make text safe inside a table: no bars, tags, links or emphasis of its own."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\|`*_[]":
        text = text.replace(mark, "\\" + mark)
    return text
