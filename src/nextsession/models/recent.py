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
    """Settings of `Recent`: a `window` or a `half_life`, not both."""

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
            return {**given, "half_life": "1h"}
        return values


class Recent(Recommender[RecentSettings]):
    """Ranks items by their events strictly before the instant of the question, late ones above all.

    With a `window` the score of an item is the number of its events in `[t - window, t)`, plus a
    number below 1 that rises with all its events before `t`: it breaks ties, and ranks alone when
    the window is empty.  With a `half_life` the score is the logarithm (base 2) of the decayed count
    `sum 2^((time - t) / half_life)`, so that ages of any length stay apart.  An item without any
    event before `t` is not listed, whatever the log holds later.

    The state of all counts is kept every `V` events or so, as a photograph; a question starts from
    the last one before it, so it costs a few passes over the items however long the log is.
    """

    name = "recent"
    reference = (
        "Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018 (recent popularity)"
    )
    ordered: ClassVar[bool] = False
    reads_clock: ClassVar[bool] = True

    times_: NDArray[np.int64]  # (N,) ms, rising
    items_: NDArray[np.int32]  # (N,)
    photographs_: NDArray[np.float64]  # (P, V) the state before every so many events

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self._keep(log, log.times, log.items)

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        self._keep(log, np.concatenate([self.times_, log.times]), np.concatenate([self.items_, log.items]))

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DenseScores:
        stops = np.searchsorted(self.times_, asked_at)
        window = self.config.window
        starts = stops if window is None else np.searchsorted(self.times_, asked_at - window)
        scores = _scores(
            np.argsort(asked_at), asked_at, starts, stops,
            self.times_, self.items_, float(self.config.half_life or 0), self.photographs_, _spacing(histories.n_items),
        )  # fmt: skip
        return DenseScores(scores)

    def _keep(self, log: SessionLog, times: NDArray[np.int64], items: NDArray[np.int32]) -> None:
        if not log.timed:
            raise DataError(
                "recent counts the events shortly before a question, so the log must hold times; this one holds only "
                "the order of its events. Name the column of the time, or use the model 'popular'."
            )
        order = np.lexsort((items, times))
        self.times_, self.items_ = times[order], items[order]
        half_life = float(self.config.half_life or 0)
        self.photographs_ = _photographs(self.times_, self.items_, half_life, log.n_items, _spacing(log.n_items))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """A window shorter than the log, one longer, and a half-life."""
        return [{"window": "20h"}, {"window": "3000h"}, {"half_life": "5h"}]


def _spacing(n_items: int) -> int:
    """Return the events between two photographs: all of them together take no more room than the events."""
    return max(_CLOSEST, n_items)


@compiled
def _add(
    state: NDArray[np.float64],
    start: int,
    stop: int,
    times: NDArray[np.int64],
    items: NDArray[np.int32],
    half_life: float,
) -> None:
    """Add events to counts or, with a half-life, to the logarithms of sums of `2^(time / half_life)`."""
    for e in range(start, stop):
        i = items[e]
        if half_life > 0:
            new = times[e] / half_life
            high, low = max(state[i], new), min(state[i], new)
            state[i] = high + np.log2(1.0 + np.exp2(low - high))
        else:
            state[i] += 1


@compiled
def _photographs(
    times: NDArray[np.int64], items: NDArray[np.int32], half_life: float, n_items: int, spacing: int
) -> NDArray[np.float64]:
    photographs = np.empty((len(times) // spacing + 1, n_items), np.float64)
    state = np.full(n_items, -np.inf if half_life > 0 else 0.0)
    for p in range(len(photographs)):
        photographs[p] = state
        _add(state, p * spacing, min((p + 1) * spacing, len(times)), times, items, half_life)
    return photographs


@compiled
def _move(
    state: NDArray[np.float64],
    at: int,
    to: int,
    times: NDArray[np.int64],
    items: NDArray[np.int32],
    half_life: float,
    photographs: NDArray[np.float64],
    spacing: int,
) -> None:
    """Take the state from before event `at` to before event `to`, over the last photograph if that is nearer."""
    p = to // spacing
    if to < at or p * spacing > at:
        state[:] = photographs[p]
        at = p * spacing
    _add(state, at, to, times, items, half_life)


@compiled
def _scores(
    order: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    times: NDArray[np.int64],
    items: NDArray[np.int32],
    half_life: float,
    photographs: NDArray[np.float64],
    spacing: int,
) -> NDArray[np.float32]:
    n_items = photographs.shape[1]
    scores = np.full((len(order), n_items), np.float32(-np.inf), np.float32)
    before, now = photographs[0].copy(), photographs[0].copy()
    at_before, at_now = 0, 0
    for b in order:
        _move(now, at_now, stops[b], times, items, half_life, photographs, spacing)
        at_now = stops[b]
        if half_life > 0:
            clock = asked_at[b] / half_life
            for i in range(n_items):
                scores[b, i] = now[i] - clock
            continue
        _move(before, at_before, starts[b], times, items, half_life, photographs, spacing)
        at_before = starts[b]
        most = now.max() + 1.0
        for i in range(n_items):
            if now[i] > 0:
                scores[b, i] = now[i] - before[i] + now[i] / most
    return scores
