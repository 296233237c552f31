"""Reading JSON lines: one object a line, plain or gzipped; lines that are none are set aside."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import polars as pl

from nextsession.data.cleaning import ROW, check_columns, needed, shown
from nextsession.data.format import EventBatch, LogFormat, Rejected
from nextsession.data.streams import BLOCK, Text
from nextsession.errors import DataError

_HALF_A_PAIR = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])")
"""An escape that stands for half a character, which Polars would read as NUL."""


def read_json_lines(handle: BinaryIO, name: str, form: LogFormat) -> Iterator[tuple[EventBatch, int]]:
    """Give the batches of a file of JSON lines, each with the number of bytes read so far.

    Numbers are taken as they are written, so large ids stay exact.

    Raises:
        DataError: The file is empty, damaged or one large array, or no line names a column.
    """
    text = Text(handle, name)
    first, _ = text.first_line()
    if first.lstrip().startswith(b"["):
        raise DataError(f"{name} must hold one JSON object a line; it begins with '['.  Write one event a line.")
    _check_names(text.head, form, name)
    columns = needed(form.columns)
    row, rest = 1, b""
    while block := text.read(BLOCK):
        block = rest + block
        end = block.rfind(b"\n") + 1
        if end == 0 and len(block) > BLOCK:
            raise DataError(f"{name}, row {row}: a line must not be longer than {BLOCK >> 20} MB.")
        lines, rest = block[:end], block[end:]
        if lines:
            yield _batch(lines, columns, name, row), text.position
            row += lines.count(b"\n")
    if rest:  # it ends in half a Windows line end
        yield _batch(rest + b"\n", columns, name, row), text.position


def _check_names(head: bytes, form: LogFormat, name: str) -> None:
    """Raise `DataError` if the first lines that can be read name a column nowhere; an event may lack one."""
    found: dict[str, None] = {}
    for line in head.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the line will be set aside with its reason
        if isinstance(event, dict):
            found.update(dict.fromkeys(event))
    if found:
        check_columns(list(found), form, name)


def _batch(lines: bytes, columns: list[str], name: str, row: int) -> EventBatch:
    count = lines.count(b"\n")
    if _HALF_A_PAIR.search(lines):
        return _slowly(lines, columns, name, row)
    try:
        frame = pl.read_ndjson(lines, schema=dict.fromkeys(columns, pl.String))
    except (pl.exceptions.PolarsError, ValueError):
        return _slowly(lines, columns, name, row)
    nested = frame.select(
        pl.any_horizontal(pl.col(c).str.starts_with("[") | pl.col(c).str.starts_with("{") for c in columns)
    )
    if len(frame) != count or nested.to_series().any():
        return _slowly(lines, columns, name, row)
    return EventBatch(frame, name, row)


def _slowly(lines: bytes, columns: list[str], name: str, row: int) -> EventBatch:
    """Read line by line, to find those that are no event."""
    values: dict[str, list[str | None]] = {column: [] for column in columns}
    rows: list[int] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(lines.splitlines() if b"\r" not in lines else lines.split(b"\n"), row):
        if not line.strip():
            continue
        try:
            event = json.loads(line, parse_int=str, parse_float=str)
        except (ValueError, RecursionError) as error:
            reason = (
                "this is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"this is not JSON ({error})"
            )
            rejected.append(Rejected(name, number, "", shown(line), reason))
            continue
        if not isinstance(event, dict):
            rejected.append(Rejected(name, number, "", shown(line), "a line must hold an object"))
            continue
        halved = [c for c in columns if isinstance(event.get(c), str) and not _is_unicode(event[c])]
        if halved:
            value = event[halved[0]].encode(errors="replace").decode()
            rejected.append(Rejected(name, number, halved[0], shown(value), "the text holds half a surrogate pair"))
            continue
        nested = [column for column in columns if isinstance(event.get(column), dict | list)]
        if nested:
            value = json.dumps(event[nested[0]])
            rejected.append(
                Rejected(
                    name,
                    number,
                    nested[0],
                    shown(value),
                    "the value must not be nested; write what is in it as a column of its own",
                )
            )
            continue
        rows.append(number)
        for column in columns:
            values[column].append(_written(event.get(column)))
    frame = pl.DataFrame({**values, ROW: rows}, schema={**dict.fromkeys(columns, pl.String), ROW: pl.Int64})
    return EventBatch(frame, name, row, tuple(rejected))


def _is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8; JSON may escape what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
