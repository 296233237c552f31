"""From the record of a visitor to the history that a model is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog, offsets_of
from nextsession.recommender import Exclude, Recommender
from nextsession.scores import Limits
from nextsession.serving.catalogue import Catalogue
from nextsession.serving.events import Kept


@dataclass(frozen=True, eq=False)
class History:
    """The events of one visitor, cut into sessions as logs are: a silence of more than `gap` ends one.

    It gives a model what `Recommender.recommend` would give it of the same events as a `SessionLog`,
    without building a vocabulary for each request.
    """

    model: Recommender[Any]
    catalogue: Catalogue
    events: Sequence[Kept]
    """Oldest first."""
    gap: int

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """The code of the item of each event; -1 where the model does not know it."""
        return self.catalogue.codes([event.item for event in self.events])

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """When each event happened (ms)."""
        return np.array([event.time for event in self.events], np.int64)

    @cached_property
    def sessions(self) -> NDArray[np.int64]:
        """The session of each event, from 0."""
        cut = np.zeros(len(self.events), np.int64)
        np.cumsum(np.diff(self.times) > self.gap, out=cut[1:])
        return cut

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """Was the item wanted?"""
        return np.array([event.label == 1 for event in self.events], np.bool_)

    @cached_property
    def given(self) -> NDArray[np.int64]:
        """The places of the events that the model is given."""
        known = self.codes >= 0
        return np.flatnonzero(known if self.model.reads_ignored else known & self.wanted)

    @cached_property
    def asked_after(self) -> int:
        """No question may be asked before this instant."""
        return int(self.times[-1]) if len(self.events) else 0

    def log(self, rows: Sequence[NDArray[np.int64]] | None = None) -> SessionLog:
        """Return what the model is given: one row, or one for each choice of `given` events."""
        chosen = [self.given] if rows is None else rows
        places = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
        row = np.repeat(np.arange(len(chosen)), [len(r) for r in chosen])
        session = self.sessions[places]
        starts = np.ones(len(places), np.bool_)
        starts[1:] = (session[1:] != session[:-1]) | (row[1:] != row[:-1])
        first = np.flatnonzero(starts)
        actions, names = self._actions(places)
        return SessionLog(
            items=self.codes[places],
            times=self.times[places],
            session_offsets=np.append(first, len(places)),
            user_offsets=offsets_of(np.bincount(row[first], minlength=len(chosen))),
            vocabulary=self.model.vocabulary_,
            labels=self.wanted[places].astype(np.int8) if self.model.reads_ignored else None,  # type: ignore[arg-type]
            actions=actions,
            action_names=names,
        )

    def barred(self, exclude: Exclude) -> NDArray[np.bool_]:
        """Say of each event whether its item must not be listed."""
        if exclude == "nothing" or not len(self.events):
            return np.zeros(len(self.events), np.bool_)
        return self.wanted & (self.sessions == self.sessions[-1]) if exclude == "session" else self.wanted

    def limits(self, exclude: Exclude, deny: NDArray[np.int32], allowed: NDArray[np.bool_] | None) -> Limits:
        """Return what the list must not hold."""
        codes = self.codes[self.barred(exclude)]
        barred = np.concatenate([codes[codes >= 0], deny[deny >= 0]])
        return Limits(np.array([0, len(barred)]), barred, allowed)

    def _actions(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int16] | None, tuple[str, ...]]:
        if not getattr(self.model, "reads_actions", False):
            return None, ()
        actions = [self.events[place].action for place in places]
        names = tuple(dict.fromkeys(actions))
        return np.array([names.index(a) for a in actions], np.int16), names
