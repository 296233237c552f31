"""Association rules: what was taken together with the last item, in whatever order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Runtime, Settings
from nextsession.counting import Table, Weighting, together, votes, weights
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores


class AssociationRulesSettings(Settings):
    """Settings of `AssociationRules`."""

    pruning: int | None = Field(default=20, ge=1)
    """How many of the best consequents of an item take part in an answer; none: all."""
    last_in_session: int = Field(default=1, ge=1)
    """How many of the latest events of the session are asked for their consequents."""
    session_weighting: Weighting = "div"
    """How their votes fade with the distance from the end of the session."""


class AssociationRules(Recommender[AssociationRulesSettings]):
    """Ranks items by the pairs of events that hold them and the last item, over all sessions.

    `R[a][b]` is the number of pairs of different events of one session of which one is `a`, the
    other `b`.  All pairs are kept, so the model learns on without loss; `pruning` is applied when it
    is asked.  A session of `n` events costs `n^2` additions.
    """

    name = "associationrules"
    reference = "Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018, AR"

    offsets_: NDArray[np.int64]  # (V+1,)
    items_: NDArray[np.int32]  # (P,) consequents, best first
    counts_: NDArray[np.float32]  # (P,)

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.offsets_, self.items_, self.counts_ = together(log, log).best_first(log.n_items)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        table = Table(self.offsets_, self.items_, self.counts_)
        old = table.at_rows(np.arange(len(self.offsets_) - 1), log.n_items)
        self.offsets_, self.items_, self.counts_ = old.plus(together(log, log), log.n_items).best_first(log.n_items)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        table = Table(self.offsets_, self.items_, self.counts_)
        fade = weights(self.config.session_weighting, self.config.last_in_session)
        return votes(table, histories, fade, self.config.pruning, histories.n_items)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One variant for each way of asking."""
        return [{}, {"pruning": None}, {"pruning": 3, "last_in_session": 3}]
