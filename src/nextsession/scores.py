"""Scores of items for questions, in the three forms that models produce them.

A model answers a batch of `B` questions over `V` items with one of

* `DenseScores`: the matrix `(B, V)` itself;
* `SparseScores`: only the items that have a score at all, as counters and neighbours give them;
* `DotScores`: queries `(B, D)` and item vectors `(V, D)`, whose products are the scores.

All answer the same questions: the best `k` (`top`), how many items beat or equal a target
(`ranks`), the scores of given items (`at`).  None ever builds the whole matrix unless it was given.

An item without a score (`-inf`) is never listed, and as a target it is never found.  Ties in lists
go by a fixed pseudo-random order of the codes (`tie_key`), so no id is favoured for being small;
ranks are counted, and ties are the business of the evaluation.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import ModelError
from nextsession.selection import (
    answers_of_dense,
    answers_of_sparse,
    best_products,
    place_in_ties,
    place_in_ties_of_all,
    scores_in_sparse,
)

BLOCK_BYTES = 64_000_000
"""Most memory for one block of scores, `(questions, items)` float32."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Which items a list may hold.

    `barred[offsets[b]:offsets[b + 1]]` are codes that question `b` must not get; `allowed`, if
    given, says for each item whether anyone may get it.
    """

    offsets: NDArray[np.int64]  # (B+1,)
    barred: NDArray[np.int32]
    allowed: NDArray[np.bool_] | None = None  # (V,)

    @classmethod
    def none(cls, n_questions: int) -> "Limits":
        """No limits."""
        return cls(np.zeros(n_questions + 1, np.int64), np.zeros(0, np.int32))

    def rows(self, start: int, stop: int) -> "Limits":
        """Return the limits of questions `start..stop`."""
        offsets = self.offsets[start : stop + 1]
        return Limits(offsets - offsets[0], self.barred[offsets[0] : offsets[-1]], self.allowed)


@dataclass(frozen=True, eq=False)
class Targets:
    """Items whose rank is asked: those of question `b` are `items[offsets[b]:offsets[b + 1]]`; `-1` is unknown."""

    offsets: NDArray[np.int64]  # (B+1,)
    items: NDArray[np.int32]  # (T,)

    def rows(self, start: int, stop: int) -> "Targets":
        """Return the targets of questions `start..stop`."""
        offsets = self.offsets[start : stop + 1]
        return Targets(offsets - offsets[0], self.items[offsets[0] : offsets[-1]])


@dataclass(frozen=True, eq=False)
class RankCounts:
    """For each target how many items score higher, and how many the same (itself included).

    `equal` is 0 for a target that cannot be found: unknown, barred, or without a score.
    """

    greater: NDArray[np.int64]  # (T,)
    equal: NDArray[np.int64]  # (T,)


@dataclass(frozen=True, eq=False)
class TopK:
    """The best items of each question: codes `(B, k)` best first, scores `(B, k)`; short lists end in -1, -inf."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class Scores(ABC):
    """The scores of `V` items for `B` questions."""

    n_items: int

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of questions."""

    @abstractmethod
    def answer(self, k: int, targets: Targets | None, limits: Limits) -> tuple[TopK, RankCounts]:
        """Return the best `k` of every question and the rank counts of the targets, in one pass.

        Raises:
            ModelError: A score is NaN.
        """

    @abstractmethod
    def at(self, wanted: Targets) -> NDArray[np.float32]:
        """Return the scores of the given items, `(T,)`; `-inf` where there is none."""

    @abstractmethod
    def dense(self) -> NDArray[np.float32]:
        """Return the matrix `(B, V)`, `-inf` where there is no score: the reference form."""

    def top(self, k: int, limits: Limits | None = None) -> TopK:
        """Return the best `k` of every question."""
        return self.answer(k, None, limits or Limits.none(len(self)))[0]

    def ranks(self, targets: Targets, limits: Limits | None = None) -> RankCounts:
        """Return how many items beat or equal each target."""
        return self.answer(0, targets, limits or Limits.none(len(self)))[1]


class DenseScores(Scores):
    """The matrix itself, `(B, V)` float32, given away: it is changed in place."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        """Take the matrix over."""
        self.values = values
        self.n_items = values.shape[1]

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.values)

    def dense(self) -> NDArray[np.float32]:
        """Return the matrix."""
        return self.values

    def at(self, wanted: Targets) -> NDArray[np.float32]:
        """Return the scores of the given items, `(T,)`."""
        rows = np.repeat(np.arange(len(self)), np.diff(wanted.offsets))
        found = self.values[rows, np.maximum(wanted.items, 0)]
        return np.where(wanted.items >= 0, found, np.float32(-np.inf))

    def answer(self, k: int, targets: Targets | None, limits: Limits) -> tuple[TopK, RankCounts]:
        """Answer from the matrix."""
        wanted = targets or Targets(np.zeros(len(self) + 1, np.int64), np.zeros(0, np.int32))
        return _answer_dense(self.values, k, wanted, limits)


class DotScores(Scores):
    """Scores that are dot products of queries `(B, D)` with item vectors `(V, D)`, both float32.

    A bias is one more column of the items beside a column of ones of the queries.
    """

    def __init__(self, queries: NDArray[np.float32], items: NDArray[np.float32]) -> None:
        """Take queries and item vectors of the same width."""
        self.queries = np.ascontiguousarray(queries, dtype=np.float32)
        self.items = np.ascontiguousarray(items, dtype=np.float32)
        self.n_items = len(items)

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.queries)

    def dense(self) -> NDArray[np.float32]:
        """Multiply everything."""
        return self.queries @ self.items.T

    def at(self, wanted: Targets) -> NDArray[np.float32]:
        """Return the scores of the given items, `(T,)`."""
        rows = np.repeat(np.arange(len(self)), np.diff(wanted.offsets))
        known = np.maximum(wanted.items, 0)
        found = np.einsum("td,td->t", self.queries[rows], self.items[known])
        return np.where(wanted.items >= 0, found, np.float32(-np.inf)).astype(np.float32)

    def answer(self, k: int, targets: Targets | None, limits: Limits) -> tuple[TopK, RankCounts]:
        """Answer block by block; a target's own score is read from the block it is compared with."""
        if targets is None or not len(targets.items):
            return self._top(min(k, self.n_items), limits), RankCounts(np.zeros(0, np.int64), np.zeros(0, np.int64))
        parts = []
        buffer = np.empty((self._step(), self.n_items), np.float32)
        for start, stop in self._blocks():
            block = np.matmul(self.queries[start:stop], self.items.T, out=buffer[: stop - start])
            parts.append(_answer_dense(block, k, targets.rows(start, stop), limits.rows(start, stop)))
        return _joined(parts, k)

    def _top(self, k: int, limits: Limits) -> TopK:
        allowed = np.ones(0, np.bool_) if limits.allowed is None else limits.allowed
        items, scores, sane = best_products(self.queries, self.items, k, limits.offsets, limits.barred, allowed)
        if not sane:
            raise ModelError("A score is NaN; scores must be numbers, or -inf for an item that cannot be scored.")
        return TopK(items, scores)

    def _step(self) -> int:
        return max(1, min(len(self), 256, BLOCK_BYTES // max(1, 4 * self.n_items)))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        step = self._step()
        for start in range(0, max(1, len(self)), step):
            yield start, min(start + step, len(self))


class SparseScores(Scores):
    """Only the items that have a score: those of question `b` are at `offsets[b]..offsets[b + 1]`, no code twice."""

    def __init__(
        self, offsets: NDArray[np.int64], items: NDArray[np.int32], values: NDArray[np.float32], n_items: int
    ) -> None:
        """Take candidates of every question, end to end."""
        self.offsets, self.items, self.values, self.n_items = offsets, items, values, n_items

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.offsets) - 1

    def dense(self) -> NDArray[np.float32]:
        """Spread the candidates over `(B, V)`."""
        matrix = np.full((len(self), self.n_items), -np.inf, np.float32)
        matrix[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.items] = self.values
        return matrix

    def at(self, wanted: Targets) -> NDArray[np.float32]:
        """Return the scores of the given items, `(T,)`."""
        ends = np.zeros(self.n_items, np.int64)
        return scores_in_sparse(self.offsets, self.items, self.values, wanted.offsets, wanted.items, ends)

    def answer(self, k: int, targets: Targets | None, limits: Limits) -> tuple[TopK, RankCounts]:
        """Answer from the candidates alone."""
        wanted = targets or Targets(np.zeros(len(self) + 1, np.int64), np.zeros(0, np.int32))
        allowed = np.ones(0, np.bool_) if limits.allowed is None else limits.allowed
        k = min(k, self.n_items)
        items, scores, greater, equal, sane = answers_of_sparse(
            self.offsets, self.items, self.values, self.n_items, k,
            wanted.offsets, wanted.items, limits.offsets, limits.barred, allowed,
        )  # fmt: skip
        if not sane:
            raise ModelError("A score is NaN; scores must be numbers, or -inf for an item that cannot be scored.")
        return TopK(items, scores), RankCounts(greater, equal)


def tie_key(code: int) -> int:
    """Return the place of an item in the fixed pseudo-random order that breaks ties in lists.

    The finaliser of MurmurHash3, a bijection of 32 bits: different codes never collide.
    """
    return int(place_in_ties(np.uint32(code)))


def tie_keys(n_items: int) -> NDArray[np.uint32]:
    """Return `tie_key` of the codes `0..n_items`, as an array."""
    return place_in_ties_of_all(n_items)


def top_slowly(scores: NDArray[np.float32], k: int) -> list[int]:
    """Rank one row of scores by the rule, one obvious step at a time: for tests, and for reading."""
    found = [i for i, s in enumerate(scores.tolist()) if s > -np.inf]
    return sorted(found, key=lambda i: (-scores[i], tie_key(i)))[:k]


def _answer_dense(values: NDArray[np.float32], k: int, targets: Targets, limits: Limits) -> tuple[TopK, RankCounts]:
    allowed = np.ones(0, np.bool_) if limits.allowed is None else limits.allowed
    k = min(k, values.shape[1])
    items, scores, greater, equal, sane = answers_of_dense(
        values, k, targets.offsets, targets.items, limits.offsets, limits.barred, allowed
    )
    if not sane:
        raise ModelError("A score is NaN; scores must be numbers, or -inf for an item that cannot be scored.")
    return TopK(items, scores), RankCounts(greater, equal)


def _joined(parts: list[tuple[TopK, RankCounts]], k: int) -> tuple[TopK, RankCounts]:
    if len(parts) == 1:
        return parts[0]
    top = TopK(np.concatenate([t.items for t, _ in parts]), np.concatenate([t.scores for t, _ in parts]))
    counts = RankCounts(np.concatenate([c.greater for _, c in parts]), np.concatenate([c.equal for _, c in parts]))
    return top, counts
