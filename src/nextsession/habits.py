"""Habits: which items people have again, as far as everybody's histories say.

What somebody had once is had again for two reasons: the person, and the item.  Milk is, a frying pan is not;
and how many people had an item says how far its numbers can be believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog

N_FEATURES = 3
_FEW = 10.0
"""With fewer people than this little is known of an item."""


@dataclass(frozen=True, eq=False)
class Habits:
    """How many people wanted each item, and how often."""

    people: NDArray[np.int64]  # (V,)
    times: NDArray[np.int64]  # (V,) events
    pairs: NDArray[np.int64]  # (N,) person * V + item of all that is counted, rising; empty once loaded
    of_pairs: NDArray[np.int64]  # (N,) events of each

    @classmethod
    def of(cls, log: SessionLog) -> "Habits":
        """Count the wanted events of a log."""
        wanted = np.flatnonzero(log.labels == 1)
        person = np.repeat(np.arange(len(log)), np.diff(log.event_offsets))[wanted]
        pairs, counts = np.unique(person * log.n_items + log.items[wanted], return_counts=True)
        items = pairs % max(1, log.n_items)
        people = np.bincount(items, minlength=log.n_items)
        times = np.bincount(log.items[wanted], minlength=log.n_items)
        return cls(people, times, pairs, counts)

    def features(
        self, items: NDArray[np.int64], past: NDArray[np.int64], persons: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Return what everybody's habits say of items that people had, `(K, 3)`.

        The logarithms of 1 + the people who had it, of 1 + the times that anybody had it again, and of the share of
        the two, drawn towards little where only a few had it.

        Args:
            items: `(K,)`.
            past: `(K,)` how often each of those who ask had the item.
            persons: `(K,)` rows of the log that was counted, if it is these who ask: what they had beyond `past` is
                the answer to their question, or comes later, and is not counted.
        """
        people, times = self.people[items], self.times[items]
        if persons is not None and len(self.pairs):
            wanted = persons * len(self.times) + items
            place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
            own = np.where(self.pairs[place] == wanted, self.of_pairs[place], 0)
            times = times - np.maximum(own - past, 0)
            people = people - ((own > 0) & (past == 0))
        again = np.maximum(times - people, 0)
        share = np.log((again + 0.5) / (people + _FEW))
        return np.stack([np.log1p(people) / 4, np.log1p(again) / 4, share], axis=1).astype(np.float32)

    def extended(self, n_items: int) -> "Habits":
        """Return the same for a longer list of items; nobody had the new ones."""
        more = np.zeros(n_items - len(self.people), np.int64)
        none = np.zeros(0, np.int64)
        return Habits(np.concatenate([self.people, more]), np.concatenate([self.times, more]), none, none)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts as arrays by name; who had what stays behind."""
        return {"habits/people": self.people, "habits/times": self.times}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> "Habits | None":
        """Take back what `arrays` gave; None if it gave nothing."""
        if "habits/people" not in arrays:
            return None
        none = np.zeros(0, np.int64)
        return cls(arrays["habits/people"], arrays["habits/times"], none, none)
