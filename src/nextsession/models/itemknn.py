"""Item-kNN: the nearest neighbours of the last item, by the sessions they share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Runtime, Settings
from nextsession.counting import Table, distinct, together, votes
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores


class ItemKNNSettings(Settings):
    """Settings of `ItemKNN`."""

    neighbours: int = Field(default=100, ge=1)
    """How many of the nearest items an item has."""
    regularisation: float = Field(default=20.0, ge=0)
    """Added to the support of both items: without it rare items seem nearest."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the normalisation that falls on the last item; at 1 it ranks like plain counts."""
    official_counts: bool = False
    """Count as GRU4Rec's item-kNN does: support in events instead of sessions, and shared sessions once for each
    event of the last item; the similarity of items that repeat is then not symmetric."""


class ItemKNN(Recommender[ItemKNNSettings]):
    """Ranks items by the regularised cosine of their sessions with those of the last item.

    `sim(i, j) = c_ij / ((s_i + r)^alpha (s_j + r)^(1 - alpha))`, where `c_ij` sessions hold both
    items and `s_i` sessions hold `i`; an item is no neighbour of itself.  All `c_ij` are kept, so
    the model learns on without loss.
    """

    name = "itemknn"
    reference = "Item-KNN in Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016"

    offsets_: NDArray[np.int64]  # (V+1,)
    items_: NDArray[np.int32]  # (P,) nearest first
    counts_: NDArray[np.float32]  # (P,) c_ij
    supports_: NDArray[np.float64]  # (V,) s_i

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        table, self.supports_ = self._count(log)
        self._keep(table)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        table, supports = self._count(log)
        supports[: len(self.supports_)] += self.supports_
        self.supports_ = supports
        old = Table(self.offsets_, self.items_, self.counts_)
        self._keep(old.at_rows(np.arange(len(self.offsets_) - 1), log.n_items).plus(table, log.n_items))

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        table = Table(self.offsets_, self.items_, self.counts_)
        one = np.array([0.0, 1.0])
        found = votes(table, histories, one, self.config.neighbours, histories.n_items)
        some = np.diff(found.offsets) > 0
        last = np.zeros(len(histories), np.int32)
        last[some] = histories.items[histories.event_offsets[1:][some] - 1]
        found.values = self._similarity(np.repeat(last, np.diff(found.offsets)), found.items, found.values)
        return found

    def _count(self, log: SessionLog) -> tuple[Table, NDArray[np.float64]]:
        once = distinct(log)
        counted = log if self.config.official_counts else once
        return together(counted, once), np.bincount(counted.items, minlength=log.n_items).astype(np.float64)

    def _keep(self, table: Table) -> None:
        antecedents = np.repeat(np.arange(len(self.supports_), dtype=np.int32), np.diff(table.offsets))
        nearness = self._similarity(antecedents, table.items, table.values)
        self.offsets_, self.items_, self.counts_ = table.best_first(len(self.supports_), nearness)

    def _similarity(
        self, one: NDArray[np.int32], other: NDArray[np.int32], counts: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        r, alpha = self.config.regularisation, self.config.alpha
        sizes = (self.supports_[one] + r) ** alpha * (self.supports_[other] + r) ** (1 - alpha)
        return (counts / sizes).astype(np.float32)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One variant for each way of counting, and one of few neighbours."""
        return [{}, {"official_counts": True, "alpha": 0.75}, {"neighbours": 3, "regularisation": 0.0}]
