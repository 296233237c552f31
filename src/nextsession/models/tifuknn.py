"""TIFU-kNN: own habits, fading in steps, mixed with those of the people most alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog, offsets_of
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores


class TIFUKNNSettings(Settings):
    """Settings of `TIFUKNN`; the defaults are those published for Ta-Feng."""

    group: int = Field(default=7, ge=1)
    """How many sessions form a group (`m` in the paper)."""
    within_decay: float = Field(default=0.9, gt=0, le=1)
    """A session counts this much less for each later one in its group (`r_b`)."""
    group_decay: float = Field(default=0.7, gt=0, le=1)
    """A group counts this much less for each later one (`r_g`)."""
    neighbours: int = Field(default=300, ge=1)
    """How many people are listened to; all at the distance of the last of them are."""
    alpha: float = Field(default=0.7, ge=0, le=1)
    """The share of the person's own habits in the score."""


class TIFUKNN(Recommender[TIFUKNNSettings]):
    """Ranks items for the next session by personal item frequencies and by those of the nearest people.

    A session is the set of its items.  Sessions are put in groups of `group`, counted from the last
    one, so that only the oldest group can be short.  A group is the mean of its sessions, each
    weighted `within_decay^(later sessions of the group)`; a person is the mean of the groups, each
    weighted `group_decay^(later groups)`.  The neighbours of a person are the nearest in Euclidean
    distance, and the score is `alpha * own + (1 - alpha) * mean of the neighbours`; items that
    neither has are not listed.  Of somebody without a history all people are neighbours.

    A question costs the lengths of the lists of people who had its items, plus one pass over all
    people.
    """

    name = "tifuknn"
    reference = "Hu et al., Modeling personalized item frequency information for next-basket recommendation, SIGIR 2020"
    predicts = "next-session"

    user_offsets_: NDArray[np.int64]  # (U+1,)
    items_: NDArray[np.int32]  # (P,) the items of each person
    values_: NDArray[np.float64]  # (P,)
    norms_: NDArray[np.float64]  # (U,) squared
    item_offsets_: NDArray[np.int64]  # (V+1,)
    places_: NDArray[np.int64]  # (P,) the entries of each item
    owners_: NDArray[np.int32]  # (P,) whose entry it is
    mean_: NDArray[np.float64]  # (V,) of all people

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        people = log.take(np.flatnonzero(np.diff(log.user_offsets)))
        self.user_offsets_, self.items_, self.values_ = self._vectors(people)
        self.owners_ = np.repeat(np.arange(len(people), dtype=np.int32), np.diff(self.user_offsets_))
        self.norms_ = np.bincount(self.owners_, self.values_**2, len(people)).astype(np.float64)
        self.places_ = np.argsort(self.items_, kind="stable")
        self.item_offsets_ = offsets_of(np.bincount(self.items_, minlength=log.n_items))
        self.mean_ = np.bincount(self.items_, self.values_, log.n_items) / len(people)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        offsets, items, values = _scores(
            *self._vectors(histories), self.user_offsets_, self.items_, self.values_, self.norms_,
            self.item_offsets_, self.places_, self.owners_, self.mean_, self.config.neighbours, self.config.alpha,
        )  # fmt: skip
        return SparseScores(offsets, items, values, histories.n_items)

    def _vectors(self, log: SessionLog) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        settings = self.config
        return _vectors(
            log.items, log.session_offsets, log.user_offsets, log.n_items,
            settings.group, settings.within_decay, settings.group_decay,
        )  # fmt: skip

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Few neighbours and small groups, as suits a small log."""
        return [{"neighbours": 5}, {"neighbours": 3, "group": 2, "alpha": 0.4}, {}]


@compiled
def _vectors(
    items: NDArray[np.int32],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
    n_items: int,
    group: int,
    within_decay: float,
    group_decay: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return the vector of every person: offsets, items in rising order, values."""
    offsets = np.zeros(len(user_offsets), np.int64)
    out_items = np.empty(len(items), np.int32)
    out_values = np.empty(len(items), np.float64)
    last_session = np.full(n_items, -1, np.int64)
    sums = np.zeros(n_items, np.float64)
    n = 0
    for u in range(len(user_offsets) - 1):
        first, end = user_offsets[u], user_offsets[u + 1]
        sessions = end - first
        groups = (sessions + group - 1) // group
        for s in range(first, end):
            later = end - 1 - s
            of_group = min(group, sessions - later // group * group)
            weight = within_decay ** (later % group) / of_group * group_decay ** (later // group) / groups
            for e in range(session_offsets[s], session_offsets[s + 1]):
                i = items[e]
                if last_session[i] < first:
                    out_items[n] = i
                    n += 1
                    sums[i] = 0.0
                if last_session[i] < s:
                    last_session[i] = s
                    sums[i] += weight
        offsets[u + 1] = n
        out_items[offsets[u] : n].sort()
        for p in range(offsets[u], n):
            out_values[p] = sums[out_items[p]]
    return offsets, out_items[:n].copy(), out_values[:n].copy()


@compiled
def _scores(
    asked_offsets: NDArray[np.int64],
    asked: NDArray[np.int32],
    asked_values: NDArray[np.float64],
    user_offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    values: NDArray[np.float64],
    norms: NDArray[np.float64],
    item_offsets: NDArray[np.int64],
    places: NDArray[np.int64],
    owners: NDArray[np.int32],
    mean: NDArray[np.float64],
    neighbours: int,
    alpha: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    n, n_items, people = len(asked_offsets) - 1, len(mean), len(norms)
    offsets = np.zeros(n + 1, np.int64)
    out_items = np.empty(n * n_items, np.int32)
    out_values = np.empty(n * n_items, np.float32)
    sums = np.zeros(n_items, np.float64)
    size = 0
    for b in range(n):
        a, z = asked_offsets[b], asked_offsets[b + 1]
        if a == z:
            sums[:] = (1 - alpha) * mean
        else:
            distances = norms.copy()  # less the square of the question, which is the same for all
            for q in range(a, z):
                for entry in places[item_offsets[asked[q]] : item_offsets[asked[q] + 1]]:
                    distances[owners[entry]] -= 2 * asked_values[q] * values[entry]
            farthest = np.inf
            if neighbours < people:
                farthest = np.partition(distances, neighbours - 1)[neighbours - 1]
            near = np.flatnonzero(distances <= farthest)
            sums[:] = 0.0
            for u in near:
                for p in range(user_offsets[u], user_offsets[u + 1]):
                    sums[items[p]] += values[p]
            for q in range(n_items):
                sums[q] *= (1 - alpha) / len(near)
            for q in range(a, z):
                sums[asked[q]] += alpha * asked_values[q]
        for i in range(n_items):
            if sums[i] > 0:
                out_items[size] = i
                out_values[size] = sums[i]
                size += 1
        offsets[b + 1] = size
    return offsets, out_items[:size], out_values[:size]
