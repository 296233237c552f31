"""BPR-MF: factors of items learnt by ranking what was taken above what was not."""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog, offsets_of
from nextsession.recommender import Recommender
from nextsession.scores import DotScores

_MEASURED = 4096  # visitors whose trained and folded factors are compared in length


class BPRMFSettings(Settings):
    """Settings of `BPRMF`."""

    dim: int = Field(default=100, ge=1)
    """Factors of each item."""
    epochs: int = Field(default=20, ge=1)
    """In each, as many events are drawn as the log holds."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Step of the gradient descent."""
    regularisation: float = Field(default=0.01, ge=0)
    """Weight of the squared factors and biases in the loss."""
    reads: Literal["session", "history"] = "session"
    """What has factors of its own in training, and is folded in when asked: each session, or all a person did."""
    fold_in: Literal["mean", "ridge"] = "mean"
    """The factors of a question: the mean of its items', or those that a ridge regression gives its items 1 with."""
    ridge: float = Field(default=10.0, gt=0)
    """Weight of the squared factors in that regression."""


class BPRMF(Recommender[BPRMFSettings]):
    """Ranks items by `u . v_i + b_i`, trained so that taken items come before others.

    Each step draws an event (of visitor `u`, item `i`) and an item `j` that `u` never took, and
    descends `-ln sigmoid(s_ui - s_uj) + regularisation / 2 (|u|^2 + |v_i|^2 + |v_j|^2 + b_i^2 + b_j^2)`.
    Visitors are anonymous when they ask, so their factors are computed from those of their items:
    the mean, or `(V'V + ridge I)^-1 V'1` over the distinct items, times the one number that makes
    the visitors of the log as long on average as they were trained to be: without it the biases
    would weigh too much.  An empty history is ranked by the biases alone.
    """

    name = "bprmf"
    reference = "Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009"
    ordered: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    vectors_: NDArray[np.float32]  # (V, dim + 1) factors of each item, and last its bias
    scale_: NDArray[np.float64]  # (1,) makes folded factors as long as trained ones

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        settings = self.config
        rng = np.random.default_rng(runtime.seed)
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        keys = np.unique(users * log.n_items + log.items)
        starts = offsets_of(np.bincount(keys // log.n_items, minlength=len(offsets) - 1))
        of_users = rng.uniform(-0.05, 0.05, (len(offsets) - 1, settings.dim)).astype(np.float32)
        self.vectors_ = rng.uniform(-0.05, 0.05, (log.n_items, settings.dim + 1)).astype(np.float32)
        self.vectors_[:, -1] = 0
        for _ in range(settings.epochs):
            _descend(
                rng, users, log.items, starts, keys % log.n_items, of_users, self.vectors_,
                settings.learning_rate, settings.regularisation,
            )  # fmt: skip
        self.scale_ = np.ones(1)
        some = np.unique(np.linspace(0, len(of_users) - 1, _MEASURED).astype(np.int64))
        folded = self._folded(log.items, offsets[:-1][some], offsets[1:][some])
        length = max(np.linalg.norm(folded, axis=1).mean(), 1e-12)
        self.scale_ *= np.linalg.norm(of_users[some], axis=1).mean() / length

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DotScores:
        starts, stops = histories.event_offsets[:-1], histories.event_offsets[1:]
        if self.config.reads == "session":
            starts, stops = histories.last_sessions
        queries = np.ones((len(histories), self.config.dim + 1), np.float32)
        queries[:, :-1] = self._folded(histories.items, starts, stops)
        return DotScores(queries, self.vectors_)

    def _folded(
        self, items: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the factors of visitors who took the items of these ranges, `(B, dim)`; 0 for an empty one."""
        found = np.zeros((len(starts), self.config.dim))
        for row in np.flatnonzero(stops > starts):
            own = np.sort(items[starts[row] : stops[row]])
            if self.config.fold_in == "mean":
                found[row] = self.vectors_[own, :-1].mean(axis=0, dtype=np.float64)
                continue
            taken = self.vectors_[np.unique(own), :-1].astype(np.float64)
            square = taken.T @ taken + self.config.ridge * np.eye(self.config.dim)
            found[row] = np.linalg.solve(square, taken.sum(axis=0))
        return found * self.scale_

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One variant for each way of folding in."""
        small = {"dim": 8, "epochs": 3}
        return [small, {**small, "fold_in": "ridge"}, {**small, "reads": "history"}]


@compiled
def _descend(
    rng: np.random.Generator,
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    taken: NDArray[np.int64],
    of_users: NDArray[np.float32],
    vectors: NDArray[np.float32],
    learning_rate: float,
    regularisation: float,
) -> None:
    """Take one step for each of as many events, drawn with replacement, as there are."""
    n_items, dim = len(vectors), of_users.shape[1]
    rate, decay = np.float32(learning_rate), np.float32(learning_rate * regularisation)
    for _ in range(len(items)):
        event = rng.integers(0, len(items))
        u, i = users[event], items[event]
        own = taken[starts[u] : starts[u + 1]]  # rising
        if len(own) == n_items:
            continue  # whoever took everything teaches nothing
        j = rng.integers(0, n_items)
        place = np.searchsorted(own, j)
        while place < len(own) and own[place] == j:
            j = rng.integers(0, n_items)
            place = np.searchsorted(own, j)
        user, better, worse = of_users[u], vectors[i], vectors[j]
        margin = better[dim] - worse[dim]
        for d in range(dim):
            margin += user[d] * (better[d] - worse[d])
        step = rate * np.float32(1.0 / (1.0 + np.exp(margin)))
        for d in range(dim):
            pull = step * user[d]
            user[d] += step * (better[d] - worse[d]) - decay * user[d]
            better[d] += pull - decay * better[d]
            worse[d] -= pull + decay * worse[d]
        better[dim] += step - decay * better[dim]
        worse[dim] -= step + decay * worse[dim]
