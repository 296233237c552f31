"""Rows of training varied: what is left, in which order, and how often."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession import SessionLog, create
from nextsession.answering import Facts
from nextsession.nn.augmentation import Crop, Drop, ItemDropout, Reorder, in_turn

LENGTHS = st.lists(st.integers(0, 12), max_size=8)
VARIATIONS = [Crop(), Drop(), Reorder(), ItemDropout(chance=0.4)]


def laid_out(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(100, 100 + offsets[-1]), offsets


def rows_of(events, offsets):
    return [events[a:z].tolist() for a, z in itertools.pairwise(offsets)]


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: v.kind)
@given(lengths=LENGTHS, seed=st.integers(0, 50), least=st.integers(1, 3))
def test_what_every_variation_keeps(variation, lengths, seed, least):
    events, offsets = laid_out(lengths)
    before = events.copy()
    new = rows_of(*variation(events, offsets, np.random.default_rng(seed), least))
    assert np.array_equal(events, before)
    assert len(new) == len(lengths)
    for old, row in zip(rows_of(events, offsets), new, strict=True):
        assert set(row) <= set(old)
        assert len(set(row)) == len(row)
        assert len(row) >= min(least, len(old))
        if old and variation.kind != "crop":
            assert row[-1] == old[-1]  # the target of models of whole rows
        if variation.kind == "reorder":
            assert sorted(row) == old
        else:
            assert row == sorted(row)


@given(lengths=LENGTHS, seed=st.integers(0, 50), share=st.sampled_from([0.1, 0.3, 0.6, 0.9]))
def test_shares_are_exact(lengths, seed, share):
    events, offsets = laid_out(lengths)
    rng = np.random.default_rng(seed)
    tenths = round(share * 10)
    for n, row in zip(lengths, rows_of(*Crop(share=share)(events, offsets, rng, 1)), strict=True):
        assert len(row) == (max(1, n * tenths // 10) if n else 0)
        assert row == list(range(row[0], row[0] + len(row))) if row else n == 0
    for n, row in zip(lengths, rows_of(*Drop(share=share)(events, offsets, rng, 1)), strict=True):
        assert n - len(row) == min(n * tenths // 10, max(n - 1, 0))
    old = rows_of(events, offsets)
    for n, was, row in zip(lengths, old, rows_of(*Reorder(share=share)(events, offsets, rng, 1)), strict=True):
        moved = [i for i in range(n) if was[i] != row[i]]
        assert not moved or moved[-1] - moved[0] + 1 <= n * tenths // 10


def many(variation, n, times=20_000):
    events = np.tile(np.arange(n), times)
    offsets = np.arange(times + 1, dtype=np.int64) * n
    counts = Counter(map(tuple, rows_of(*variation(events, offsets, np.random.default_rng(0), 1))))
    return {row: count / times for row, count in counts.items()}


def test_each_outcome_is_as_likely_as_it_should_be():
    crops = many(Crop(share=0.5), 4)
    assert crops == pytest.approx({(0, 1): 1 / 3, (1, 2): 1 / 3, (2, 3): 1 / 3}, abs=0.02)
    drops = many(Drop(share=0.4), 5)
    expected = {tuple(i for i in range(5) if i not in gone): 1 / 6 for gone in itertools.combinations(range(4), 2)}
    assert drops == pytest.approx(expected, abs=0.02)
    orders = many(Reorder(share=0.75), 4)
    assert orders == pytest.approx({(*p, 3): 1 / 6 for p in itertools.permutations(range(3))}, abs=0.02)
    halves = many(Reorder(share=0.5), 4)
    assert halves == pytest.approx({(0, 1, 2, 3): 1 / 2, (1, 0, 2, 3): 1 / 4, (0, 2, 1, 3): 1 / 4}, abs=0.02)
    gone = many(ItemDropout(chance=0.25), 3)
    assert gone == pytest.approx({(0, 1, 2): 9 / 16, (1, 2): 3 / 16, (0, 2): 3 / 16, (2,): 1 / 16}, abs=0.02)


@pytest.mark.parametrize("variation", [Crop(chance=0.3), Drop(chance=0.3)], ids=lambda v: v.kind)
def test_rows_are_varied_as_often_as_asked(variation):
    assert many(variation, 10)[tuple(range(10))] == pytest.approx(0.7, abs=0.02)


def test_in_turn():
    events, offsets = laid_out([10, 3])
    assert in_turn((), 2) is None
    both = in_turn((Crop(share=0.5), Drop(share=0.4)), 2)
    rows = rows_of(*both(events, offsets, np.random.default_rng(1)))
    assert [len(row) for row in rows] == [3, 2]
    again = rows_of(*both(events, offsets, np.random.default_rng(1)))
    assert rows == again
    assert rows != rows_of(*both(events, offsets, np.random.default_rng(2)))


def test_networks_train_on_varied_rows_and_answer_plain_ones():
    log = SessionLog.from_lists([[list("abcdefghij")]] * 3)
    model = create("sasrec", augment=[{"kind": "crop", "share": 0.5}, {"kind": "item_dropout"}])
    model.facts_ = Facts(log.n_items)
    rows = model._rows(log)
    assert rows.batch(np.arange(3)).events.lengths.tolist() == [10, 10, 10]
    assert max(rows.batch(np.arange(3), np.random.default_rng(0)).events.lengths.tolist()) <= 5
    assert model.config.model_validate_json(model.config.model_dump_json()) == model.config
