"""Tallies: how often every item had occurred by any instant, of a log whose events stand by time.

The counts are kept every `V` events or so, as photographs, which together take about as much room as
the events; the counts at an instant are those of the last photograph before it and the few events since.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled

_CLOSEST = 4096  # events between two photographs at least


@dataclass(frozen=True, eq=False)
class Tally:
    """Events of items by time."""

    times: NDArray[np.int64]  # (N,) ms, never falling
    items: NDArray[np.int32]  # (N,)
    n_items: int

    @classmethod
    def of(cls, times: NDArray[np.int64], items: NDArray[np.int32], n_items: int) -> "Tally":
        """Sort events by time."""
        order = np.argsort(times, kind="stable")
        return cls(times[order], items[order], n_items)

    def joined(self, times: NDArray[np.int64], items: NDArray[np.int32], n_items: int) -> "Tally":
        """Return these events and others, of perhaps more items; quick if the others are all later."""
        if len(times) == 0 or len(self.times) == 0 or times.min() >= self.times[-1]:
            order = np.argsort(times, kind="stable")
            return Tally(
                np.concatenate([self.times, times[order]]), np.concatenate([self.items, items[order]]), n_items
            )
        return Tally.of(np.concatenate([self.times, times]), np.concatenate([self.items, items]), n_items)

    def before(self, instant: int) -> NDArray[np.int32]:
        """Return how many events each item had strictly before an instant, `(V,)`."""
        return self._among_first(int(np.searchsorted(self.times, instant)))

    def between(self, instant: int, windows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how many events each item had in `[instant - w, instant)` for each window `w`, `(W, V)`."""
        now = self.before(instant)
        return np.stack([now - self.before(instant - int(w)) for w in windows])

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """The time of the first event of each item, `(V,)`; the greatest int64 for one without."""
        found = np.full(self.n_items, np.iinfo(np.int64).max)
        np.minimum.at(found, self.items, self.times)
        return found

    @cached_property
    def _every(self) -> int:
        return max(_CLOSEST, self.n_items)

    @cached_property
    def _photographs(self) -> NDArray[np.int32]:
        """The counts after every so many events, `(P, V)`; the first holds none."""
        return _photographs(self.items, self.n_items, self._every)

    def _among_first(self, events: int) -> NDArray[np.int32]:
        place = events // self._every
        counts: NDArray[np.int32] = self._photographs[place].copy()
        _add(counts, self.items[place * self._every : events])
        return counts


@compiled
def _add(counts: NDArray[np.int32], items: NDArray[np.int32]) -> None:
    for item in items:
        counts[item] += 1


@compiled
def _photographs(items: NDArray[np.int32], n_items: int, every: int) -> NDArray[np.int32]:
    found = np.zeros((len(items) // every + 1, n_items), np.int32)
    for p in range(1, len(found)):
        found[p] = found[p - 1]
        _add(found[p], items[(p - 1) * every : p * every])
    return found
