"""Markov chains: what came next after the last item, or after the last few."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.counting import Table
from nextsession.data.log import SessionLog, offsets_of
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores, SparseScores


class MarkovSettings(Settings):
    """Settings of `Markov`."""

    order: int = Field(default=1, ge=1)
    """How many of the latest events of the session are looked at."""
    smoothing: float = Field(default=0.0, ge=0)
    """Laplace's: added to the count of every item of the vocabulary, so that each has a probability.  At 0 only what
    has followed the context is listed."""
    pruning: int | None = Field(default=20, ge=1)
    """How many of the likeliest next items of a context take part in an answer; none: all."""


class Markov(Recommender[MarkovSettings]):
    """Ranks items by how often they came next after the last `order` items of the session.

    The score is `(n(c, i) + s) / (n(c) + s V)`, where `c` is the longest run of latest items, up to
    `order`, that was ever followed by anything: a context never seen backs off to a shorter one.
    If even the last item was never followed, nothing is listed (with smoothing: all items alike).

    Contexts are told apart by 64-bit numbers; for single items they differ always, for runs of
    items with certainty in practice (ten million contexts: one chance in 400,000 that any two meet).
    """

    name = "markov"
    reference = "Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018, MC"

    contexts_: NDArray[np.uint64]  # (C,) rising
    offsets_: NDArray[np.int64]  # (C+1,)
    items_: NDArray[np.int32]  # (P,) next items, most frequent first
    counts_: NDArray[np.float32]  # (P,)
    totals_: NDArray[np.float64]  # (C,) how often the context was followed at all

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.contexts_, table = self._count(log)
        self._keep(table, log.n_items)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        contexts, table = self._count(log)
        union = np.union1d(self.contexts_, contexts)
        old = Table(self.offsets_, self.items_, self.counts_)
        old = old.at_rows(np.searchsorted(union, self.contexts_), len(union))
        new = table.at_rows(np.searchsorted(union, contexts), len(union))
        self.contexts_ = union
        self._keep(old.plus(new, log.n_items), log.n_items)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores | DenseScores:
        rows = self._longest_seen(histories)
        some = rows >= 0
        totals = np.zeros(len(histories))
        totals[some] = self.totals_[rows[some]]
        smoothing, n_items = self.config.smoothing, histories.n_items
        pruning = n_items if self.config.pruning is None else self.config.pruning
        offsets, items, counts = _front(self.offsets_, self.items_, self.counts_, rows, pruning)
        mass = totals + smoothing * n_items
        asked = np.repeat(np.arange(len(histories)), np.diff(offsets))
        values = ((counts + smoothing) / mass[asked]).astype(np.float32)
        if smoothing == 0:
            return SparseScores(offsets, items, values, n_items)
        scores = np.repeat((smoothing / mass).astype(np.float32)[:, None], n_items, axis=1)
        scores[asked, items] = values
        return DenseScores(scores)

    def _count(self, log: SessionLog) -> tuple[NDArray[np.uint64], Table]:
        """Return the contexts of all lengths and how often each item came next."""
        contexts, items = _transitions(log.items, log.session_offsets, self.config.order)
        order = np.lexsort((items, contexts))
        contexts, items = contexts[order], items[order]
        first = np.ones(len(contexts), np.bool_)
        first[1:] = (contexts[1:] != contexts[:-1]) | (items[1:] != items[:-1])
        places = np.flatnonzero(first)
        known, lengths = np.unique(contexts[places], return_counts=True)
        counts = np.diff(np.append(places, len(contexts))).astype(np.float32)
        return known, Table(offsets_of(lengths), items[places], counts)

    def _keep(self, table: Table, n_items: int) -> None:
        self.offsets_, self.items_, self.counts_ = table.best_first(n_items)
        rows = np.repeat(np.arange(len(self.contexts_)), np.diff(table.offsets))
        self.totals_ = np.bincount(rows, self.counts_, len(self.contexts_)).astype(np.float64)

    def _longest_seen(self, histories: SessionLog) -> NDArray[np.int64]:
        """Return the row of each question's longest context that was ever followed; -1 where there is none."""
        starts, stops = histories.last_sessions
        rows = np.full(len(histories), -1)
        longest = self.config.order if len(self.contexts_) else 0
        for length in range(1, longest + 1):
            asked = np.flatnonzero(stops - starts >= length)
            contexts = _contexts(histories.items, stops[asked], length)
            places = np.minimum(np.searchsorted(self.contexts_, contexts), len(self.contexts_) - 1)
            seen = self.contexts_[places] == contexts
            rows[asked[seen]] = places[seen]
        return rows

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One variant for each way of looking back."""
        return [{}, {"pruning": None}, {"order": 3, "pruning": 5}, {"order": 2, "smoothing": 0.5, "pruning": None}]


@compiled
def _longer(context: np.uint64, item: int) -> np.uint64:
    """Return the number of the run that has one more, older, item: the finaliser of splitmix64, a bijection."""
    x = context * np.uint64(0x9E3779B97F4A7C15) + np.uint64(item) + np.uint64(1)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _transitions(
    items: NDArray[np.int32], session_offsets: NDArray[np.int64], order: int
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return each item that follows another and the number of the run before it, for runs of 1 to `order` items."""
    n = 0
    for s in range(len(session_offsets) - 1):
        for place in range(1, session_offsets[s + 1] - session_offsets[s]):
            n += min(place, order)
    contexts = np.empty(n, np.uint64)
    following = np.empty(n, np.int32)
    n = 0
    for s in range(len(session_offsets) - 1):
        a = session_offsets[s]
        for e in range(a + 1, session_offsets[s + 1]):
            context = np.uint64(0)
            for back in range(1, min(e - a, order) + 1):
                context = _longer(context, items[e - back])
                contexts[n] = context
                following[n] = items[e]
                n += 1
    return contexts, following


@compiled
def _contexts(items: NDArray[np.int32], stops: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """Return the number of the run of `length` items that ends before each of `stops`."""
    contexts = np.zeros(len(stops), np.uint64)
    for b in range(len(stops)):
        context = np.uint64(0)
        for back in range(1, length + 1):
            context = _longer(context, items[stops[b] - back])
        contexts[b] = context
    return contexts


@compiled
def _front(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    counts: NDArray[np.float32],
    rows: NDArray[np.int64],
    pruning: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Return the first `pruning` entries of the rows asked for, end to end; -1 asks for none."""
    out_offsets = np.zeros(len(rows) + 1, np.int64)
    for b in range(len(rows)):
        length = offsets[rows[b] + 1] - offsets[rows[b]] if rows[b] >= 0 else 0
        out_offsets[b + 1] = out_offsets[b] + min(pruning, length)
    out_items = np.empty(out_offsets[-1], np.int32)
    out_counts = np.empty(out_offsets[-1], np.float32)
    for b in range(len(rows)):
        a, z = out_offsets[b], out_offsets[b + 1]
        if z > a:
            first = offsets[rows[b]]
            out_items[a:z] = items[first : first + z - a]
            out_counts[a:z] = counts[first : first + z - a]
    return out_offsets, out_items, out_counts
