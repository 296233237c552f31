"""Learning on: served models are told what happened since they were fitted, every so often.

```
 base (as it was loaded) ──► copy ──► update(all that the log holds since) ──► served, in place of the one before
            ▲                                                                      │
            └──────────────────────── the next time ──────────────────────────────┘
```

Each time the model as it was loaded is told everything since, not the last one the latest news.  So sessions
that go on from one time to the next are told whole, what came late stands where it belongs, what was merged
or erased is as if it had always been so, and a server that starts now says what one says that ran all day.
It costs more as the day goes on; a server never learns for more than a tenth of its time.
"""

import copy
import logging
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.errors import StoreError
from nextsession.serving.arms import Arm, Arms
from nextsession.serving.served import Served, Table, prepared
from nextsession.serving.store import Store
from nextsession.serving.told import MARGIN, Told, place_before

log = logging.getLogger(__name__)

EVERY = 60_000
_REST = 9
"""After a time of learning a server does not learn for so many times as long; the first does not count, for most of
it is to compile."""


@dataclass(frozen=True)
class Learnt:
    """How far the model of an arm has learnt."""

    artifact: str
    until: int
    """It was told what had arrived before this instant."""
    version: str
    """Of what it became."""
    at: int | None = None
    """When a model was told anything for the last time; None: never."""
    events: int = 0
    """What it was told: events since it was fitted, and with models that read them items that were shown."""
    seconds: float = 0.0
    """How long that took."""
    total: float = 0.0
    """How long all times took, of all models of the arm."""
    times: int = 0
    failures: int = 0
    error: str = ""
    """Why it failed the last time; empty if it did not."""


