"""What everybody wants just now: items by their events shortly before the question."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nextsession.compiled import compiled
from nextsession.config import Duration, Runtime, Settings
from nextsession.data.log import SessionLog
from nextsession.errors import DataError
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores

_CLOSEST = 4096  # events between two photographs at least


class RecentSettings(Settings):
    """Settings of `Recent`: a `window` or a `half_life`; without either, a half-life of one day."""

    window: Duration | None = Field(default=None, gt=0)
    """Only events this shortly before the question count, each as one."""
    half_life: Duration | None = Field(default=None, gt=0)
    """All events before the question count, each half as much as one that happened this much later."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_two(cls, values: Any) -> Any:
        given = {} if not isinstance(values, dict) else values
        if given.get("window") is not None and given.get("half_life") is not None:
            raise ValueError("give a window or a half_life, not both")
        if given.get("window") is None and given.get("half_life") is None:
            return {**given, "half_life": "1d"}
        return values


class Recent(Recommender[RecentSettings]):
    """Ranks items by their events strictly before the instant `t` of the question, late ones above all.

    With a `half_life` the score is the logarithm (base 2) of the decayed count
    `sum 2^((time - t) / half_life)` over all events before `t`; as a logarithm it keeps ages of any
    length apart.  With a `window` the score is the number of events in `[t - window, t)`, plus a
    number below 1 that rises with the count decayed by the window as its half-life: it breaks ties,
    and ranks alone those items that the window does not hold.

    An item without any event before `t` is not listed, whatever the log holds later: questions may
    lie in the midst of the log.  The state of all counts is kept every `V` events or so, as a
    photograph, and after the last event; a question starts from the last one before it.  So it costs
    a few passes over the items, however long the log is, and one where it comes after the log.
    """

    name = "recent"
    reference = (
        "Ji et al., A re-visit of the popularity baseline in recommender systems, SIGIR 2020 (RecentPop, DecayPop)"
    )
    ordered: ClassVar[bool] = False
    reads_clock: ClassVar[bool] = True

    times_: NDArray[np.int64]  # (N,) ms, rising
    items_: NDArray[np.int32]  # (N,)
    decayed_: NDArray[np.float64]  # (P, V) logarithms of decayed counts before every so many events, and after all
    counts_: NDArray[np.int32]  # (P, V) counts there; (0, V) without a window

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self._keep(log, log.times, log.items)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        self._keep(log, np.concatenate([self.times_, log.times]), np.concatenate([self.items_, log.items]))

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DenseScores:
        order, window = np.argsort(asked_at), self.config.window
        taken = _taken(len(self.times_), histories.n_items)
        stops = np.searchsorted(self.times_, asked_at)
        logarithms = _decayed_counts(
            order, asked_at, stops, self.times_, self.items_, self._half_life, self.decayed_, taken
        )
        if window is not None:
            starts = np.searchsorted(self.times_, asked_at - window)
            _add_window(logarithms, order, starts, stops, self.items_, self.counts_, taken)
        return DenseScores(logarithms)

    @property
    def _half_life(self) -> float:
        return float(self.config.half_life or self.config.window or 0)

    def _keep(self, log: SessionLog, times: NDArray[np.int64], items: NDArray[np.int32]) -> None:
        if not log.timed:
            raise DataError(
                "recent counts the events shortly before a question, so the log must hold times; this one holds only "
                "the order of its events. Name the column of the time, or use the model 'popular'."
            )
        order = np.argsort(times, kind="stable")
        self.times_, self.items_ = times[order], items[order]
        taken = _taken(len(times), log.n_items)
        self.decayed_ = np.empty((len(taken), log.n_items), np.float64)
        _photograph_decayed(self.decayed_, self.times_, self.items_, self._half_life, taken)
        self.counts_ = np.empty((len(taken) if self.config.window is not None else 0, log.n_items), np.int32)
        _photograph_counts(self.counts_, self.items_, taken)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """A window shorter than the log, one longer, and a half-life."""
        return [{"window": "20h"}, {"window": "3000h"}, {"half_life": "5h"}]


def _taken(n_events: int, n_items: int) -> NDArray[np.int64]:
    """Return before how many events each photograph is taken: together they take about as much room as the events."""
    return np.append(np.arange(0, n_events, max(_CLOSEST, n_items)), n_events)


@compiled
def _add_decayed(
    state: NDArray[np.float64], times: NDArray[np.int64], items: NDArray[np.int32], half_life: float
) -> None:
    """Add events to the logarithms of sums of `2^(time / half_life)`."""
    for e in range(len(items)):
        new, old = times[e] / half_life, state[items[e]]
        state[items[e]] = max(old, new) + np.log2(1.0 + np.exp2(min(old, new) - max(old, new)))


@compiled
def _add_counts(state: NDArray[np.int32], items: NDArray[np.int32]) -> None:
    for e in range(len(items)):
        state[items[e]] += 1


@compiled
def _photograph_decayed(
    photographs: NDArray[np.float64],
    times: NDArray[np.int64],
    items: NDArray[np.int32],
    half_life: float,
    taken: NDArray[np.int64],
) -> None:
    state = np.full(photographs.shape[1], -np.inf)
    for p in range(len(photographs)):
        a = taken[max(p - 1, 0)]
        _add_decayed(state, times[a : taken[p]], items[a : taken[p]], half_life)
        photographs[p] = state


@compiled
def _photograph_counts(photographs: NDArray[np.int32], items: NDArray[np.int32], taken: NDArray[np.int64]) -> None:
    state = np.zeros(photographs.shape[1], np.int32)
    for p in range(len(photographs)):
        _add_counts(state, items[taken[max(p - 1, 0)] : taken[p]])
        photographs[p] = state


@compiled
def _decayed_counts(
    order: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    stops: NDArray[np.int64],
    times: NDArray[np.int64],
    items: NDArray[np.int32],
    half_life: float,
    photographs: NDArray[np.float64],
    taken: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the logarithm of every item's decayed count for every question; -inf for one without an event."""
    scores = np.empty((len(order), photographs.shape[1]), np.float32)
    state, at = photographs[0].copy(), 0
    for b in order:  # by instant, so that the state mostly moves on by a few events
        p = np.searchsorted(taken, stops[b], side="right") - 1
        if taken[p] > at:
            state[:], at = photographs[p], taken[p]
        _add_decayed(state, times[at : stops[b]], items[at : stops[b]], half_life)
        at = stops[b]
        now = asked_at[b] / half_life
        for i in range(len(state)):
            scores[b, i] = state[i] - now
    return scores


@compiled
def _add_window(
    scores: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    items: NDArray[np.int32],
    photographs: NDArray[np.int32],
    taken: NDArray[np.int64],
) -> None:
    """Replace logarithms of decayed counts by counts in a window plus, between 0 and 1, the order of the logarithms."""
    before, now = photographs[0].copy(), photographs[0].copy()
    at_before, at_now = 0, 0
    for b in order:
        p = np.searchsorted(taken, starts[b], side="right") - 1
        if taken[p] > at_before:
            before[:], at_before = photographs[p], taken[p]
        _add_counts(before, items[at_before : starts[b]])
        at_before = starts[b]
        p = np.searchsorted(taken, stops[b], side="right") - 1
        if taken[p] > at_now:
            now[:], at_now = photographs[p], taken[p]
        _add_counts(now, items[at_now : stops[b]])
        at_now = stops[b]
        for i in range(len(now)):
            if now[i] > 0:
                x = scores[b, i]
                scores[b, i] = now[i] - before[i] + (0.5 / (1.0 - x) if x < 0 else 1.0 - 0.5 / (1.0 + x))
