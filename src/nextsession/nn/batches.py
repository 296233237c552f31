"""Batches: which parts of a log are rows of training, and how some of them become a batch.

A row is a slice of the events of one user (or of one session).  Slices may overlap, so a long
history can be cut into pieces, and a session into all its beginnings, without copying an event.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog, offsets_of
from nextsession.nn.jagged import Batch, Jagged

Windows = Literal["latest", "chunks", "prefixes"]
"""Which slices of a long row are trained on: its newest events, all of it in pieces, or all its beginnings."""

Augmentation: TypeAlias = Callable[
    [NDArray[np.int64], NDArray[np.int64], np.random.Generator], tuple[NDArray[np.int64], NDArray[np.int64]]
]
"""Takes the events of a batch, `(N,)` places in the log, and where rows begin, `(B+1,)`; returns others."""


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


class TrainingRows(Protocol):
    """What a network is trained on, dealt into batches."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def order(self, rng: np.random.Generator, rows: int, tokens: int | None = None) -> list[NDArray[np.int64]]:
        """Deal the rows into batches of `rows` rows, or of as many as fit in `tokens` events."""
        ...

    def batch(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> Batch:
        """Return these rows as a batch; what is varied in training is drawn by `rng`."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """The slices of a log that are trained on, or asked about."""

    log: SessionLog
    slices: Slices
    asked_at: NDArray[np.int64] | None = None  # (R,) ms; None: when the last event of the row happened
    actions: NDArray[np.int64] | None = None  # (N,) places in the list of actions of the model
    augment: Augmentation | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.slices)

    def order(self, rng: np.random.Generator, rows: int, tokens: int | None = None) -> list[NDArray[np.int64]]:
        """Shuffle the rows into batches of `rows` rows, or of as many as fit in `tokens` events."""
        places = rng.permutation(len(self))
        if tokens is None:
            return [places[a : a + rows] for a in range(0, len(places), rows)]
        return np.split(places, cuts(self.slices.lengths[places], rows, tokens))

    def batch(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> Batch:
        """Return these rows as a batch; with `rng` they are augmented."""
        log = self.log
        starts, stops = self.slices.starts[rows], self.slices.stops[rows]
        offsets = offsets_of(stops - starts)
        events = _ranges(starts, offsets)
        if self.augment is not None and rng is not None:
            events, offsets = self.augment(events, offsets, rng)
        lengths = np.diff(offsets)
        asked = log.times[np.maximum(stops, 1) - 1] if self.asked_at is None else self.asked_at[rows]
        places, session_offsets = _session_starts(events, offsets, log.session_offsets)
        times = log.times[events]
        longest = int(np.diff(session_offsets).max(initial=0))
        taken = Jagged(
            torch.from_numpy(log.items[events].astype(np.int64)),
            torch.from_numpy(offsets),
            int(lengths.max(initial=0)),
            torch.from_numpy(times),
            torch.from_numpy(asked),
        )
        sessions = Jagged(
            torch.from_numpy(places),
            torch.from_numpy(session_offsets),
            longest,
            torch.from_numpy(times[places]),
            taken.asked_at,
        )
        labels = None
        if log.labels.strides != (0,):
            labels = torch.from_numpy(log.labels[events].astype(np.int64))
        actions = None if self.actions is None else torch.from_numpy(self.actions[events])
        return Batch(taken, sessions, labels, actions)


@compiled
def _ranges(starts: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places `starts[r], starts[r] + 1, ...` of every row, end to end."""
    places = np.empty(offsets[-1], np.int64)
    for r in range(len(starts)):
        for i in range(offsets[r + 1] - offsets[r]):
            places[offsets[r] + i] = starts[r] + i
    return places


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


@compiled
def cuts(lengths: NDArray[np.int64], rows: int, tokens: int) -> NDArray[np.int64]:
    """Return where a new batch begins: before it would hold more than `rows` rows or `tokens` events."""
    cuts = np.empty(len(lengths), np.int64)
    found = held = first = 0
    for r in range(len(lengths)):
        if r > first and (held + lengths[r] > tokens or r - first == rows):
            cuts[found] = first = r
            found += 1
            held = 0
        held += lengths[r]
    return cuts[:found]


@compiled
def _session_starts(
    events: NDArray[np.int64], offsets: NDArray[np.int64], session_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places in the batch at which sessions begin, and how they are dealt to the rows.

    Events of a row are in the order of the log unless they were augmented; a session begins at the
    first event of a row, and wherever the session is another than that of the event before.
    """
    places = np.empty(len(events), np.int64)
    counts = np.zeros(len(offsets), np.int64)
    found = 0
    for r in range(len(offsets) - 1):
        end = start = np.int64(-1)  # the session of the event before: events start..end
        for i in range(offsets[r], offsets[r + 1]):
            event = events[i]
            if event < start or event >= end:
                s = np.searchsorted(session_offsets, event, side="right")
                start, end = session_offsets[s - 1], session_offsets[s]
                places[found] = i
                found += 1
        counts[r + 1] = found
    return places[:found], counts
