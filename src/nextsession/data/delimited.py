"""Reading CSV: any delimiter, with or without a header, quoted or not, plain or gzipped.

Rows are numbered as they are written: the header, if there is one, is row 1, and blank lines
count (they are skipped).  A quoted field that holds line ends is one row.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv

from nextsession.data.cleaning import ROW, check_columns, needed, shown
from nextsession.data.format import EventBatch, LogFormat, Rejected
from nextsession.data.streams import BAD, BLOCK, Text
from nextsession.errors import DataError

_STAND_IN = "\x1f"  # for a delimiter of several characters: Arrow takes one byte


def read_delimited(
    handle: BinaryIO, name: str, form: LogFormat, *, tab: bool = False
) -> Iterator[tuple[EventBatch, int]]:
    """Give the batches of a CSV, each with the number of bytes read so far.

    Args:
        handle: The file, open at its beginning.
        name: The name of the file, for messages.
        form: How it is written.
        tab: Whether its name says that columns are separated by tabs.

    Raises:
        DataError: It is empty, damaged or no CSV, or a column is missing or named twice.
    """
    text = Text(handle, name)
    line, empty = text.first_line()
    first = _decoded(line, name)
    skipped = empty + 1 if form.header is None else 0
    delimiter = form.delimiter or ("\t" if tab else _likely(first))
    names = list(form.header or _fields(first, delimiter))
    check_columns(names, form, name)
    for column in needed(form.columns):
        if names.count(column) > 1:
            raise DataError(f"{name}: the header must name {column!r} once, it does so {names.count(column)} times.")
    if len(delimiter) > 1:
        text.replace(delimiter.encode(), _STAND_IN.encode())
    text.mark_bad()  # Arrow drops a row in silence if it is both ragged and not UTF-8
    refused: list[Any] = []

    def refuse(row: Any) -> str:
        refused.append(row)
        return "skip"

    try:
        reader = arrow_csv.open_csv(
            text,
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK, column_names=names, skip_rows=skipped
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter if len(delimiter) == 1 else _STAND_IN,
                quote_char='"' if len(delimiter) == 1 else False,
                newlines_in_values=len(delimiter) == 1,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=needed(form.columns), column_types=dict.fromkeys(names, pa.binary()), check_utf8=False
            ),
        )
        yield from _numbered(reader, text, refused, name, skipped + 1)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise DataError(
                f"{name}: a row must not be longer than {BLOCK >> 20} MB; is a quote opened and never closed?"
            ) from None
        raise DataError(f"{name} cannot be read as CSV: {str(error).splitlines()[0]}") from None


def _numbered(reader: Any, text: Text, refused: list[Any], name: str, row: int) -> Iterator[tuple[EventBatch, int]]:
    """Give each parsed batch the numbers of its rows, the refused ones, and its text as text."""
    empty = EventBatch(pl.DataFrame(schema=dict.fromkeys(reader.schema.names, pl.String)), name, row)
    yield empty, text.position  # so that a file of a header alone is heard of
    for batch in reader:
        frame = _as_text(pl.DataFrame(pl.from_arrow(batch)), marked=text.marked)
        gaps = [r.number for r in refused]
        rows = np.arange(row, row + len(frame) + len(gaps))
        rows = rows[~np.isin(rows, gaps)][: len(frame)]
        first, row = row, int(rows[-1]) + 1 if len(rows) else row
        if row - first > len(frame):
            frame = frame.with_columns(pl.Series(ROW, rows))
        if text.blank and len(frame):
            frame = _without_blank(frame, rows)
        passed = [r for r in refused if r.number < row]  # Arrow may have parsed ahead
        del refused[: len(passed)]
        yield EventBatch(frame, name, first, tuple(_rejected(r, name) for r in passed)), text.position
    if refused:
        row = refused[-1].number + 1
        yield replace(empty, rejected=tuple(_rejected(r, name) for r in refused)), text.position
    _check_quotes(text, name, row - 1)


def _check_quotes(text: Text, name: str, last: int) -> None:
    if text.quotes % 2 and text.lines > last:
        raise DataError(
            f"{name}, row {last}: a quote is opened and never closed, so {text.lines - last + 1} lines look like one. "
            f"Close it, or write quotes inside fields twice."
        )


def _as_text(frame: pl.DataFrame, *, marked: bool) -> pl.DataFrame:
    """Take bytes as text; a column that holds what is not UTF-8 stays bytes."""
    columns = []
    for column in frame:
        text = column.cast(pl.String)
        if marked and text.str.contains(BAD, literal=True).any():
            text = pl.Series(column.name, [value.replace(BAD.encode(), b"\xff") for value in column], dtype=pl.Binary)
        columns.append(text)
    return pl.DataFrame(columns)


def _without_blank(frame: pl.DataFrame, rows: Any) -> pl.DataFrame:
    """Leave out rows of which nothing is written; only a file with empty lines comes here."""
    columns = [name for name in frame.columns if name != ROW]
    numbered = frame if ROW in frame.columns else frame.with_columns(pl.Series(ROW, rows))
    return numbered.filter(~pl.all_horizontal(pl.col(name).cast(pl.Binary) == b"" for name in columns))


def _rejected(row: Any, name: str) -> Rejected:
    lines = row.text.count("\n") + 1
    spans = f" and spans {lines} lines; is a quote unbalanced?" if lines > 1 else ""
    reason = f"the row has {row.actual_columns} fields, the header {row.expected_columns}{spans}"
    return Rejected(name, int(row.number), "", shown(row.text.replace(_STAND_IN, "::").replace(BAD, "\ufffd")), reason)


def _decoded(line: bytes, name: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        what = f"{error.reason} at byte {error.start}"
        raise DataError(f"{name}, row 1 must be UTF-8 text: {what}. Convert it: iconv -t utf-8.") from None


def _likely(header: str) -> str:
    return max(",;\t", key=header.count)


def _fields(line: str, delimiter: str) -> list[str]:
    return line.split(delimiter) if len(delimiter) > 1 else next(csv.reader([line], delimiter=delimiter))