class Learner:
    """Follows the log of a store, and tells it to the models of the arms; one thread at a time."""

    def __init__(self, arms: Arms, store: Store, *, every: int | None = None, table: Table | None = None) -> None:
        """Take the arms.

        Args:
            arms: Whose models learn on.
            store: Holds the log.
            every: How often (ms) each model that can learn on is told; 0: never; None: each minute, and only models
                whose answers depend on the instant.
            table: Says what is known of items that are new.
        """
        self._arms, self._store, self._table = arms, store, table
        self.every = EVERY if every is None else every
        self._chosen = every is not None
        self.learnt: dict[str, Learnt] = {}
        """By arm."""
        self._told: Told | None = None
        self._starts: dict[str, int] = {}  # by artifact: the place in the log after which it is told
        self._learnt_at = self._rested = 0

    def refusal(self, served: Served) -> str:
        """Return why a model is not told anything; empty if it is."""
        if not self.every:
            return "the server was told to learn never"
        if not served.model.can_update:
            return "the model cannot learn on"
        if served.indexable:
            return "the model scores by vectors, and an index would no longer be of them"
        if not self._chosen and not served.reads_moment:
            return "the answers of the model do not depend on the instant; --learn tells it all the same"
        return ""

    def learn(self, now: int) -> None:
        """Tell the models of all arms what arrived before the last full `every`, those that do not know it yet."""
        if not self.every:
            return
        until = now // self.every * self.every
        learning = [arm for arm in self._arms if not self.refusal(arm.served)]
        names = {arm.name for arm in learning}
        self.learnt = {name: state for name, state in self.learnt.items() if name in names}
        stale = [arm for arm in learning if self._is_stale(arm, until, now)]
        if not stale:
            return
        began = perf_counter()
        try:
            told = self._follow([arm.served for arm in learning], until, now)
        except StoreError as error:
            log.warning("What happened could not be read: %s", error)
            for arm in stale:
                self._failed(arm, str(error), until)
        else:
            for arm in stale:
                self._tell(arm, told, until, now)
        first = not self._learnt_at or any(self._is_first(arm, now) for arm in stale)
        took = 0.0 if first else perf_counter() - began
        self._learnt_at, self._rested = now, now + round(_REST * 1000 * took)

    # -- inside ---------------------------------------------------------------------------------

    def _is_stale(self, arm: Arm, until: int, now: int) -> bool:
        state = self.learnt.get(arm.name)
        if state is None or state.version != arm.served.version:
            return True
        return state.until != until and not self._learnt_at <= now < self._rested  # clocks are set back, too

    def _is_first(self, arm: Arm, now: int) -> bool:
        """Say whether a model was told just now for the first time."""
        state = self.learnt.get(arm.name, _NOTHING)
        return state.times == 1 and state.at == now

    def _follow(self, models: list[Served], until: int, now: int) -> Told:
        """Return everything that any of the models is to be told."""
        rewritten, after = self._store.rewritten(), min(self._start(model, now) for model in models)
        told = self._told
        if told is None or told.after != after or told.rewritten != rewritten:
            told = self._told = Told(after, rewritten)
        told.read(self._store, place_before(self._store, until, told.place, now=now))
        return told

    def _start(self, served: Served, now: int) -> int:
        """Return the place in the log after which a model is told."""
        base = served.loaded
        if base.learnt_to is not None:
            return base.learnt_to
        found = self._starts.get(base.artifact)
        if found is None:
            found = place_before(self._store, base.model.trained_until_ - MARGIN, now=now)
            self._starts = {**self._starts, base.artifact: found}
        return found

    def _tell(self, arm: Arm, told: Told, until: int, now: int) -> None:
        """Tell the model of an arm everything since it was fitted, and let the result answer."""
        base, state, began = arm.served.loaded, self.learnt.get(arm.name, _NOTHING), perf_counter()
        try:
            news, place = told.log(
                gap=base.gap,
                since=base.model.trained_until_ if base.learnt_to is None else None,
                after=self._start(base, now),
                shown=base.model.reads_ignored,
                numbers=base.model.vocabulary_.ids.dtype == np.int64,
                until=until,
            )
            version = f"{base.artifact}+{place}" + (f".{told.rewritten}" if told.rewritten else "")
            if not place:
                served = base
            elif version == arm.served.version:
                served = arm.served
            else:
                served = self._made(arm, news, version)
            if served is not arm.served:
                self._arms.learn(arm.name, served)
        except Exception as error:  # whatever a model does, the one before goes on
            log.exception("The model %s, version %s, could not learn on.", base.model.name, arm.served.version)
            self._failed(arm, f"{type(error).__name__}: {error}", until)
            return
        took = perf_counter() - began
        state = replace(state, artifact=base.artifact, until=until, version=served.version, error="")
        if served is not arm.served:
            state = replace(
                state, at=now, events=news.n_events, seconds=took, total=state.total + took, times=state.times + 1
            )
        self.learnt = {**self.learnt, arm.name: state}

    def _failed(self, arm: Arm, error: str, until: int) -> None:
        state = self.learnt.get(arm.name, _NOTHING)
        state = replace(
            state, artifact=arm.served.artifact, until=until, version=arm.served.version, error=error,
            failures=state.failures + 1,
        )  # fmt: skip
        self.learnt = {**self.learnt, arm.name: state}

    def _made(self, arm: Arm, news: SessionLog, version: str) -> Served:
        """Return the model of an arm as it was loaded, told the news."""
        base = arm.served.loaded
        model = copy.copy(base.model).update(news)  # what it learns it puts into fresh arrays
        items, new = model.vocabulary_, len(model.vocabulary_) - len(base.catalogue)
        table = base.catalogue.table
        if new:
            known = None if self._table is None else self._table(items)
            table = known or table.take(np.append(np.arange(len(base.catalogue)), np.full(new, -1)))
        popularity = base.popularity
        served = prepared(
            model,
            gap=base.gap,
            version=version,
            place=base.place,
            table=table,
            asked=base.asked,
            popularity=None if popularity is None else np.append(popularity, np.zeros(new, np.int64)),
            learnt_to=base.learnt_to,
            before=base,
        )
        served.catalogue.out_of_stock = arm.served.catalogue.out_of_stock
        return served


_NOTHING = Learnt("", 0, "")
