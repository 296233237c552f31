"""GRU4Rec on the first clicks of RSC15, against what the authors' code reaches there with the same settings.

Per-event protocol as in `test_neighbours_real`: every event after the first of a test session is a
target, all items compete; test events of items unknown to the training log are left out.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nextsession import Cases, Runtime, SessionLog, Vocabulary
from nextsession.data.log import offsets_of
from nextsession.models.gru4rec import GRU4Rec

pytestmark = pytest.mark.slow


def clicks(part: str) -> pl.DataFrame:
    root = os.environ.get("NEXTSESSION_DATA")
    file = Path(root or "") / "rsc15_100k" / f"yoochoose-clicks-100k_{part}.txt"
    if root is None or not file.is_file():
        pytest.skip("set NEXTSESSION_DATA to the folder that holds rsc15_100k/")
    time_ms = (pl.col("Time") * 1000).round().cast(pl.Int64)
    table = pl.read_csv(file, separator="\t").select(session="SessionId", item="ItemId", time=time_ms)
    return table.sort("session", "time", maintain_order=True)


def log_of(table: pl.DataFrame, vocabulary: Vocabulary) -> SessionLog:
    offsets = offsets_of(table.group_by("session", maintain_order=True).len()["len"].to_numpy())
    codes = vocabulary.encode(table["item"].to_numpy())
    return SessionLog(codes, table["time"].to_numpy(), offsets, np.arange(len(offsets)), vocabulary)


def every_prefix(log: SessionLog) -> Cases:
    rows = [(start, end) for start, stop in zip(log.session_offsets, log.session_offsets[1:], strict=False)
            for end in range(start + 1, stop)]  # fmt: skip
    starts, ends = np.array(rows).T
    events = np.concatenate([np.arange(start, end) for start, end in rows])
    each = np.arange(len(rows) + 1)
    histories = SessionLog(log.items[events], log.times[events], offsets_of(ends - starts), each, log.vocabulary)
    return Cases(histories, log.times[ends], log.items[ends], each, each[:-1])


@pytest.fixture(scope="module")
def rsc15() -> tuple[SessionLog, Cases]:
    table = clicks("train_full")
    train = log_of(table, Vocabulary.of(table["item"].to_numpy()))
    known = clicks("test").filter(pl.col("item").is_in(train.vocabulary.ids.tolist()))
    return train, every_prefix(log_of(known.filter(pl.len().over("session") > 1), train.vocabulary))


def quality(model: GRU4Rec, cases: Cases) -> tuple[float, float]:
    """Recall@20 and MRR@20; ties count half."""
    counts = model.rank(cases).counts
    place = 1 + counts.greater + (counts.equal - 1) / 2
    return float(np.mean(place <= 20)), float(np.mean(np.where(place <= 20, 1 / place, 0)))


def test_three_epochs_with_the_published_settings(rsc15):
    train, cases = rsc15
    reached = [quality(GRU4Rec(epochs=3).fit(train, runtime=Runtime(seed=seed)), cases) for seed in range(3)]
    recall, mrr = np.mean(reached, axis=0)
    assert recall >= 0.653
    assert mrr >= 0.351


def test_without_extra_negatives_and_correction_it_is_clearly_worse(rsc15):
    train, cases = rsc15
    bare = {"n_sample": 0, "logq": 0.0, "embedding": "separate"}
    whole, without = (quality(GRU4Rec(epochs=3, **changed).fit(train), cases)[0] for changed in ({}, bare))
    assert without < 0.85 * whole


def test_large_batches_need_more_epochs(rsc15):
    train, cases = rsc15
    model = GRU4Rec(batch_size=512, learning_rate=0.05, epochs=13).fit(train)
    recall, mrr = quality(model, cases)
    assert recall >= 0.985 * 0.685
    assert mrr >= 0.985 * 0.355
