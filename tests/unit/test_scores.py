import numpy as np
import pytest

from nextsession import scores as module
from nextsession.errors import ModelError
from nextsession.scores import DenseScores, DotScores, Limits, SparseScores, Targets, tie_key, top_slowly

ONE = np.array([0, 1], np.int64)


def targets(*items: int) -> Targets:
    return Targets(np.array([0, len(items)]), np.array(items, np.int32))


def forms(row):
    """One row of scores in each form."""
    row = np.array(row, np.float32)
    yield DenseScores(row[None, :].copy())
    yield DotScores(np.ones((1, 1), np.float32), row[:, None])
    held = np.flatnonzero(row > -np.inf).astype(np.int32)
    yield SparseScores(np.array([0, len(held)]), held, row[held], len(row))


def test_counts_of_a_row_are_those_one_can_see():
    for scores in forms([5, 3, 3, 1]):
        counts = scores.ranks(targets(0, 1, 3, -1))
        assert counts.greater.tolist() == [0, 1, 3, 4]
        assert counts.equal.tolist() == [1, 2, 1, 0]


def test_an_item_without_score_is_neither_listed_nor_found():
    row = [-np.inf, 2, -np.inf, 1]
    for scores in list(forms(row))[::2]:  # dot products cannot leave items out
        assert scores.top(4).items.tolist() == [[1, 3, -1, -1]]
        assert scores.ranks(targets(0)).equal.tolist() == [0]


def test_barred_and_disallowed_items_are_neither_listed_nor_counted():
    limits = Limits(ONE, np.array([0], np.int32), np.array([True, True, False, True]))
    for scores in forms([9, 3, 8, 1]):
        top, counts = scores.answer(4, targets(0, 1, 2, 3), limits)
        assert top.items[0][:2].tolist() == [1, 3]
        assert counts.equal.tolist() == [0, 1, 0, 1]
        assert counts.greater.tolist()[1::2] == [0, 1]


@pytest.mark.parametrize("place", [0, 40, 99])
def test_nan_is_refused_in_every_form(place):
    row = np.arange(100, dtype=np.float32)
    row[place] = np.nan
    for scores in (
        DenseScores(row[None, :].copy()),
        DotScores(np.ones((1, 1), np.float32), row[:, None]),
        SparseScores(np.array([0, 100]), np.arange(100, dtype=np.int32), row, 100),
    ):
        with pytest.raises(ModelError, match="NaN"):
            scores.answer(3, None, Limits.none(1))


def test_tied_lists_go_by_the_tie_key_and_not_by_the_code():
    row = np.zeros(1000, np.float32)
    expected = sorted(range(1000), key=tie_key)[:20]
    assert expected != list(range(20))
    for scores in forms(row):
        assert scores.top(20).items[0].tolist() == expected


def test_tie_keys_never_collide():
    assert len({tie_key(code) for code in range(20_000)}) == 20_000


def test_a_constant_row_puts_each_target_among_all():
    for scores in forms(np.full(7, 0.5)):
        counts = scores.ranks(targets(0, 6))
        assert counts.greater.tolist() == [0, 0]
        assert counts.equal.tolist() == [7, 7]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(30, 4)).astype(np.float32)
    wanted = Targets(np.arange(51), rng.integers(0, 30, 50).astype(np.int32))
    limits = Limits(np.arange(51), rng.integers(0, 30, 50).astype(np.int32))
    whole = DotScores(queries, items).answer(5, wanted, limits)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 30 * 7)
    parts = DotScores(queries, items).answer(5, wanted, limits)
    assert np.array_equal(whole[0].items, parts[0].items)
    assert np.array_equal(whole[1].greater, parts[1].greater)


def test_no_question_is_answered_by_nothing():
    nothing = Limits.none(0)
    for scores in (
        DenseScores(np.zeros((0, 3), np.float32)),
        DotScores(np.zeros((0, 2), np.float32), np.zeros((3, 2), np.float32)),
        SparseScores(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 3),
    ):
        top, counts = scores.answer(2, None, nothing)
        assert top.items.shape == (0, 2)
        assert len(counts.greater) == 0


def test_long_rows_list_the_same_items_as_a_sort():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(20, 5000)).astype(np.float32)
    matrix[:10] = matrix[:10].round(1)  # many ties
    for k in (1, 20, 300):
        expected = [top_slowly(row, k) for row in matrix]
        assert DenseScores(matrix.copy()).top(k).items.tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 16, 17, 33])
@pytest.mark.parametrize("share", [None, 0.5, 0.002])
def test_the_best_products_are_those_of_the_matrix(n, share):
    rng = np.random.default_rng(n)
    queries = rng.integers(-3, 4, (n, 7)).astype(np.float32)  # whole numbers: sums are exact, and many are equal
    vectors = rng.integers(-3, 4, (1200, 7)).astype(np.float32)
    vectors[rng.random(1200) < 0.1, 6] = -np.inf
    queries[:, 6] = 1
    sizes = rng.integers(0, 40, n)
    barred = rng.integers(-1, 1200, sizes.sum()).astype(np.int32)
    allowed = None if share is None else rng.random(1200) < share
    limits = Limits(np.append(0, np.cumsum(sizes)), barred, allowed)
    for k in (0, 1, 30, 1300):
        top = DotScores(queries, vectors).top(k, limits)
        plain = DenseScores(queries @ vectors.T).top(k, limits)
        assert np.array_equal(top.items, plain.items)
        assert np.array_equal(top.scores, plain.scores)
        assert np.array_equal(limits.barred, barred)


@pytest.mark.parametrize("n", [1, 3, 20])
def test_a_product_that_is_no_number_is_noticed(n):
    queries, vectors = np.ones((n, 5), np.float32), np.ones((1000, 5), np.float32)
    vectors[777, 2] = np.nan
    with pytest.raises(ModelError, match="A score is NaN"):
        DotScores(queries, vectors).top(3)
