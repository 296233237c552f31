"""Rows end to end: the layout, its views, and batches cut from a log."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.log import SessionLog, offsets_of
from nextsession.nn.batches import Rows
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import shifted
from nextsession.slices import Slices, chunks, latest, prefixes
from nextsession.testing.strategies import logs

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=6)


@given(ROWS)
def test_views_equal_loops(rows: list[list[int]]) -> None:
    jagged = Jagged.of(rows)
    assert jagged.rows.tolist() == [b for b, row in enumerate(rows) for _ in row]
    assert jagged.positions.tolist() == [i for row in rows for i in range(len(row))]
    assert jagged.from_end.tolist() == [len(row) - 1 - i for row in rows for i in range(len(row))]
    assert jagged.mask.sum() == len(jagged.values)
    width = max(map(len, rows), default=0)
    assert jagged.padded(-1).tolist() == [row + [-1] * (width - len(row)) for row in rows]
    assert torch.equal(jagged.unpadded(jagged.padded()), jagged.values)
    assert jagged.last().tolist() == [row[-1] if row else 0 for row in rows]
    vectors = jagged.with_values(jagged.values.float()[:, None])
    assert vectors.sum()[:, 0].tolist() == [sum(row) for row in rows]
    assert vectors.mean()[:, 0].tolist() == pytest.approx([sum(row) / max(1, len(row)) for row in rows])


def test_next_times_end_with_the_question() -> None:
    rows = Jagged(
        torch.tensor([1, 2, 3]), torch.tensor([0, 2, 2, 3]), 2, torch.tensor([10, 20, 5]), torch.tensor([25, 7, 9])
    )
    assert rows.next_times.tolist() == [20, 25, 9]


def _slow_shift(log: SessionLog) -> list[tuple[list[int], list[int]]]:
    found = []
    for a, z in zip(log.event_offsets[:-1], log.event_offsets[1:], strict=True):
        row = log.items[a:z].tolist()
        found.append((row[:-1], row[1:]))
    return found


@given(logs())
def test_shifted_foretells_each_event_from_those_before(log: SessionLog) -> None:
    batch = Batch.of_log(log, log.last_times.clip(0) + 1)
    known, targets, wanted = shifted(batch)
    expected = _slow_shift(log)
    assert [known.events.values[a:z].tolist() for a, z in _ranges(known.events.offsets)] == [x for x, _ in expected]
    assert targets.tolist() == [y for _, ys in expected for y in ys]
    assert wanted is None or wanted.tolist() == [
        bool(log.labels[i])
        for a, z in zip(log.event_offsets[:-1], log.event_offsets[1:], strict=True)
        for i in range(a + 1, z)
    ]
    assert known.events.longest == max((len(x) for x, _ in expected), default=0)
    times = [
        log.times[i]
        for a, z in zip(log.event_offsets[:-1], log.event_offsets[1:], strict=True)
        for i in range(a + 1, z)
    ]
    assert known.events.next_times.tolist() == times, "each event is asked about at the time of the next"


@given(logs())
def test_shifted_keeps_sessions(log: SessionLog) -> None:
    known, _, _ = shifted(Batch.of_log(log, log.last_times.clip(0) + 1))
    starts = set()
    place = 0
    for user in range(len(log)):
        a, z = log.event_offsets[user], log.event_offsets[user + 1]
        for i in range(a, z - 1):
            if i in log.session_offsets[:-1]:
                starts.add(place)
            place += 1
    assert known.sessions.values.tolist() == sorted(starts)
    per_row = [
        ((known.sessions.values >= a) & (known.sessions.values < z)).sum() for a, z in _ranges(known.events.offsets)
    ]
    assert known.sessions.lengths.tolist() == per_row


@given(logs())
def test_rows_of_a_log_equal_the_log(log: SessionLog) -> None:
    asked = log.last_times.clip(0) + 1
    whole = Rows(log, latest(log.event_offsets, 10**9), asked).batch(np.arange(len(log)))
    other = Batch.of_log(log, asked)
    assert torch.equal(whole.events.values, other.events.values)
    assert torch.equal(whole.sessions.values, other.sessions.values)
    assert torch.equal(whole.sessions.offsets, other.sessions.offsets)
    assert torch.equal(whole.session_of_event, torch.from_numpy(log.session_of_event))


@given(st.lists(st.integers(0, 12), max_size=5), st.integers(1, 5))
def test_slices(lengths: list[int], length: int) -> None:
    offsets = offsets_of(np.array(lengths, np.int64))
    newest = latest(offsets, length)
    assert newest.lengths.tolist() == [min(n, length) for n in lengths]
    assert newest.stops.tolist() == offsets[1:].tolist()
    pieces = chunks(offsets, length)
    covered = np.concatenate([np.arange(a, z) for a, z in zip(pieces.starts, pieces.stops, strict=True)] or [[]])
    assert sorted(covered) == list(range(offsets[-1]))
    starts = prefixes(offsets, length)
    assert len(starts) == sum(max(0, n - 1) for n in lengths)
    assert (starts.lengths >= min(2, length)).all()


@given(st.lists(st.integers(0, 12), max_size=5), st.integers(2, 5))
def test_chunks_of_a_shift_foretell_each_event_once(lengths: list[int], length: int) -> None:
    offsets = offsets_of(np.array(lengths, np.int64))
    pieces = chunks(offsets, length, length - 1)
    targets = [i for a, z in zip(pieces.starts, pieces.stops, strict=True) for i in range(a + 1, z)]
    assert sorted(targets) == [i for a, z in itertools.pairwise(offsets) for i in range(a + 1, z)]


def test_order_fills_batches_by_rows_and_by_tokens() -> None:
    lengths = np.array([3, 9, 1, 4, 4, 2, 30])
    log = SessionLog.from_lists([[["a"] * n] for n in lengths])
    rows = Rows(log, latest(log.event_offsets, 100))
    rng = np.random.default_rng(0)
    for tokens in (None, 10):
        batches = rows.order(rng, 3, tokens)
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
        assert all(len(b) <= 3 for b in batches)
        assert tokens is None or all(lengths[b].sum() <= tokens or len(b) == 1 for b in batches)


def test_slices_of_no_rows() -> None:
    empty = np.zeros(1, np.int64)
    assert len(latest(empty, 3)) == len(chunks(empty, 3)) == len(prefixes(empty, 3)) == 0
    assert len(Slices(np.array([0]), np.array([1])).longer_than(1)) == 0


def _ranges(offsets: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
