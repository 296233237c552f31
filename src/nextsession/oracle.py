"""The oracle of the simulated shop: how well anybody could predict it.

The oracle keeps the `Recommender` contract, so it stands in a table like any model, and its row says
how close to the possible the others are.

**What it knows.** The world (what each item is like, when it is on the shelves, how pages are
filled), the true taste of the visitor who asks, every click of that visitor before the asked
instant, and the true intent at that instant; only when the visit has not begun yet is the intent
uncertain, and then its true distribution is known.  Given these, the past is of no further use:
the process is Markov.

**What it answers.** For each item the exact probability that the visitor's *next click* is that item.

**Why it bounds a model.** Every model sees less (clicks and pages before the instant are functions
of what led to the state, so they add nothing to it), and no ranking can have a higher expected
recall@k, MRR or NDCG for a single next click than the one by its true probability.  On a finite test
set a model may still be above by luck, within the interval of their difference.  For a question with
several answers (all clicks of a visit) the first of them is bounded in this sense; for the others the ranking is
a strong reference rather than a strict bound.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.data.shop import Shop, ShopSettings
from nextsession.data.shop_visits import RECENT, States, Taste, carried, chances, meet, seeded
from nextsession.data.shop_world import World
from nextsession.data.vocabulary import NO_ITEM, Vocabulary
from nextsession.errors import DataError
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores


class Oracle(Recommender[ShopSettings]):
    """Ranks items by the true probability of being clicked next; its settings are those of the shop.

    `Oracle(shop.settings).fit(log)`: nothing is learnt from the log but how its ids are written.
    Visitors are found again by the clicks of their histories (instant and item), so protocols that
    make every session a visitor of its own do not confuse it.  Where there is no click yet they are
    found by user id or, if the rows have lost it, by the page they see at the asked instant.
    """

    name = "oracle"
    reads_clock = True

    states_: dict[str, NDArray[Any]]  # the columns of States, by user and time

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        shop = Shop(self.config)
        blocks = [states for _, states in shop.blocks()]
        columns = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
        self.states_ = dict(zip(States._fields, columns, strict=True))
        ids = np.arange(self.config.items)
        self.vocabulary_ = Vocabulary(ids.astype(str).astype(object) if log.vocabulary.ids.dtype == object else ids)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return self.states_

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.states_ = arrays

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DenseScores:
        world = Shop(self.config).world
        states = States(**self.states_)
        found = np.zeros((len(histories), len(self.vocabulary_)))
        _foresee(world, states, self._visitors(histories, asked_at), asked_at, found)
        return DenseScores(np.where(found > 0, found, -np.inf).astype(np.float32))

    def _visitors(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find out who asks each question."""
        states = States(**self.states_)
        clicks = np.flatnonzero(states.item != NO_ITEM)
        users = np.full(len(histories), -1)
        known = np.diff(histories.event_offsets) > 0
        last = histories.event_offsets[1:][known] - 1
        place = _places(
            _key(states.time[clicks], states.item[clicks]), _key(histories.times[last], histories.items[last])
        )
        if np.any(place < 0):
            row = int(np.flatnonzero(known)[np.argmin(place)])
            raise DataError(
                f"The oracle knows only clicks of its own simulated shop; the last event of question {row} "
                f"is none of them. Give it the settings that made the log."
            )
        users[known] = states.user[clicks[place]]
        ids = histories.users
        if np.issubdtype(ids.dtype, np.integer) and np.array_equal(ids[known], users[known]):
            users[~known] = np.where((ids >= 0) & (ids < self.config.users), ids, -1)[~known]
        lost = users < 0
        place = _places(states.time, asked_at[lost])
        if np.any(place < 0):
            row = int(np.flatnonzero(lost)[np.argmin(place)])
            raise DataError(
                f"The oracle cannot tell who asks question {row}: its history is empty, it has no user id of the "
                f"simulated shop, and nobody clicks at {asked_at[row]}."
            )
        users[lost] = states.user[place]
        return users


def _places(known: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """Return a place of each wanted value among the known, -1 where there is none."""
    if len(known) == 0:
        return np.full(len(wanted), -1)
    order = np.argsort(known, kind="stable")
    found = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[found] == wanted, found, -1)


def _key(times: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Mix an instant and an item to one number; two clicks of one shop hardly ever share it."""
    key = (times.astype(np.uint64) << np.uint64(20)) ^ items.astype(np.uint64)
    return key * np.uint64(0x9E3779B97F4A7C15)


@compiled
def _foresee(
    world: World,
    states: States,
    users: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    random = np.empty(1, np.uint64)
    kinds, categories = len(world.cells), len(world.category)
    taste = Taste(np.empty(kinds), np.empty(kinds), np.empty(categories))
    recent = np.empty(RECENT, np.int32)
    periods = len(world.starts) - 1
    for q in range(len(users)):
        seeded(random, world.seed, users[q])
        meet(world, random, taste)
        now = asked_at[q]
        period = min(max((now - world.opening) // world.period, 0), periods - 1)
        first = np.searchsorted(states.user, users[q])
        end = np.searchsorted(states.user, users[q] + 1)
        state = first + np.searchsorted(states.time[first:end], now) - 1  # the latest strictly before now
        recent[:] = -1
        known, row = 0, state
        while row >= first and known < RECENT:
            if states.item[row] >= 0:
                recent[known] = states.item[row]
                known += 1
            row -= 1
        if state >= first and now <= states.end[state]:  # the visit goes on
            chances(world, taste, states.intent[state], states.item[state], recent, period, 1.0, out[q])
            continue
        kept = carried(world, float(now - states.end[state])) if state >= first else 0.0
        for c in range(categories):
            share = (1.0 - kept) * taste.wish[c]
            if state >= first and c == states.intent[state]:
                share += kept
            if share > 1e-12:
                chances(world, taste, c, -1, recent, period, share, out[q])
