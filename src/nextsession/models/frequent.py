"""Everybody's own habits: what this person took most often, then what everybody wants."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.counting import shares
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores


class FrequentSettings(Settings):
    """Settings of `Frequent`."""

    decay: float = Field(default=1.0, gt=0, le=1)
    """An event counts this much less for each session between it and the end of the history; at 1 all count alike."""
    popularity: float = Field(default=0.5, ge=0, lt=1)
    """Score of the most popular item of the log for those who never took it; below 1 it only breaks the ties of
    undecayed counts."""


class Frequent(Recommender[FrequentSettings]):
    """Ranks items by how often the person took them, over the whole history, and equal ones by popularity.

    The score is `sum over the person's events of decay^(sessions since) + popularity * p(i)`, where
    `p` in [0, 1) rises with the number of the item's events in the log.  Where people come back for
    the same things, as they do to a grocer, this is hard to beat.
    """

    name = "frequent"
    reference = "P-Pop in Hu et al., Modeling personalized item frequency information, SIGIR 2020"
    predicts = "next-session"

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
        scores = np.tile(np.float32(self.config.popularity) * self.shares_, (len(histories), 1))
        _add_habits(scores, histories.items, histories.session_offsets, histories.user_offsets, self.config.decay)
        return DenseScores(scores)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """With and without decay."""
        return [{}, {"decay": 0.8, "popularity": 0.01}]


@compiled
def _add_habits(
    scores: NDArray[np.float32],
    items: NDArray[np.int32],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
    decay: float,
) -> None:
    for b in range(len(user_offsets) - 1):
        weight = 1.0
        for s in range(user_offsets[b + 1] - 1, user_offsets[b] - 1, -1):
            for e in range(session_offsets[s], session_offsets[s + 1]):
                scores[b, items[e]] += weight
            weight *= decay
