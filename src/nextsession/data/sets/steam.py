"""Steam reviews: one Python dictionary (or JSON object) a line; a review is an event.

As in the literature every review is wanted and all reviews of a person are one session.  Times are
days: reviews of one day keep the order of the file.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextsession.data.cleaning import ROW
from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, EventBatch, LogFormat, Rejected, SessionRule
from nextsession.data.sets._lines import chunks
from nextsession.progress import Progress

_ROWS: Final = 100_000
_FIELDS: Final = ("username", "product_id", "date")


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    for file in files:
        for row, lines in chunks(file, _ROWS, progress):
            reviews: list[tuple[Any, ...]] = []
            rejected = []
            for i, line in enumerate(lines):
                try:
                    review = _parse(line.decode())
                    reviews.append((row + i, *(review[name] for name in _FIELDS)))
                except (ValueError, SyntaxError, TypeError, KeyError) as error:
                    text = line[:80].decode(errors="replace").rstrip()
                    rejected.append(Rejected(str(file), row + i, "review", text, f"no review: {error}"))
            frame = pl.DataFrame(
                reviews, schema={ROW: pl.Int64, **dict.fromkeys(_FIELDS, pl.String)}, orient="row"
            ).with_columns(pl.col("date").str.to_date("%Y-%m-%d", strict=False))
            yield EventBatch(frame, str(file), row, tuple(rejected))


def _parse(line: str) -> dict[str, Any]:
    """Read a JSON object, or the Python dictionary that the original file has on each line."""
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        found = ast.literal_eval(line.strip())
    return found


SET = DataSet(
    name="steam",
    title="Steam video game reviews",
    about=(
        "7,793,069 reviews of 15,474 games by 2,567,538 people, 2010 to 2018. Every review is wanted. "
        "A person is a session."
    ),
    homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    licence="no licence is stated; for research, with citation of the paper",
    citation=(
        "Wang-Cheng Kang and Julian McAuley. Self-Attentive Sequential Recommendation. ICDM 2018. "
        "https://arxiv.org/abs/1808.09781"
    ),
    layouts=tuple(
        Layout(
            files=(f"steam_{version}.json{gz}",),
            form=LogFormat(columns=Columns(user="username", item="product_id", time="date")),
            sessions=SessionRule(by="user"),
            read=_read,
        )
        for version in ("reviews", "new")
        for gz in (".gz", "")
    ),
    addresses=(Address("https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz"),),
)
