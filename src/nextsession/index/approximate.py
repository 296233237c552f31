"""What approximate indexes have in common: they look as hard as their promise asks for, and no harder."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import offsets_of
from nextsession.errors import ArtifactError
from nextsession.index.contract import ItemIndex, best_of, kept_promise, share_found
from nextsession.scores import DotScores, Limits

EFFORTS = (
    *range(4, 17), 18, 20, 22, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048,
)  # fmt: skip
_MARGIN = 0.004
"""How much better than promised the effort is chosen, since it is chosen on other queries than it is measured on."""
_FAR = 1000.0
"""A vector with a number so many times as large as usual is of an item that is never wanted: models mark them so."""


class Approximate(ItemIndex):
    """An index that finds most of the best items, the more the harder it looks."""

    effort: int = EFFORTS[0]
    """How hard it looks."""

    @classmethod
    def build(
        cls, vectors: NDArray[np.float32], queries: NDArray[np.float32], *, least_recall: float, seed: int = 0
    ) -> Self:
        """Build an index, and choose how hard it looks: no harder than the promise asks for."""
        if len(queries) < 2:
            raise ArtifactError(f"The recall of an index is measured on queries; there are {len(queries)}.")
        self = cls(vectors)
        size = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
        self._make(np.flatnonzero(size <= _FAR * max(float(np.median(size)), 1e-9)), queries, seed)
        tuned, measured = queries[::2], queries[1::2]
        truth = best_of(vectors, tuned)
        for self.effort in EFFORTS:
            if share_found(self, tuned, truth) >= min(1.0, least_recall + _MARGIN):
                break
        self.recall = kept_promise(self, measured, least_recall)
        return self

    @abstractmethod
    def _make(self, codes: NDArray[np.int64], queries: NDArray[np.float32], seed: int) -> None:
        """Build it of the vectors of the items that may be wanted, for queries like these."""

    def _with_unlike(
        self,
        found: list[NDArray[np.int32]],
        unlike: Sequence[int],
        queries: NDArray[np.float32],
        k: int,
        limits: Limits,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Join what was found, after looking at every item for queries unlike all that the index was made for."""
        for row in unlike:  # such as nobody's
            top = DotScores(queries[row : row + 1], self.vectors).top(k, limits.rows(row, row + 1)).items[0]
            found[row] = top[top >= 0]
        return offsets_of([len(codes) for codes in found]), np.concatenate([np.zeros(0, np.int32), *found])
