"""RecFlow: what a short-video app delivered, request by request, from daily feather files.

Only what was really shown (`realshow`) is read.  Wanted is an effective view: at least 30 % of the
video was watched.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow.feather as feather

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, EventBatch, Labels, LogFormat, SessionRule
from nextsession.errors import DataError
from nextsession.progress import Progress


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read one day at a time, only the columns that are needed."""
    c = form.columns
    columns = [x for x in (c.user, c.item, c.time, c.session, c.label, c.action, c.position, *c.features) if x]
    for done, file in enumerate(files):
        progress("reading days", done, len(files))
        try:
            table = feather.read_table(file, columns=columns)
        except (OSError, ValueError, KeyError) as error:  # Arrow's errors are such
            raise DataError(f"{file} must be a feather file with the columns {', '.join(columns)}: {error}.") from None
        yield EventBatch(pl.DataFrame(pl.from_arrow(table)), str(file))
    progress("reading days", len(files), len(files))


_FORM: Final = LogFormat(
    columns=Columns(
        user="user_id",
        item="video_id",
        time="request_timestamp",
        session="request_id",
        label="effective_view",
        position="rerank_index",
    ),
    labels=Labels(at_least=1),
)

SET = DataSet(
    name="recflow",
    title="RecFlow (Kuaishou, every stage of the recommender)",
    about=(
        "Videos shown to 42,000 people in 37 days of early 2024: one request is a session, every video shown "
        "is an event, wanted if at least 30 % of it was watched (effective_view)."
    ),
    homepage="https://github.com/RecFlow-ICLR/RecFlow",
    licence="CC BY-SA 4.0: attribution, share alike",
    citation=(
        "Qi Liu, Kai Zheng, Rui Huang et al. RecFlow: An Industrial Full Flow Recommendation Dataset. ICLR 2025. "
        "https://arxiv.org/abs/2410.20868"
    ),
    layouts=tuple(
        Layout(files=(f"{folder}*.feather",), form=_FORM, sessions=SessionRule(by="id"), read=_read)
        for folder in ("realshow/", "data/realshow/")
    ),
    folders=("RecFlow",),
    by_hand="follow the links at https://github.com/RecFlow-ICLR/RecFlow; only the folder realshow is needed.",
)
