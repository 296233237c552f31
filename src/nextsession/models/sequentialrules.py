"""Sequential rules: what came a few steps after the last item."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Runtime, Settings
from nextsession.counting import Table, Weighting, following, votes, weights
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores


class SequentialRulesSettings(Settings):
    """Settings of `SequentialRules`."""

    steps: int = Field(default=10, ge=1)
    """How many events after an item still count as its consequents."""
    weighting: Weighting = "div"
    """How a consequent's weight falls with the distance."""
    pruning: int | None = Field(default=20, ge=1)
    """How many of the best consequents of an item take part in an answer; none: all."""
    last_in_session: int = Field(default=1, ge=1)
    """How many of the latest events of the session are asked for their consequents."""
    session_weighting: Weighting = "div"
    """How their votes fade with the distance from the end of the session."""


class SequentialRules(Recommender[SequentialRulesSettings]):
    """Ranks items by how often, and how soon, they followed the last item in a session.

    `R[a][b]` is the sum of `w(k)` over all places where `b` comes `k <= steps` events after `a`; an
    item that follows itself is counted too.  All of `R` is kept, so the model learns on without
    loss; `pruning` is applied when it is asked.  The weight `linear` ends at 0 after ten steps,
    where the reference implementation goes on below it.
    """

    name = "sequentialrules"
    reference = "Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018, SR"

    offsets_: NDArray[np.int64]  # (V+1,)
    items_: NDArray[np.int32]  # (P,) consequents, best first
    weights_: NDArray[np.float32]  # (P,)

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.offsets_, self.items_, self.weights_ = self._count(log).best_first(log.n_items)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        table = Table(self.offsets_, self.items_, self.weights_)
        old = table.at_rows(np.arange(len(self.offsets_) - 1), log.n_items)
        self.offsets_, self.items_, self.weights_ = old.plus(self._count(log), log.n_items).best_first(log.n_items)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        table = Table(self.offsets_, self.items_, self.weights_)
        fade = weights(self.config.session_weighting, self.config.last_in_session)
        return votes(table, histories, fade, self.config.pruning, histories.n_items)

    def _count(self, log: SessionLog) -> Table:
        return following(log, weights(self.config.weighting, self.config.steps))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One variant for each kind of weight, and one for each way of asking."""
        kinds: list[dict[str, Any]] = [{"weighting": kind} for kind in ("same", "div", "linear", "log", "quadratic")]
        return [*kinds, {"steps": 1, "pruning": None}, {"pruning": 3, "last_in_session": 3}]
