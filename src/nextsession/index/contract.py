"""ItemIndex: what every kind of index does, what it promises, and how the promise is measured."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.data.log import offsets_of
from nextsession.errors import ArtifactError, ModelError
from nextsession.mapping import FEW as ROWS
from nextsession.mapping import RowReader
from nextsession.scores import DotScores, Limits, TopK
from nextsession.selection import answers_of_sparse

DEPTH = 100
"""Recall is measured at this length of list."""
FEW = 0.02
"""Where a filter leaves a smaller share of the items than this, they are looked through one by one."""
_ALL = np.ones(0, np.bool_)


class ItemIndex(ABC):
    """Finds the items whose vectors have the largest dot products with a query.

    An index only chooses which items are looked at: scores are exact, ties go as in all lists, and
    barred items never appear.  A list is short only where fewer items are left.  An index is never
    changed; where items change another is built and takes its place whole.
    """

    kind: ClassVar[str]
    recall: float = 1.0
    """Share of the exact best `DEPTH` that was found, measured when it was built, on queries it was not tuned on."""
    usual: TopK | None = None
    """What the model lists for nobody, `(1, n)`, found exactly when it was built; None: nobody noted it."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """Take the vectors, `(V, D)`: one row an item; kept, not copied."""
        self.vectors = vectors
        self._reader = RowReader(vectors)

    # -- what kinds of index implement ----------------------------------------------------------

    @classmethod
    @abstractmethod
    def build(
        cls, vectors: NDArray[np.float32], queries: NDArray[np.float32], *, least_recall: float, seed: int = 0
    ) -> Self:
        """Build an index.

        Args:
            vectors: One row an item, `(V, D)`.
            queries: Such as will be asked, `(Q, D)`: what the model makes of histories.
            least_recall: What is promised.
            seed: Chooses among equally meant indexes.

        Raises:
            ArtifactError: The promise cannot be kept; the message says what was reached.
        """

    @abstractmethod
    def _candidates(
        self, queries: NDArray[np.float32], k: int, limits: Limits
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return codes of at least about `k` good items for each query beside those that are barred, all allowed.

        Returns:
            Where the codes of each query begin, `(B + 1,)`, and the codes of all, one query after the other.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything but the vectors into a folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, vectors: NDArray[np.float32]) -> Self:
        """Read what `save` wrote, for the same vectors."""

    # -- what they have in common ---------------------------------------------------------------

    @final
    def search(self, queries: NDArray[np.float32], k: int, limits: Limits | None = None) -> TopK:
        """Return the best `k` items of every query, `(B, k)`, best first."""
        bounds = limits or Limits.none(len(queries))
        n_items, allowed = len(self.vectors), bounds.allowed
        left = n_items if allowed is None else int(np.count_nonzero(allowed))
        few = left < FEW * n_items
        if few:
            assert allowed is not None
            some = np.flatnonzero(allowed).astype(np.int32)
            offsets, codes = len(some) * np.arange(len(queries) + 1), np.tile(some, len(queries))
        else:
            offsets, codes = self._candidates(queries, k, bounds)
        k = min(k, n_items)
        check_candidates(offsets, codes, len(queries), n_items)
        if len(codes) <= ROWS:
            vectors, places = self._reader.rows(codes), np.arange(len(codes), dtype=np.int32)
        else:
            vectors, places = self.vectors, codes
        items, scores, short, sane = ranked(
            queries,
            vectors,
            places,
            offsets,
            codes,
            n_items,
            k,
            bounds.offsets,
            bounds.barred,
            _ALL if allowed is None else allowed,
        )
        if not sane:
            raise ModelError("A score is NaN; scores must be numbers, or -inf for an item that cannot be scored.")
        if short and not few:
            for row in np.flatnonzero(items[:, -1] < 0).tolist():
                exact = DotScores(queries[row : row + 1], self.vectors).top(k, bounds.rows(row, row + 1))
                items[row], scores[row] = exact.items[0], exact.scores[0]
        return TopK(items, scores)


class Exact(ItemIndex):
    """Multiplies every item with every query, block by block: the reference, and the choice for small catalogues."""

    kind = "exact"

    @classmethod
    def build(
        cls, vectors: NDArray[np.float32], queries: NDArray[np.float32], *, least_recall: float, seed: int = 0
    ) -> Self:
        """Keep the vectors; nothing else is needed."""
        return cls(vectors)

    def _candidates(
        self, queries: NDArray[np.float32], k: int, limits: Limits
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        items = DotScores(queries, self.vectors).top(k, limits).items
        there = items >= 0
        return offsets_of(there.sum(axis=1)), items[there]

    def save(self, folder: Path) -> None:
        """Write nothing: the vectors are the model's."""

    @classmethod
    def load(cls, folder: Path, vectors: NDArray[np.float32]) -> Self:
        """Keep the vectors."""
        return cls(vectors)


