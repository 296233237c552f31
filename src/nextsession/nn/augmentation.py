"""Augmentation: rows of training varied at random, anew in every step.

Cropping, dropping and reordering are those of Xie et al., CL4SRec, ICDE 2022, which hides events where
we drop them.  Only rows of training are varied, never a question.  The newest event of a row, which is
what models of whole rows foretell, is neither dropped nor moved; a crop ends at another event, after
those that came before it.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.compiled import compiled
from nextsession.config import Settings
from nextsession.nn.batches import Augmentation

Varied = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The events of a batch, `(N,)` places in the log, and where rows begin, `(B+1,)`."""


class Crop(Settings):
    """A stretch of neighbouring events is kept."""

    kind: Literal["crop"] = "crop"
    """Which variation this is."""
    share: float = Field(default=0.6, gt=0, le=1)
    """Of the events of a row that are kept, rounded down."""
    chance: float = Field(default=1.0, ge=0, le=1)
    """Of a row to be varied."""

    def __call__(
        self, events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, least: int
    ) -> Varied:
        """Vary the rows; each keeps `least` events if it has them."""
        return _crop(events, offsets, rng, self.share, self.chance, least)


class Drop(Settings):
    """A fixed share of the events is left out."""

    kind: Literal["drop"] = "drop"
    """Which variation this is."""
    share: float = Field(default=0.3, ge=0, lt=1)
    """Of the events of a row that are left out, rounded down."""
    chance: float = Field(default=1.0, ge=0, le=1)
    """Of a row to be varied."""

    def __call__(
        self, events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, least: int
    ) -> Varied:
        """Vary the rows; each keeps `least` events if it has them."""
        return _drop(events, offsets, rng, self.share, self.chance, least)


class Reorder(Settings):
    """A stretch of neighbouring events is shuffled."""

    kind: Literal["reorder"] = "reorder"
    """Which variation this is."""
    share: float = Field(default=0.6, ge=0, le=1)
    """Of the events of a row that are shuffled, rounded down."""
    chance: float = Field(default=1.0, ge=0, le=1)
    """Of a row to be varied."""

    def __call__(
        self, events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, least: int
    ) -> Varied:
        """Vary the rows."""
        return _reorder(events, offsets, rng, self.share, self.chance), offsets


class ItemDropout(Settings):
    """Each event is left out with the same chance, whatever becomes of the others."""

    kind: Literal["item_dropout"] = "item_dropout"
    """Which variation this is."""
    chance: float = Field(default=0.1, ge=0, lt=1)
    """Of an event to be left out."""

    def __call__(
        self, events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, least: int
    ) -> Varied:
        """Vary the rows; each keeps `least` events if it has them."""
        return _item_dropout(events, offsets, rng, self.chance, least)


Variation = Annotated[Crop | Drop | Reorder | ItemDropout, Field(discriminator="kind")]
"""Any variation of rows, told by its `kind`."""


def in_turn(variations: tuple[Crop | Drop | Reorder | ItemDropout, ...], least: int) -> Augmentation | None:
    """Return an augmentation that varies rows in these ways, one after another; None if there are none.

    Args:
        variations: In their order.
        least: Events that are left of a row that had as many.
    """
    if not variations:
        return None

    def vary(events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator) -> Varied:
        for variation in variations:
            events, offsets = variation(events, offsets, rng, least)
        return events, offsets

    return vary


@compiled
def _crop(
    events: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rng: np.random.Generator,
    share: float,
    chance: float,
    least: int,
) -> Varied:
    kept, begins = np.empty_like(events), np.zeros_like(offsets)
    found = 0
    for r in range(len(offsets) - 1):
        start, size = offsets[r], offsets[r + 1] - offsets[r]
        if size > 0 and rng.random() < chance:
            left = min(size, max(least, 1, int(share * size + 1e-9)))
            start += rng.integers(0, size - left + 1)
            size = left
        for i in range(size):
            kept[found + i] = events[start + i]
        found += size
        begins[r + 1] = found
    return kept[:found], begins


@compiled
def _drop(
    events: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rng: np.random.Generator,
    share: float,
    chance: float,
    least: int,
) -> Varied:
    kept, begins = np.empty_like(events), np.zeros_like(offsets)
    found = 0
    for r in range(len(offsets) - 1):
        size = offsets[r + 1] - offsets[r]
        gone = 0
        if size > 0 and rng.random() < chance:
            gone = max(0, min(int(share * size + 1e-9), size - max(least, 1)))
        for i in range(size):
            older = size - 1 - i  # that could still go, this one among them; the newest stays
            if gone > 0 and rng.random() * older < gone:
                gone -= 1
                continue
            kept[found] = events[offsets[r] + i]
            found += 1
        begins[r + 1] = found
    return kept[:found], begins


@compiled
def _item_dropout(
    events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, chance: float, least: int
) -> Varied:
    kept, begins = np.empty_like(events), np.zeros_like(offsets)
    found = 0
    for r in range(len(offsets) - 1):
        size = offsets[r + 1] - offsets[r]
        may_go = size - max(least, 1)
        for i in range(size):
            if i < size - 1 and rng.random() < chance and may_go > 0:
                may_go -= 1
                continue
            kept[found] = events[offsets[r] + i]
            found += 1
        begins[r + 1] = found
    return kept[:found], begins


@compiled
def _reorder(
    events: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator, share: float, chance: float
) -> NDArray[np.int64]:
    moved = events.copy()
    for r in range(len(offsets) - 1):
        size = offsets[r + 1] - offsets[r]
        span = min(int(share * size + 1e-9), size - 1)
        if span < 2 or rng.random() >= chance:
            continue
        start = offsets[r] + rng.integers(0, size - span)
        for i in range(span - 1, 0, -1):
            j = rng.integers(0, i + 1)
            moved[start + i], moved[start + j] = moved[start + j], moved[start + i]
    return moved
