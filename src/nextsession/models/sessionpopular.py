"""S-POP: what this session has seen most, then what everybody wants."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.counting import shares
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores


class SessionPopularSettings(Settings):
    """Settings of `SessionPopular`: there are none."""


class SessionPopular(Recommender[SessionPopularSettings]):
    """Ranks items by how often they occur in the last session, and equal ones by their events in the log.

    The score is the count in the session plus a number below 1 that rises with the support: the
    ranking of `count + s / (1 + s)`, without its loss of digits for large supports `s`.
    """

    name = "sessionpopular"
    reference = "S-POP in Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016"
    ordered: ClassVar[bool] = False

    counts_: NDArray[np.int64]  # (V,)
    shares_: NDArray[np.float32]  # (V,)

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.counts_ = np.bincount(log.items, minlength=log.n_items)
        self.shares_ = shares(self.counts_)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        counts = np.bincount(log.items, minlength=log.n_items)
        counts[: len(self.counts_)] += self.counts_
        self.counts_, self.shares_ = counts, shares(counts)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DenseScores:
        scores = np.tile(self.shares_, (len(histories), 1))
        starts, stops = histories.last_sessions
        _add_counts(scores, histories.items, starts, stops)
        return DenseScores(scores)


@compiled
def _add_counts(
    scores: NDArray[np.float32], items: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> None:
    for b in range(len(starts)):
        for e in range(starts[b], stops[b]):
            scores[b, items[e]] += 1
