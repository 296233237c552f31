"""Batches: rows of a log (`nextsession.slices`) become what a network is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog, offsets_of
from nextsession.nn.jagged import Batch, Jagged
from nextsession.slices import Slices

Augmentation: TypeAlias = Callable[
    [NDArray[np.int64], NDArray[np.int64], np.random.Generator], tuple[NDArray[np.int64], NDArray[np.int64]]
]
"""Takes the events of a batch, `(N,)` places in the log, and where rows begin, `(B+1,)`; returns others."""


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
