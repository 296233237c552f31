"""Reading the files of a raw log, batch by batch: CSV of any kind, JSON lines, Parquet, any Arrow frame.

Only the columns that the format names are read, and only a batch at a time is held.  CSV is parsed
by Arrow and not by Polars, for Polars fills short rows with nulls in silence and gives up a file for
one odd row, while Arrow hands each refused row over with its number.  Measured on 385 gzipped files,
2,988,181 rows, 4 of 12 columns: 1.7 CPU-seconds (Polars 0.8) of the 6 that preparing them takes.
JSON lines are parsed by Polars; a block that it refuses is gone through line by line.
"""

import glob
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nextsession.data.cleaning import check_columns, needed
from nextsession.data.delimited import read_delimited
from nextsession.data.format import EventBatch, LogFormat
from nextsession.data.jsonlines import read_json_lines
from nextsession.errors import ConfigError, DataError
from nextsession.progress import Progress, silent

ROWS = 1 << 18
"""Rows of a batch of a Parquet file or frame."""

_KINDS: dict[str, Literal["csv", "jsonl", "parquet"]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".inter": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class SupportsArrowStream(Protocol):
    """Any frame that speaks Arrow: Polars, pandas, PyArrow, DuckDB, ..."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the frame as a stream of Arrow batches."""


def read_events(
    source: str | Path | Sequence[str | Path] | SupportsArrowStream,
    form: LogFormat,
    *,
    progress: Progress = silent,
) -> Iterator[EventBatch]:
    """Read a raw log, batch by batch, in the order of its files and rows.

    Args:
        source: A file, a glob (`clicks/*.csv.gz`, in natural order: 2 before 10), several of them,
            `-` for standard input, or a frame that speaks Arrow.
        form: How the files are written.
        progress: Told how many bytes of all files have been read.

    Yields:
        Batches of unchecked rows: text columns for CSV and JSON lines, typed ones for Parquet and frames.

    Raises:
        DataError: A file is missing, damaged or of another kind, a column is missing, or a glob
            matches nothing.
    """
    if hasattr(source, "__arrow_c_stream__"):
        yield from _frame(source, form)
        return
    files = expand([source] if isinstance(source, str | Path) else list(source))
    sizes = [0 if str(file) == "-" else file.stat().st_size for file in files]
    done, total = 0, sum(sizes) or None
    for file, size in zip(files, sizes, strict=True):
        for batch, position in _batches(file, form):
            progress("read", done + min(position, size or position), total)
            yield batch
        done += size
        progress("read", done, total)


def expand(sources: Sequence[str | Path]) -> list[Path]:
    """Return the files that names, globs and `-` stand for, in the order in which they are read.

    Raises:
        DataError: A file is missing or named twice, or a glob matches nothing.
    """
    if not sources:
        raise DataError("There must be a file to read, the list given is empty.")
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if str(source) == "-" or path.is_file():
            found.append(path)
        elif path.is_dir():
            raise DataError(f"{source} is a directory; name its files, as in '{path / '*.csv.gz'}'.")
        elif glob.has_magic(str(source)):
            matches = [Path(name) for name in glob.glob(str(source), recursive=True)]  # noqa: PTH207 takes absolute patterns
            if not matches:
                raise DataError(f"No file matches {source}.")
            found += sorted((match for match in matches if match.is_file()), key=_natural)
        elif path.exists():
            found.append(path)  # a pipe
        else:
            raise DataError(f"{source} does not exist.")
    places: dict[Path, Path] = {}
    for path in found:
        place = path.resolve()
        if place in places:
            raise DataError(f"{path} is named twice; its events would count twice.")
        places[place] = path
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def _batches(file: Path, form: LogFormat) -> Iterator[tuple[EventBatch, int]]:
    """Give the batches of a file, each with the number of bytes of the file read so far."""
    name = str(file)
    try:
        if name == "-":
            yield from _opened(sys.stdin.buffer, "standard input", form.kind or "csv", "", form)
            return
        with file.open("rb") as handle:
            kind, suffix = _kind(file, form)
            yield from _opened(handle, name, kind, suffix, form)
    except PermissionError:
        raise DataError(f"{name} cannot be read: permission denied.") from None


def _kind(file: Path, form: LogFormat) -> tuple[Literal["csv", "jsonl", "parquet"], str]:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    kind = form.kind or _KINDS.get(suffix)
    if kind is None:
        raise DataError(
            f"{file}: the name does not tell what the file is; set kind to csv, jsonl or parquet "
            f"(names that tell: {', '.join(_KINDS)}, each also with .gz)."
        )
    return kind, suffix


def _opened(handle: BinaryIO, name: str, kind: str, suffix: str, form: LogFormat) -> Iterator[tuple[EventBatch, int]]:
    if kind == "parquet":
        if not handle.seekable():
            raise ConfigError(f"{name}: Parquet must be a file, it cannot be read from a pipe.")
        yield from _parquet(handle, name, form)
    elif kind == "jsonl":
        yield from read_json_lines(handle, name, form)
    else:
        yield from read_delimited(handle, name, form, tab=suffix == ".tsv")


def _parquet(handle: BinaryIO, name: str, form: LogFormat) -> Iterator[tuple[EventBatch, int]]:
    try:
        # A buffer filled ahead would keep all that was read until the end of the file.
        file = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
        check_columns(file.schema_arrow.names, form, name)
        row = 1
        for batch in file.iter_batches(batch_size=ROWS, columns=needed(form.columns), use_threads=False):
            frame = _as_frame(batch)
            yield EventBatch(frame, name, row), handle.tell()
            row += len(frame)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, PermissionError):
            raise
        raise DataError(f"{name} is not a whole Parquet file: {str(error).splitlines()[0]}") from None


def _frame(source: Any, form: LogFormat) -> Iterator[EventBatch]:
    reader = pa.RecordBatchReader.from_stream(source)
    check_columns(reader.schema.names, form, "the frame")
    row = 1
    for batch in reader:
        for start in range(0, len(batch), ROWS):
            part = batch.slice(start, ROWS).select(needed(form.columns))
            yield EventBatch(_as_frame(part), "the frame", row)
            row += len(part)


def _as_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """Return the rows; a column of text that is not UTF-8 comes as bytes, for Polars trusts what Arrow calls text."""
    columns = batch.columns
    for place, column in enumerate(columns):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                columns[place] = column.cast(pa.large_binary())
    return pl.DataFrame(pl.from_arrow(pa.RecordBatch.from_arrays(columns, batch.schema.names)))
