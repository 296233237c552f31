"""From the record of a visitor to the history that a model is asked about."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog, offsets_of
from nextsession.recommender import Exclude, Recommender
from nextsession.scores import Limits
from nextsession.serving.catalogue import Catalogue
from nextsession.serving.events import Kept


class History:
    """The events of one visitor, cut into sessions as logs are: a silence of more than `gap` ends one.

    It gives a model what `Recommender.recommend` would give it of the same events as a `SessionLog`,
    without building a vocabulary for each request.  Histories are short: lists are faster than arrays.
    """

    def __init__(self, model: Recommender[Any], catalogue: Catalogue, events: Sequence[Kept], gap: int) -> None:
        """Take events, oldest first."""
        self.model = model
        self.events = events
        self.codes = catalogue.numbers([event.item for event in events])
        """The code of the item of each event; -1 where the model does not know it."""
        self.sessions: list[int] = []
        """The session of each event, from 0."""
        session, before = 0, events[0].time if events else 0
        for event in events:
            session += event.time - before > gap
            before = event.time
            self.sessions.append(session)
        self.asked_after = before
        """No question may be asked before this instant."""
        every = model.reads_ignored
        self.given = [
            place
            for place, (code, event) in enumerate(zip(self.codes, events, strict=True))
            if code >= 0 and (every or event.label == 1)
        ]
        """The places of the events that the model is given."""

    def log(self) -> SessionLog:
        """Return what the model is given: a log of one row."""
        return log_of_all([self])

    def log_of(self, rows: Sequence[Sequence[int]]) -> SessionLog:
        """Return a row for each choice of `given` events."""
        places = [place for row in rows for place in row]
        row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        session = np.array([self.sessions[place] for place in places], np.int64)
        starts = np.ones(len(places), np.bool_)
        starts[1:] = (session[1:] != session[:-1]) | (row_of[1:] != row_of[:-1])
        first = np.flatnonzero(starts)
        actions, names = self._actions(places)
        return SessionLog(
            items=np.array([self.codes[place] for place in places], np.int32),
            times=np.array([self.events[place].time for place in places], np.int64),
            session_offsets=np.append(first, len(places)),
            user_offsets=offsets_of(np.bincount(row_of[first], minlength=len(rows))),
            vocabulary=self.model.vocabulary_,
            labels=self._labels(places),  # type: ignore[arg-type]
            actions=actions,
            action_names=names,
        )

    def barred(self, exclude: Exclude) -> list[int]:
        """Return the places of the events whose items must not be listed."""
        if exclude == "nothing" or not self.events:
            return []
        last = self.sessions[-1]
        return [
            place
            for place, (event, session) in enumerate(zip(self.events, self.sessions, strict=True))
            if event.label == 1 and (exclude == "history" or session == last)
        ]

    def limits(self, exclude: Exclude, deny: Sequence[int], allowed: NDArray[np.bool_] | None) -> Limits:
        """Return what the list must not hold: items of the history, and denied ones."""
        barred = [self.codes[place] for place in self.barred(exclude)]
        codes = np.array([code for code in (*barred, *deny) if code >= 0], np.int32)
        return Limits(np.array([0, len(codes)]), codes, allowed)

    def _labels(self, places: Sequence[int]) -> NDArray[np.int8] | None:
        """Return the labels of events, for models that read what was ignored."""
        return np.array([self.events[place].label for place in places], np.int8) if self.model.reads_ignored else None

    def _actions(self, places: Sequence[int]) -> tuple[NDArray[np.int16] | None, tuple[str, ...]]:
        return _kinds([self.events[place].action for place in places]) if _reads_actions(self.model) else (None, ())


def log_of_all(histories: Sequence[History]) -> SessionLog:
    """Return what their model is given of several visitors: a log with a row for each."""
    model, reads_actions = histories[0].model, _reads_actions(histories[0].model)
    items: list[int] = []
    times: list[int] = []
    labels: list[int] = []
    actions: list[str] = []
    sessions, users = [], [0]
    for history in histories:
        codes, events, session_of, before = history.codes, history.events, history.sessions, -1
        for place in history.given:
            if session_of[place] != before:
                sessions.append(len(items))
                before = session_of[place]
            items.append(codes[place])
            times.append(events[place].time)
        users.append(len(sessions))
        if model.reads_ignored:
            labels += [events[place].label for place in history.given]
        if reads_actions:
            actions += [events[place].action for place in history.given]
    sessions.append(len(items))
    kinds, names = _kinds(actions) if reads_actions else (None, ())
    return SessionLog.of_rows(
        np.array(items, np.int32),
        np.array(times, np.int64),
        np.array(sessions, np.int64),
        np.array(users, np.int64),
        model.vocabulary_,
        labels=np.array(labels, np.int8) if model.reads_ignored else None,
        actions=kinds,
        action_names=names,
    )


def limits_of_all(limits: Sequence[Limits]) -> Limits:
    """Join the limits of several questions that may get the same items but for what is barred."""
    if len(limits) == 1:
        return limits[0]
    offsets = offsets_of([len(one.barred) for one in limits])
    return Limits(offsets, np.concatenate([one.barred for one in limits]), limits[0].allowed)


def _kinds(actions: Sequence[str]) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    places = {name: place for place, name in enumerate(dict.fromkeys(actions))}
    return np.array([places[name] for name in actions], np.int16), tuple(places)


def _reads_actions(model: Recommender[Any]) -> bool:
    return bool(getattr(model, "reads_actions", False))
