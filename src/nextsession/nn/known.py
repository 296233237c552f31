"""What is known at the instant of a question: of all items by everybody's events, and of what the person had."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextsession.audiences import Audience
from nextsession.data.log import SessionLog
from nextsession.habits import Habits
from nextsession.nn.ops.moment_cross_entropy import Runs
from nextsession.nn.ops.repeats import N_FEATURES, repeats
from nextsession.tallies import Tally

_HOUR = 3_600_000.0


@dataclass(frozen=True, eq=False)
class History:
    """All events by time, in which it can be looked up what was known at any instant."""

    wanted: Tally
    shown: Tally | None
    """What was shown, wanted or not; None: nothing is known of it."""
    audience: Audience | None = None
    """Who wanted what, if that is to be known."""

    @classmethod
    def of(cls, log: SessionLog, *, audience: int = 0, seed: int = 0) -> "History":
        """Keep the events of a log, and if asked for who they were of, in so many numbers."""
        liked = log.labels == 1
        wanted = Tally.of(log.times[liked], log.items[liked], log.n_items)
        shown = None if bool(np.all(liked)) else Tally.of(log.times, log.items, log.n_items)
        return cls(wanted, shown, Audience.of(log, audience, seed) if audience else None)

    def joined(self, log: SessionLog) -> "History":
        """Return these events and those of a log whose vocabulary extends theirs."""
        liked = log.labels == 1
        return History(
            self.wanted.joined(log.times[liked], log.items[liked], log.n_items),
            None if self.shown is None else self.shown.joined(log.times, log.items, log.n_items),
            None if self.audience is None else self.audience.joined(log),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the events as arrays by name."""
        found: dict[str, NDArray[Any]] = {
            "history/times": self.wanted.times,
            "history/items": self.wanted.items,
        }
        if self.shown is not None:
            found |= {"history/shown_times": self.shown.times, "history/shown_items": self.shown.items}
        return found if self.audience is None else found | self.audience.arrays()

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]], n_items: int) -> "History":
        """Take back what `arrays` gave."""
        wanted, shown = Tally(arrays["history/times"], arrays["history/items"], n_items), None
        if "history/shown_times" in arrays:
            shown = Tally(arrays["history/shown_times"], arrays["history/shown_items"], n_items)
        return cls(wanted, shown, Audience.restored(arrays))

    def counted_at(self, asked_at: NDArray[np.int64], behind: int) -> NDArray[np.int64]:
        """Return up to which instants events are counted for questions: their own, but for what is not known yet.

        Where news come in steps, questions between two of them would find the last minutes empty.  So one that is asked
        at most `behind` (ms) after the newest event is told what was known at that event.
        """
        tally = self.wanted if self.shown is None else self.shown
        if not len(tally.times):
            return asked_at
        after = asked_at - (int(tally.times[-1]) + 1)
        return np.where((after > 0) & (after <= behind), asked_at - after, asked_at)

    def n_features(self, windows: int) -> int:
        """Return how many numbers there are of each item."""
        return (windows + 1) * (1 if self.shown is None else 2) + 2 + windows

    def features(self, instant: int, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what was known of every item at an instant, `(V, F)`.

        The logarithms of 1 + the events in each window before it and in all, of what was wanted and (if
        known) of what was shown; 1 if the item had any; its age; and, the same for all items,
        the logarithms of how much was wanted in each window.
        """
        parts: list[NDArray[np.float32]] = []
        for tally in (self.wanted,) if self.shown is None else (self.wanted, self.shown):
            counts = np.concatenate([tally.between(instant, windows), tally.before(instant)[None]])
            parts.append(np.log1p(counts, dtype=np.float32))
        counts = self.wanted.between(instant, windows).sum(axis=1)
        age = np.maximum(instant - np.minimum(self.wanted.firsts, instant), 0) / _HOUR
        born = (age > 0).astype(np.float32)
        known = np.stack([born, np.log1p(age).astype(np.float32)])
        volume = np.repeat(np.log1p(counts, dtype=np.float32)[:, None] / 4, len(age), axis=1)
        return np.ascontiguousarray(np.concatenate([*parts, known, volume]).T / 3, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known at the instants of a batch of questions."""

    runs: Runs
    """The questions of each of `G` moments: they know the same of the items."""
    items: Tensor | None  # (G, V, F) what they know of them
    rows: Tensor  # (K,) questions, never falling
    had: Tensor  # (K,) items of their histories, no pair twice
    features: Tensor  # (K, R) what is known of those
    persons: Tensor | None = None  # (B, A) what those who ask had wanted before
    audiences: Tensor | None = None  # (G, V, A) and those who had wanted the items of late

    def moment_of(self, rows: Tensor) -> Tensor:
        """Return the moment of each of these questions."""
        stops = torch.tensor([stop for _, stop in self.runs], device=rows.device)
        return torch.searchsorted(stops, rows, right=True)

    def to(self, device: torch.device) -> "Known":
        """Return the same on another device."""

        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        rows, had, features = (x.to(device, non_blocking=True) for x in (self.rows, self.had, self.features))
        return Known(self.runs, moved(self.items), rows, had, features, moved(self.persons), moved(self.audiences))


def known(
    histories: SessionLog,
    asked_at: NDArray[np.int64],
    history: History | None,
    windows: NDArray[np.int64],
    *,
    repeat: bool,
    counted_at: NDArray[np.int64] | None = None,
    habits: Habits | None = None,
    askers: NDArray[np.int64] | None = None,
) -> Known:
    """Look up what was known when these questions were asked.

    Args:
        histories: One row a question.
        asked_at: `(B,)` ms.
        history: Of everybody; None: nothing is known of it.
        windows: `(W,)` ms.
        repeat: Is it looked up what each had before?
        counted_at: `(B,)` ms, never falling where `asked_at` does not: up to where everybody's events are counted;
            questions with the same share the counts.  The instants of the questions if not given.
        habits: What everybody has again, if that is looked up of what each had before.
        askers: `(B,)` rows of the log that habits are of, in training: see `Habits.features`.
    """
    runs: Runs = [(0, len(asked_at))]
    items = persons = audiences = None
    if history is not None:
        at = asked_at if counted_at is None else counted_at
        edges = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(at)]
        runs = [(a, z) for a, z in pairwise(edges) if z > a]
        features = [history.features(int(at[a]), windows) for a, _ in runs]
        items = torch.from_numpy(np.stack(features)) if features else None
        if history.audience is not None and features:
            audiences = torch.from_numpy(np.stack([history.audience.at(int(at[a])) for a, _ in runs]))
            persons = torch.from_numpy(history.audience.persons(histories))
    if not repeat:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Known(runs, items, nothing, nothing, torch.zeros(0, N_FEATURES), persons, audiences)
    labels = np.ascontiguousarray(histories.labels)
    found = repeats(
        histories.items, labels, histories.times, histories.session_offsets, histories.user_offsets,
        asked_at, histories.n_items,
    )  # fmt: skip
    rows, had, numbers = found
    if habits is not None:
        past = np.rint(np.expm1(numbers[:, 0])).astype(np.int64)
        more = habits.features(had, past, None if askers is None else askers[rows])
        numbers = np.concatenate([numbers, more], axis=1)
    before = (torch.from_numpy(rows), torch.from_numpy(had), torch.from_numpy(numbers))
    return Known(runs, items, *before, persons, audiences)
