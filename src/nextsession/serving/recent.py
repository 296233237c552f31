"""What many want at the moment: a count of events that fades, for lists that no model can fill."""

import math

import numpy as np

from nextsession.serving.events import DAY, SHOWN, Stored
from nextsession.serving.store import Store

_MOST = 50_000
"""Items that are counted; the faintest are dropped."""
_LISTED = 1000
_BEHIND = 200_000
"""Events that are read when a server starts."""
_AT_ONCE = 20_000
_SET_BACK = 60_000
"""A clock that is so much (ms) behind what was counted has been set back."""


class Recent:
    """Counts wanted events of items, each worth half after `half_life`; read from the log, so all workers agree.

    Counts are kept as logarithms of sums of `2^(time / half_life)`, which never have to be faded.
    """

    def __init__(self, half_life: int = DAY) -> None:
        """Start with nothing."""
        self.half_life = half_life
        self.items: list[str] = []
        """Most wanted first."""
        self._counts: dict[str, float] = {}
        self._after: int | None = None
        self._latest = 0

    def follow(self, store: Store, now: int) -> bool:
        """Read on in the log; say whether there may be more.

        What was counted while the clock ran ahead would outdo everything until then: it is counted again.
        """
        if self._latest > now + _SET_BACK:
            self._counts, self._after, self._latest = {}, None, 0
        if self._after is None:
            self._after = max(0, store.last() - _BEHIND)
        read = 0
        for stored in store.events(self._after, _AT_ONCE):
            self.add(stored, now)
            self._after, read = stored.seq, read + 1
        if read:
            self.rank()
        return read == _AT_ONCE

    def add(self, stored: Stored, now: int) -> None:
        """Count one event, as of now if it says that it is yet to come."""
        event = stored.event
        if event.label != 1 or event.action == SHOWN:
            return
        time = min(event.time, now)
        self._latest = max(self._latest, time)
        new, old = time / self.half_life, self._counts.get(event.item, -math.inf)
        low, high = min(new, old), max(new, old)
        self._counts[event.item] = high + math.log2(1 + 2.0 ** (low - high))

    def rank(self) -> None:
        """Put the items in order; ties by id."""
        counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
        if len(counts) > _MOST:
            least = np.partition(counts, -_MOST // 2)[-_MOST // 2]
            self._counts = {item: count for item, count in self._counts.items() if count >= least}
            counts = counts[counts >= least]
        if len(counts) > _LISTED:
            worthy = np.flatnonzero(counts >= np.partition(counts, -_LISTED)[-_LISTED]).tolist()
            names = list(self._counts)
            pairs = [(-self._counts[names[place]], names[place]) for place in worthy]
        else:
            pairs = [(-count, item) for item, count in self._counts.items()]
        self.items = [item for _, item in sorted(pairs)[:_LISTED]]
