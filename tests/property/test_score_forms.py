"""The three forms of scores give what a sort of the dense matrix gives."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from nextsession.scores import DenseScores, DotScores, Limits, Scores, SparseScores, Targets, top_slowly


def offsets(lists):
    return np.cumsum([0, *map(len, lists)]).astype(np.int64)


def flat(lists):
    return np.array([x for row in lists for x in row], dtype=np.int32)


@st.composite
def problems(draw):
    """Small whole-number scores (so there are ties), holes, targets, barred and allowed items, and a k."""
    n_items = draw(st.sampled_from([1, 2, 5, 40, 200]))
    n_questions = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0, 2, 50]))
    matrix = rng.integers(-spread, spread + 1, (n_questions, n_items)).astype(np.float32)
    matrix[rng.random(matrix.shape) < draw(st.sampled_from([0, 0.3, 1]))] = -np.inf
    code = st.integers(-1, n_items - 1)
    rows = st.lists(st.lists(code, max_size=4, unique=True), min_size=n_questions, max_size=n_questions)
    targets, barred = draw(rows), draw(rows)
    allowed = draw(st.sampled_from([None, "some"]))
    mask = None if allowed is None else rng.random(n_items) < 0.5
    k = draw(st.integers(0, n_items + 3))
    return matrix, Targets(offsets(targets), flat(targets)), Limits(offsets(barred), flat(barred), mask), k


def answer_slowly(matrix, targets: Targets, limits: Limits, k: int):
    """Bar, sort and count, one question at a time."""
    lists, counts = [], []
    for q, row in enumerate(matrix.copy()):
        for item in limits.barred[limits.offsets[q] : limits.offsets[q + 1]]:
            if item >= 0:
                row[item] = -np.inf
        if limits.allowed is not None:
            row[~limits.allowed] = -np.inf
        lists.append(top_slowly(row, k))
        for target in targets.items[targets.offsets[q] : targets.offsets[q + 1]]:
            own = row[target] if target >= 0 else -np.inf
            found = own > -np.inf
            counts.append((int((row > own).sum()), int((row == own).sum())) if found else (len(row), 0))
    return lists, counts


def as_sparse(matrix) -> SparseScores:
    rows = [np.flatnonzero(row > -np.inf).astype(np.int32) for row in matrix]
    items = np.concatenate([np.zeros(0, np.int32), *rows])
    values = np.concatenate([np.zeros(0, np.float32), *(m[r] for m, r in zip(matrix, rows, strict=True))])
    return SparseScores(offsets(rows), items, values, matrix.shape[1])


def check(scores: Scores, problem) -> None:
    matrix, targets, limits, k = problem
    lists, counts = answer_slowly(matrix, targets, limits, k)
    top, ranks = scores.answer(k, targets, limits)
    assert [row[row >= 0].tolist() for row in top.items] == lists
    assert top.items.shape == top.scores.shape == (len(matrix), min(k, matrix.shape[1]))
    for q, row in enumerate(top.items):
        held = row >= 0
        assert np.array_equal(top.scores[q][held], matrix[q][row[held]])
        assert np.all(top.scores[q][~held] == -np.inf)
    assert list(zip(ranks.greater.tolist(), ranks.equal.tolist(), strict=True)) == counts


@given(problems())
@settings(max_examples=150, deadline=None)
def test_dense_scores_agree_with_a_sort(problem):
    check(DenseScores(problem[0].copy()), problem)


@given(problems())
@settings(max_examples=150, deadline=None)
def test_sparse_scores_agree_with_a_sort(problem):
    check(as_sparse(problem[0]), problem)


@given(problems(), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_dot_scores_agree_with_a_sort(problem, dim):
    matrix, targets, limits, k = problem
    rng = np.random.default_rng(matrix.size + dim)
    queries = rng.integers(-3, 4, (len(matrix), dim)).astype(np.float32)
    items = rng.integers(-3, 4, (matrix.shape[1], dim)).astype(np.float32)
    check(DotScores(queries, items), (queries @ items.T, targets, limits, k))


@given(problems())
@settings(max_examples=100, deadline=None)
def test_scores_of_given_items_are_those_of_the_matrix(problem):
    matrix, targets, _, _ = problem
    rows = np.repeat(np.arange(len(matrix)), np.diff(targets.offsets))
    expected = [matrix[q, i] if i >= 0 else -np.inf for q, i in zip(rows, targets.items, strict=True)]
    for scores in (DenseScores(matrix.copy()), as_sparse(matrix)):
        assert scores.at(targets).tolist() == expected
        assert np.array_equal(scores.dense(), matrix)