@compiled_fast
def _products(
    query: NDArray[np.float32], vectors: NDArray[np.float32], places: NDArray[np.int32], out: NDArray[np.float32]
) -> None:
    """Write the products of a query with some of the vectors."""
    for i in range(len(places)):
        row, product = vectors[places[i]], np.float32(0)
        for d in range(len(query)):
            product += query[d] * row[d]
        out[i] = product


@compiled
def check_candidates(offsets: NDArray[np.int64], codes: NDArray[np.int32], queries: int, n_items: int) -> None:
    """See that there are candidates of each query, those of query `b` at `offsets[b]..offsets[b + 1]`.

    Raises:
        ValueError: These are no candidates: memory that is not theirs would be read.
    """
    if len(offsets) != queries + 1 or offsets[0] != 0 or offsets[-1] != len(codes):
        raise ValueError("the candidates of an index do not begin and end where it says")
    for b in range(queries):
        if offsets[b] > offsets[b + 1]:
            raise ValueError("the candidates of an index do not begin and end where it says")
    for code in codes:
        if code < 0 or code >= n_items:
            raise ValueError("a candidate of an index is no item")


@compiled
def ranked(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    places: NDArray[np.int32],
    offsets: NDArray[np.int64],
    codes: NDArray[np.int32],
    n_items: int,
    k: int,
    barred_offsets: NDArray[np.int64],
    barred: NDArray[np.int32],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32], bool, bool]:
    """Return the best `k` of the candidates of each query, whose vectors are at `places` of `vectors`.

    Returns:
        Codes and scores `(B, k)`, whether a list is short, and False if a score is NaN (then the rest means nothing).
    """
    values = np.empty(len(codes), np.float32)
    for b in range(len(queries)):
        a, z = offsets[b], offsets[b + 1]
        _products(queries[b], vectors, places[a:z], values[a:z])
    ends, nothing = np.zeros(len(queries) + 1, np.int64), np.zeros(0, np.int32)
    items, scores, _, _, sane = answers_of_sparse(
        offsets, codes, values, n_items, k, ends, nothing, barred_offsets, barred, allowed
    )
    short = False
    for b in range(len(queries)):
        short |= k > 0 and items[b, k - 1] < 0
    return items, scores, short, sane


def best_of(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the exact best `DEPTH` items of queries, `(Q, DEPTH)`, or all if there are fewer."""
    return DotScores(queries, vectors).top(min(DEPTH, len(vectors))).items


def share_found(index: ItemIndex, queries: NDArray[np.float32], best: NDArray[np.int32]) -> float:
    """Return the share of the best items of queries that an index finds."""
    found = index.search(queries, best.shape[1]).items
    hits = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(best, found, strict=True))
    return hits / max(1, best.size)


def recall_of(index: ItemIndex, queries: NDArray[np.float32]) -> float:
    """Return the share of the exact best `DEPTH` items of the queries that an index finds."""
    return share_found(index, queries, best_of(index.vectors, queries))


def kept_promise(index: ItemIndex, queries: NDArray[np.float32], least_recall: float) -> float:
    """Measure the recall of an index, and return it.

    Raises:
        ArtifactError: It is less than was promised.
    """
    reached = recall_of(index, queries)
    if reached < least_recall:
        raise ArtifactError(
            f"The index {index.kind!r} finds {reached:.3f} of the best {DEPTH} items, and {least_recall:g} was "
            "promised; promise less, or search exactly."
        )
    return reached
