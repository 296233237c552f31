"""Slices: which events of a log are one row of a network, in training and in answers.

A row is a slice of the events of one user (or of one session).  Slices may overlap, so a long
history can be cut into pieces, and a session into all its beginnings, without copying an event.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog, offsets_of

Windows = Literal["latest", "chunks", "prefixes"]
"""Which slices of a long row are trained on: its newest events, all of it in pieces, or all its beginnings."""


@dataclass(frozen=True, eq=False)
class Slices:
    """Rows of training: row `r` is events `starts[r]..stops[r]` of the log."""

    starts: NDArray[np.int64]  # (R,)
    stops: NDArray[np.int64]  # (R,)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The events of each row, `(R,)`."""
        return self.stops - self.starts

    def longer_than(self, least: int) -> "Slices":
        """Return the rows of more than `least` events."""
        kept = self.lengths > least
        return Slices(self.starts[kept], self.stops[kept])


def latest(offsets: NDArray[np.int64], length: int) -> Slices:
    """Return the newest `length` events of each row.

    >>> latest(np.array([0, 5, 7]), 3).starts
    array([2, 5])
    """
    return Slices(np.maximum(offsets[:-1], offsets[1:] - length), offsets[1:].copy())


def chunks(offsets: NDArray[np.int64], length: int, stride: int | None = None) -> Slices:
    """Return pieces of at most `length` events, the newest first; together they hold every event.

    Each piece begins `stride` events before the next (`length` by default).  With `stride = length - 1` every
    event but the first of a row is the target of a shift within a piece exactly once.
    """
    stride = stride or length
    sizes = np.diff(offsets)
    pieces = np.where(sizes > 0, 1 + np.maximum(0, -(-(sizes - length) // stride)), 0)
    rows = np.repeat(np.arange(len(sizes)), pieces)
    back = (np.arange(len(rows)) - np.repeat(offsets_of(pieces)[:-1], pieces)) * stride
    stops = offsets[1:][rows] - back
    return Slices(np.maximum(offsets[:-1][rows], stops - length), stops)


def sliding(offsets: NDArray[np.int64], length: int, stride: int) -> Slices:
    """Return windows of `length` events, the newest first, each `stride` before the next, and the oldest of each row.

    Unlike the pieces of `chunks`, all of a row longer than `length` are full.

    >>> sliding(np.array([0, 7]), 4, 2).starts
    array([3, 1, 0])
    """
    found = chunks(offsets, length, stride)
    ends = offsets[1:][np.searchsorted(offsets, found.starts, side="right") - 1]
    return Slices(found.starts, np.minimum(found.starts + length, ends))


def prefixes(offsets: NDArray[np.int64], length: int) -> Slices:
    """Return every beginning of two events or more, cut to its newest `length`.

    >>> prefixes(np.array([0, 3]), 10).stops
    array([2, 3])
    """
    sizes = np.maximum(np.diff(offsets) - 1, 0)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(len(rows)) - np.repeat(offsets_of(sizes)[:-1], sizes)
    stops = offsets[:-1][rows] + within + 2
    return Slices(np.maximum(offsets[:-1][rows], stops - length), stops)


def slices(offsets: NDArray[np.int64], windows: Windows, length: int) -> Slices:
    """Return the slices of rows that begin at `offsets`, as `windows` says; see `latest`, `chunks`, `prefixes`."""
    if windows == "prefixes":
        return prefixes(offsets, length)
    return latest(offsets, length) if windows == "latest" else chunks(offsets, length, max(1, length - 1))


def whole_sessions(log: SessionLog, *, wanted: int, events: int) -> Slices:
    """Return the newest sessions of each user that together hold at most so many wanted events, and events in all.

    A newest session that alone holds more is cut to its newest events.  Empty rows stay empty.
    """
    return Slices(
        _starts_of_whole(log.user_offsets, log.session_offsets, np.asarray(log.labels), wanted, events),
        log.event_offsets[1:].copy(),
    )


@compiled
def _starts_of_whole(
    user_offsets: NDArray[np.int64],
    session_offsets: NDArray[np.int64],
    labels: NDArray[np.int8],
    most_wanted: int,
    most: int,
) -> NDArray[np.int64]:
    """Return where the sessions of each user begin that are kept."""
    starts = np.empty(len(user_offsets) - 1, np.int64)
    for u in range(len(starts)):
        start = stop = session_offsets[user_offsets[u + 1]]
        wanted = 0
        for s in range(user_offsets[u + 1] - 1, user_offsets[u] - 1, -1):
            begin = session_offsets[s]
            here = 0
            for e in range(begin, start):
                here += labels[e]
            if stop - begin > most or wanted + here > most_wanted:
                break
            start, wanted = begin, wanted + here
        if start == stop and user_offsets[u + 1] > user_offsets[u]:  # the newest session alone is too long
            begin = session_offsets[user_offsets[u + 1] - 1]
            while start > begin and stop - start < most and wanted + labels[start - 1] <= most_wanted:
                start -= 1
                wanted += labels[start]
        starts[u] = start
    return starts
