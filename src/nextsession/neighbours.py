"""Neighbours: what all session-kNN models share.

A question is a short list of items.  Three steps answer it:

1. *candidates*: the `sample` most recent sessions that hold any of its items;
2. *neighbours*: the most similar of them;
3. *scores*: each neighbour votes for its own items.

The models of `nextsession.models` differ in weights only, so each is a `Recipe` for one compiled
search (`nextsession.neighbour_search`).
"""

from abc import abstractmethod
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog, offsets_of
from nextsession.neighbour_search import Index, Recipe, search, workspace
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores


class NeighbourSettings(Settings):
    """Settings that all neighbour models share."""

    neighbours: int = Field(default=500, ge=1)
    """Sessions that vote (`k` in the papers)."""
    sample: int = Field(default=5000, ge=1)
    """Candidates: the most recent sessions that share an item with the question (`sample_size`)."""
    reads: Literal["session", "history"] = "session"
    """The question is the last session, or all that is known of the visitor, end to end."""
    last: int | None = Field(default=None, ge=1)
    """Only this many of the latest events of the question are used; none: all."""


C = TypeVar("C", bound=NeighbourSettings)


class IndexRule(NamedTuple):
    """What is indexed, and what a rare item is measured by."""

    longest: float = 1.0
    """Sessions longer than this quantile of all lengths are not indexed."""
    per_item: int | None = None
    """Only this many newest sessions of each item are indexed; none: all."""
    idf_of: Literal["sessions", "events"] = "sessions"
    """`idf(i) = ln(n / events of i)`, where `n` counts these."""


class NeighbourModel(Recommender[C]):
    """Base of the neighbour models: they say their `_recipe`, all else is here.

    The items of the question may be recommended (reminders); scores are sums of votes and are not
    divided by their maximum.  Equal similarities go to the more recent session.

    `update` adds sessions.  It gives what fitting on everything gives, as long as no session is cut
    between two logs: a session that continues counts as another session.

    Where a log only knows the order of events (`SessionLog.timed`), nothing is weighed by age and
    every session exists for every question.
    """

    index_: Index
    timed_: bool

    @abstractmethod
    def _recipe(self) -> Recipe:
        """Return what the settings mean."""

    def _index_rule(self) -> IndexRule:
        """Return what is indexed: everything."""
        return IndexRule()

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.timed_ = log.timed
        self._learn(np.asarray(log.items), log.session_offsets, log.session_ends)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        old, self.timed_ = self.index_, self.timed_ and log.timed
        self._learn(
            np.concatenate([old.items, log.items]),
            np.concatenate([old.offsets, old.offsets[-1] + log.session_offsets[1:]]),
            np.concatenate([old.ends, log.session_ends]),
        )

    def _learn(self, items: NDArray[np.int32], offsets: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        rule = self._index_rule()
        n_items, order, lengths = len(self.vocabulary_), np.argsort(ends, kind="stable"), np.diff(offsets)
        items, offsets, ends = _gather(items, offsets, order), offsets_of(lengths[order]), ends[order]
        longest = int(np.quantile(lengths, rule.longest, method="higher"))
        inverted = _invert(items, offsets, n_items, longest, rule.per_item or len(ends))
        events = np.bincount(items, minlength=n_items)
        n = len(ends) if rule.idf_of == "sessions" else len(items)
        idf = np.where(events > 0, np.log(n / np.maximum(events, 1)), 0.0)
        self.index_ = Index(items, offsets, ends, *inverted, events, idf)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        n_items, n_sessions = len(self.vocabulary_), len(self.index_.ends)
        starts, stops = histories.last_sessions
        if self.config.reads == "history":
            starts, stops = histories.event_offsets[:-1], histories.event_offsets[1:]
        if self.config.last is not None:
            starts = np.maximum(starts, stops - self.config.last)
        neighbours, sample = self.config.neighbours, min(self.config.sample, n_sessions)
        work = workspace(n_items, sample, int(np.max(stops - starts, initial=0)))
        items = np.asarray(histories.items)
        recipe = self._recipe()
        if not (self.timed_ and histories.timed):
            recipe = recipe._replace(clocked=False, age_scale=0.0)
        found = search(recipe, self.index_, neighbours, sample, items, starts, stops, asked_at, work)
        return SparseScores(*found, n_items)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {name: getattr(self.index_, name) for name in ("items", "offsets", "ends")}
        return {**arrays, "timed": np.array([self.timed_])}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.timed_ = bool(arrays["timed"][0])
        self._learn(arrays["items"], arrays["offsets"], arrays["ends"])


# -- learning -----------------------------------------------------------------------------------


@compiled
def _gather(items: NDArray[np.int32], offsets: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the events of the sessions in another order."""
    gathered = np.empty(len(items), np.int32)
    n = 0
    for s in order:
        for e in range(offsets[s], offsets[s + 1]):
            gathered[n] = items[e]
            n += 1
    return gathered


@compiled
def _invert(
    items: NDArray[np.int32], offsets: NDArray[np.int64], n_items: int, longest: int, most: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """List the newest `most` sessions of each item, leaving out sessions of more than `longest` events."""
    n_sessions = len(offsets) - 1
    widths = np.zeros(n_sessions, np.int32)
    counts = np.zeros(n_items, np.int64)
    latest = np.full(n_items, -1, np.int32)
    for s in range(n_sessions):
        indexed = offsets[s + 1] - offsets[s] <= longest
        for e in range(offsets[s], offsets[s + 1]):
            if latest[items[e]] != s:
                latest[items[e]] = s
                widths[s] += 1
                counts[items[e]] += indexed
    posting_offsets = np.zeros(n_items + 1, np.int64)
    fill = np.empty(n_items, np.int64)
    for i in range(n_items):
        posting_offsets[i + 1] = posting_offsets[i] + min(counts[i], most)
        fill[i] = posting_offsets[i + 1] - counts[i]  # the oldest fall before the item's own part
    postings = np.empty(posting_offsets[-1], np.int32)
    prior = np.empty(posting_offsets[-1], np.int32)
    latest[:] = -1
    events = np.zeros(n_items, np.int32)
    for s in range(n_sessions):
        indexed = offsets[s + 1] - offsets[s] <= longest
        for e in range(offsets[s], offsets[s + 1]):
            i = items[e]
            if indexed and latest[i] != s:
                latest[i] = s
                if fill[i] >= posting_offsets[i]:
                    postings[fill[i]] = s
                    prior[fill[i]] = events[i]
                fill[i] += 1
            events[i] += 1
    return widths, posting_offsets, postings, prior
