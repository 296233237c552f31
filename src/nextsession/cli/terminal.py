"""What a command shows: results on stdout, progress and remarks on stderr."""

import inspect
import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import StringIO
from typing import Annotated, Any, TypeAlias

import typer

from nextsession.progress import Progress, silent

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

_PIPED_WIDTH = 200
_LONG_WORD = 30
_LINE_EVERY = 30.0  # seconds

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write the result as JSON, and nothing else.")]
Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, e.g. split.test=1d; repeat.")
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]


def examples(*lines: str) -> str:
    """Return the text below a command's options."""
    return "\n\n".join(["[bold]Examples[/bold]", *("  " + line.replace("[", "\\[") for line in lines)])


def unwrapped(text: str | None) -> str:
    """Return a docstring with each paragraph in one line, for terminals of any width."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text or ""))


def be_quiet(quiet: bool) -> None:
    """Show neither progress nor remarks from here on."""
    _quiet.set(quiet)


def show(text: str) -> None:
    """Write a result to stdout."""
    typer.echo(text)


def remark(text: str) -> None:
    """Write a remark to stderr, unless asked to be quiet."""
    if not _quiet.get():
        typer.echo(text, err=True)


def complain(error: BaseException) -> None:
    """Write an error to stderr, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = (
            f"{error.filename} cannot be read or written: {error.strerror}. Free it, or choose another place "
            "(--out; NEXTSESSION_CACHE for the cache)."
        )
    typer.echo(f"Error: {' '.join(text.split())}", err=True)


def show_json(value: Any) -> None:
    """Write a result as JSON; numbers that JSON lacks become null."""
    typer.echo(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a table; columns after the first are set right if all their cells are numbers.

    Text is wrapped to the width of the terminal.  Words and numbers are not broken: where these
    alone are wider, so is the table.
    """
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        numbers = i > 0 and bool(cells) and all(_is_number(row[i]) for row in cells)
        word = max(len(x) for text in (column, *(row[i] for row in cells)) for x in text.split() or [""])
        table.add_column(
            column,
            justify="right" if numbers else "left",
            no_wrap=i == 0 or numbers,
            min_width=min(word, _LONG_WORD),
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    if sys.stdout.isatty():
        console = Console()
        least = Measurement.get(console, console.options.update(width=_PIPED_WIDTH), table).minimum
        console.width = max(console.width, least + len(columns))  # rich counts the space at the edges short
        console.print(table)
        return
    text = StringIO()
    Console(file=text, width=_PIPED_WIDTH).print(table)
    show("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


@contextmanager
def bars() -> Iterator[Progress]:
    """Give a `Progress` that draws bars on stderr, with the time that is left; nothing if somebody asked for quiet.

    Where stderr is no terminal, long work that says how it goes (training) writes a line every half minute.
    """
    if _quiet.get():
        yield silent
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), transient=True) as drawn:
        known: dict[str, Any] = {}

        def report(task: str, done: int, total: int | None, note: str = "") -> None:
            if task not in known:
                known[task] = drawn.add_task(task, total=total, note=note)
            drawn.update(known[task], completed=done, total=total, note=note)

        yield report


def _lines() -> Progress:
    """Return a `Progress` that writes a line every so often about work that has a note, such as training."""
    began: dict[str, tuple[float, int]] = {}
    written = time.monotonic()

    def report(task: str, done: int, total: int | None, note: str = "") -> None:
        nonlocal written
        now = time.monotonic()
        since, first = began.setdefault(task, (now, done))
        if not note or now - written < _LINE_EVERY:
            return
        written = now
        left = ""
        if total is not None and done > first:
            left = f" · {_clock((now - since) / (done - first) * (total - done))} left"
        remark(f"{task}: {done:,} of {total:,} · {note}{left}" if total is not None else f"{task}: {done:,} · {note}")

    return report


def _clock(seconds: float) -> str:
    """Write a length of time.

    >>> _clock(59), _clock(3700)
    ('0:00:59', '1:01:40')
    """
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "") or "0")
    except ValueError:
        return text == "–"
    return True


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
