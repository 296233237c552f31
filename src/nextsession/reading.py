"""Reading: what a network reads of histories, without the network."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog
from nextsession.errors import DataError
from nextsession.slices import Slices, latest, whole_sessions

Keeps = Literal["all", "wanted", "wanted-sessions"]
"""Which events are read: all that a model is given, wanted ones, or those of sessions in which something was wanted."""


@dataclass(frozen=True)
class Reading:
    """What is read of a history: which events, how many, and what their kinds are called."""

    rows: Literal["session", "history", "whole-sessions"]
    """The last session, the newest events, or the newest sessions that are not too long together."""
    max_length: int
    """Newest events of a row that are read; of whole sessions so many wanted ones, and four times as many in all."""
    keeps: Keeps = "all"
    actions: tuple[str, ...] = ()
    """Kinds of events that are told apart, in the order of their numbers."""
    timeless: str = ""
    """What else could be done where a log has no times; empty: times are not needed."""

    def histories(self, name: str, histories: SessionLog) -> SessionLog:
        """Return the events that are read; every row stays.

        Args:
            name: Of the model, for messages.
            histories: One row a question.

        Raises:
            DataError: Times are needed, and there are none.
        """
        if self.timeless and not histories.timed and histories.n_events:
            raise DataError(
                f"This {name} has learnt from times, and these histories hold only the order of their events. "
                f"Give them times, or {self.timeless}."
            )
        return kept(histories, self.keeps)

    def slices(self, histories: SessionLog) -> Slices:
        """Return which of their events are read."""
        if self.rows == "whole-sessions":
            return whole_sessions(histories, wanted=self.max_length, events=4 * self.max_length)
        if self.rows == "session":
            starts, stops = histories.last_sessions
            return Slices(np.maximum(starts, stops - self.max_length), stops)
        return latest(histories.event_offsets, self.max_length)

    def kinds(self, log: SessionLog) -> NDArray[np.int64] | None:
        """Return the number of the kind of each event, `(N,)`, -1: not known; None where kinds are not read."""
        if not self.actions or log.actions is None:
            return None
        places = {name: place for place, name in enumerate(self.actions)}
        codes = np.array([places.get(name, -1) for name in log.action_names], np.int64)
        return codes[log.actions]


def kept(log: SessionLog, keeps: Keeps) -> SessionLog:
    """Return the events of a log that are read; every row stays."""
    if keeps == "wanted":
        return log.positives()
    if keeps == "all" or log.labels.strides == (0,) or not log.n_sessions:
        return log
    wanted = np.add.reduceat(log.labels == 1, log.session_offsets[:-1], dtype=np.int64) > 0
    return log if wanted.all() else log.sessions(wanted, keep_users=True)
