"""Text files line by line, in chunks that fit into memory; also gzipped ones."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from nextsession.errors import DataError
from nextsession.progress import Progress, silent


def chunks(file: Path, n: int, progress: Progress = silent) -> Iterator[tuple[int, list[bytes]]]:
    """Give `n` lines at a time, with the number of the first of them (the first line of a file is 1).

    Raises:
        DataError: A gzipped file is cut off or damaged.
    """
    row, size = 1, file.stat().st_size
    with ExitStack() as stack:
        raw = stack.enter_context(file.open("rb"))
        lines: BinaryIO | gzip.GzipFile = raw
        if file.suffix == ".gz":
            lines = stack.enter_context(gzip.open(raw))
        while True:
            try:
                chunk = list(islice(lines, n))
            except (EOFError, OSError, zlib.error) as error:
                raise DataError(f"{file} is cut off or damaged after row {row - 1}: {error}. Get it again.") from None
            if not chunk:
                return
            yield row, chunk
            row += len(chunk)
            progress(f"reading {file.name}", raw.tell(), size)
