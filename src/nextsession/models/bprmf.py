"""BPR-MF: factors of items learnt by ranking what was taken above what was not."""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.counting import last_sessions
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import DotScores


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
    ridge: float = Field(default=1.0, gt=0)
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

    factors_: NDArray[np.float32]  # (V, dim)
    biases_: NDArray[np.float32]  # (V,)
    scale_: NDArray[np.float64]  # (1,) makes folded factors as long as trained ones

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        settings = self.config
        rng = np.random.default_rng(runtime.seed)
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.factors_ = rng.uniform(-0.05, 0.05, (log.n_items, settings.dim)).astype(np.float32)
        self.biases_ = np.zeros(log.n_items, np.float32)
        of_users = rng.uniform(-0.05, 0.05, (len(offsets) - 1, settings.dim)).astype(np.float32)
        taken = np.unique(users * log.n_items + log.items)
        for _ in range(settings.epochs):
            _descend(
                rng, users, log.items, taken, of_users, self.factors_, self.biases_,
                settings.learning_rate, settings.regularisation,
            )  # fmt: skip
        self.scale_ = np.ones(1)
        folded = self._folded(log.items, offsets[:-1], offsets[1:])
        self.scale_ *= np.linalg.norm(of_users, axis=1).mean() / max(np.linalg.norm(folded, axis=1).mean(), 1e-12)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DotScores:
        starts, stops = histories.event_offsets[:-1], histories.event_offsets[1:]
        if self.config.reads == "session":
            starts, stops = last_sessions(histories)
        queries = np.ones((len(histories), self.config.dim + 1), np.float32)
        queries[:, :-1] = self._folded(histories.items, starts, stops)
        return DotScores(queries, np.column_stack([self.factors_, self.biases_]))

    def _folded(
        self, items: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the factors of visitors who took the items of these ranges, `(B, dim)`; 0 for an empty one."""
        found = np.zeros((len(starts), self.config.dim))
        for row in np.flatnonzero(stops > starts):
            own = np.sort(items[starts[row] : stops[row]])
            if self.config.fold_in == "mean":
                found[row] = self.factors_[own].mean(axis=0, dtype=np.float64)
                continue
            taken = self.factors_[np.unique(own)].astype(np.float64)
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
    taken: NDArray[np.int64],
    of_users: NDArray[np.float32],
    factors: NDArray[np.float32],
    biases: NDArray[np.float32],
    learning_rate: float,
    regularisation: float,
) -> None:
    """Take one step for each of as many events, drawn with replacement, as there are."""
    n_items, dim = factors.shape
    rate, decay = np.float32(learning_rate), np.float32(learning_rate * regularisation)
    for _ in range(len(items)):
        event = rng.integers(0, len(items))
        u, i = users[event], items[event]
        first = u * n_items
        if np.searchsorted(taken, first + n_items) - np.searchsorted(taken, first) == n_items:
            continue  # whoever took everything teaches nothing
        j = rng.integers(0, n_items)
        while True:
            place = np.searchsorted(taken, first + j)
            if place == len(taken) or taken[place] != first + j:
                break
            j = rng.integers(0, n_items)
        difference = biases[i] - biases[j]
        for d in range(dim):
            difference += of_users[u, d] * (factors[i, d] - factors[j, d])
        step = rate * np.float32(1.0 / (1.0 + np.exp(difference)))
        for d in range(dim):
            own, better, worse = of_users[u, d], factors[i, d], factors[j, d]
            of_users[u, d] += step * (better - worse) - decay * own
            factors[i, d] += step * own - decay * better
            factors[j, d] -= step * own + decay * worse
        biases[i] += step - decay * biases[i]
        biases[j] -= step + decay * biases[j]
