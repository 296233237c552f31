"""The form of SR-GNN and GCE-GNN: sessions to learn from, and prefixes with the item that came next."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextsession.data.cases import Cases
from nextsession.data.cleaning import ROW
from nextsession.data.dataset import Layout
from nextsession.data.format import Columns, EventBatch, LogFormat, SessionRule
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.progress import Progress

_ROWS: Final = 50_000


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read `train_sessions.parquet`: a column `seq` of lists of items, one session a row."""
    table = pq.ParquetFile(files[0])
    row = 1
    for batch in table.iter_batches(_ROWS, columns=["seq"]):
        frame = pl.DataFrame({ROW: np.arange(row, row + len(batch)), "item": pl.Series(batch["seq"])})
        yield EventBatch(frame.explode("item").drop_nulls("item"), str(files[0]), row)
        row += len(batch)
        progress(f"reading {files[0].name}", row - 1, table.metadata.num_rows)


def _questions(folder: Path, vocabulary: Vocabulary) -> Cases:
    """Read `test_prefixes.parquet`: columns `prefix` (a list of items) and `target`.

    Prefixes of one session follow one another from the longest to the shortest; they share a group.
    """
    table = pl.read_parquet(folder / "test_prefixes.parquet", columns=["prefix", "target"])
    lengths = table["prefix"].list.len().to_numpy().astype(np.int64)
    items = table["prefix"].explode(empty_as_null=False).to_numpy()
    targets = table["target"].to_numpy()
    own = vocabulary.extend(np.concatenate([items, targets]))
    histories = SessionLog(
        items=own.encode(items),
        times=np.arange(len(items)) - np.repeat(offsets_of(lengths)[:-1], lengths),
        session_offsets=offsets_of(lengths[lengths > 0]),
        user_offsets=offsets_of(lengths > 0),
        vocabulary=own,
        timed=False,
    )
    return Cases(
        histories=histories,
        asked_at=lengths,
        targets=own.encode(targets),
        target_offsets=np.arange(len(targets) + 1),
        groups=_groups(items, lengths, targets),
    )


def _groups(items: NDArray[np.int64], lengths: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the sessions: a prefix goes on with that of the row above if it is that without its last item."""
    ends = offsets_of(lengths)
    groups = np.zeros(len(lengths), np.int64)
    for q in range(1, len(lengths)):
        above, own = items[ends[q - 1] : ends[q]], items[ends[q] : ends[q + 1]]
        same = len(above) == len(own) + 1 and above[-1] == targets[q] and np.array_equal(above[:-1], own)
        groups[q] = groups[q - 1] + (not same)
    return groups


LAYOUT: Final = Layout(
    files=("train_sessions.parquet",),
    side=("test_prefixes.parquet",),
    form=LogFormat(columns=Columns(user=None, item="item", time=None, session=ROW)),
    sessions=SessionRule(by="id"),
    read=_read,
    questions=_questions,
)
"""Two parquet files, the content of the original pickles `all_train_seq.txt` and `test.txt`."""
BY_HAND: Final = (
    "take all_train_seq.txt and test.txt of https://github.com/CCIIPLab/GCE-GNN (pickles: open them only if you trust "
    "them) and write train_sessions.parquet (column seq: lists of items) and test_prefixes.parquet (columns prefix and "
    "target)."
)
CITATION: Final = (
    "Ziyang Wang, Wei Wei, Gao Cong et al. Global Context Enhanced Graph Neural Networks for Session-based "
    "Recommendation. SIGIR 2020. https://doi.org/10.1145/3397271.3401142"
)
