"""What a model is told: the log of the server from a place on, kept as columns, cut into sessions.

It is read once and then followed.  When entries were merged, erased or removed by age it is read again
from the start, so it is at any time what a server that starts now would read.
"""

import heapq
from array import array
from collections.abc import Iterator
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog
from nextsession.data.sessions import arrange
from nextsession.data.vocabulary import Vocabulary
from nextsession.serving.catalogue import number
from nextsession.serving.events import SHOWN
from nextsession.serving.store import Store

MARGIN = 3_600_000
"""Clocks of several machines differ by less than this (ms)."""


class Told:
    """Events, and items that were shown, in the order of the places at which they stand in the log."""

    def __init__(self, after: int, rewritten: int) -> None:
        """Start with nothing.

        Args:
            after: The place after which is read.
            rewritten: What the store counted of changes before anything was read.
        """
        self.after = after
        self.rewritten = rewritten
        self.place = after
        """Everything up to here was read."""
        self._visitors: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._actions: dict[str, int] = {SHOWN: 0}
        self._who, self._what, self._action, self._label = array("i"), array("i"), array("h"), array("b")
        self._when, self._where = array("q"), array("q")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._where)

    def read(self, store: Store, place: int) -> None:
        """Read on, up to a place."""
        visitors, items, actions = self._visitors, self._items, self._actions
        rows = heapq.merge(_events(store, self.place), _shown(store, self.place), key=itemgetter(0))
        for seq, visitor, time, item, action, label in rows:
            if seq > place:
                break
            self._where.append(seq)
            self._who.append(visitors.setdefault(visitor, len(visitors)))
            self._when.append(time)
            self._what.append(items.setdefault(item, len(items)))
            self._action.append(actions.setdefault(action, len(actions)))
            self._label.append(label)
            self.place = seq  # should the store fail now, nothing is read twice
        self.place = max(self.place, place)

    def log(
        self,
        *,
        gap: int,
        since: int | None = None,
        after: int = 0,
        shown: bool = False,
        numbers: bool = False,
        until: int | None = None,
    ) -> tuple[SessionLog, int]:
        """Return what a model is told, and the place of the last of it; 0 if there is nothing.

        Args:
            gap: The silence (ms) that ends a session.
            since: Leave out what happened before this instant.
            after: Leave out what stands at or before this place.
            shown: With the items that were shown, as ignored events.
            numbers: Ids of items are numbers; what is none is left out.
            until: What says that it happened after this instant, for a clock ran ahead, happened at it.
        """
        where, when, who, what, action, label = (
            np.array(column) for column in (self._where, self._when, self._who, self._what, self._action, self._label)
        )
        if until is not None:
            when = np.minimum(when, until)
        chosen = where > after
        if since is not None:
            chosen &= when >= since
        if not shown:
            chosen &= action != self._actions[SHOWN]
        texts = list(self._items)
        ids: NDArray[np.object_] | NDArray[np.int64] = np.array(texts, dtype=object)
        if numbers:
            values = [number(text) for text in texts]
            known = np.array([value is not None for value in values], np.bool_)
            chosen &= known[what] if len(known) else False
            ids = np.array([value for value in values if value is not None], np.int64)
            what = (np.cumsum(known) - 1)[what] if len(known) else what
        rows = np.flatnonzero(chosen)
        order = arrange(who[rows], when[rows], n_users=len(self._visitors), gap=gap)
        places = rows[order.rows]
        log = SessionLog(
            items=what[places].astype(np.int32),
            times=when[places],
            session_offsets=order.session_offsets,
            user_offsets=order.user_offsets,
            vocabulary=Vocabulary(ids),
            labels=label[places],
            actions=action[places],
            action_names=tuple(self._actions),
            users=np.array(list(self._visitors), dtype=object),
        )
        log = log.take(np.flatnonzero(np.diff(log.event_offsets)))
        return log, int(where[rows[-1]]) if len(rows) else 0


_Row: TypeAlias = tuple[int, str, int, str, str, int]
"""Place, visitor, time, item, action, label."""


def _events(store: Store, after: int) -> Iterator[_Row]:
    for seq, event, _ in store.events(after):
        yield seq, event.visitor, event.time, event.item, event.action, event.label


def _shown(store: Store, after: int) -> Iterator[_Row]:
    for seq, shown in store.shown(after):
        for item in () if shown.shadow else shown.items:  # what shadows list nobody saw
            yield seq, shown.visitor, shown.time, item, SHOWN, 0


def place_before(store: Store, instant: int, low: int = 0, *, now: int) -> int:
    """Return the place in the log before the first event, after the place `low`, that arrived at an instant or later.

    Events stand in the order of arrival, but for clocks that differ: any place will do that all agree on.  Those
    that claim to have arrived more than an hour from `now` came when a clock ran ahead, and say nothing.
    """
    high = max(low, store.last())
    while low < high:
        middle = (low + high) // 2
        found = next((stored for stored in store.events(middle) if stored.received <= now + MARGIN), None)
        if found is None or found.seq > high or found.received >= instant:
            high = middle
        else:
            low = found.seq
    return low
