"""What everybody wants: items by how often they occur."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextsession.config import Runtime, Settings
from nextsession.counting import distinct
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import DotScores


class PopularSettings(Settings):
    """Settings of `Popular`."""

    count: Literal["events", "sessions"] = "events"
    """What is counted: every event, or each session once."""


class Popular(Recommender[PopularSettings]):
    """Ranks items by their number of events (or of sessions that hold them) in the whole log."""

    name = "popular"
    reference = "POP in Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016"
    ordered: ClassVar[bool] = False

    counts_: NDArray[np.int64]  # (V,)

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.counts_ = self._count(log)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        counts = self._count(log)
        counts[: len(self.counts_)] += self.counts_
        self.counts_ = counts

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DotScores:
        return DotScores(np.ones((len(histories), 1), np.float32), self.counts_[:, None].astype(np.float32))

    def _count(self, log: SessionLog) -> NDArray[np.int64]:
        items = log.items
        if self.config.count == "sessions":
            items = distinct(log).items
        return np.bincount(items, minlength=log.n_items)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """One variant for each way of counting."""
        return [{}, {"count": "sessions"}]
