"""What is known of items beside the log: side features and titles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import DataError


@dataclass(frozen=True, eq=False)
class ItemFeature:
    """One categorical feature of every item; an item may have none, one or several values.

    The values of item `i` are `codes[offsets[i]:offsets[i + 1]]`, each a place in `labels`.
    A numeric feature has been binned; its labels name the bins.  It keeps its numbers, so that whoever
    learns from some of the items alone can make bins by these (`binned_by`).
    """

    offsets: NDArray[np.int64]  # (V+1,)
    codes: NDArray[np.int32]  # (values,)
    labels: tuple[str, ...]
    numbers: NDArray[np.float64] | None = None  # (V,) of a numeric feature; NaN: none
    bins: int = 0
    """Of a numeric feature: how many bins at most."""

    @classmethod
    def of(cls, values: Sequence[Sequence[str]]) -> "ItemFeature":
        """Build from the list of values of each item.

        >>> ItemFeature.of([["red"], [], ["blue", "red"]]).codes
        array([1, 0, 1], dtype=int32)
        """
        labels = tuple(sorted({v for row in values for v in row}))
        place = {label: code for code, label in enumerate(labels)}
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in values])]).astype(np.int64)
        return cls(offsets, np.array([place[v] for row in values for v in row], dtype=np.int32), labels)

    @classmethod
    def binned(
        cls, numbers: NDArray[np.float64], bins: int, *, known: NDArray[np.bool_] | None = None
    ) -> "ItemFeature":
        """Cut a numeric feature into bins that hold equally many items; NaN has no value.

        Equal numbers are never parted, so there may be fewer bins; each is named `low .. high` after
        the least and the greatest number in it.

        Args:
            numbers: One an item, `(V,)`.
            bins: How many bins at most.
            known: The items that bins are made by, `(V,)`; others are put where they fit, the
                greatest in the last bin.  By default all.

        >>> ItemFeature.binned(np.array([1.0, 2.0, 30.0, np.nan, 40.0]), bins=2).rows()
        [['1 .. 2'], ['1 .. 2'], ['30 .. 40'], [], ['30 .. 40']]
        """
        has = ~np.isnan(numbers)
        learnt = np.sort(numbers[has if known is None else has & known])
        if not len(learnt):
            return cls(np.zeros(len(numbers) + 1, np.int64), np.zeros(0, np.int32), (), numbers, bins)
        last = -(-np.arange(1, bins) * len(learnt) // bins) - 1  # the place of the last number of each bin but one
        inner = np.unique(learnt[last[last >= 0]])
        inner = inner[inner < learnt[-1]]
        codes = np.searchsorted(inner, numbers[has], side="left").astype(np.int32)
        names = [_span(part) for part in np.split(learnt, np.searchsorted(learnt, inner, side="right"))]
        return cls(np.concatenate([[0], np.cumsum(has)]).astype(np.int64), codes, tuple(names), numbers, bins)

    def binned_by(self, known: NDArray[np.bool_]) -> "ItemFeature":
        """Return a numeric feature in bins made by these items, `(V,)`; any other feature as it is."""
        return self if self.numbers is None else ItemFeature.binned(self.numbers, self.bins, known=known)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.offsets) - 1

    def take(self, items: NDArray[Any]) -> "ItemFeature":
        """Return the feature of these items, in this order and in the same bins; `-1` gives an item without values."""
        counts = np.where(items >= 0, np.diff(self.offsets)[items], 0) if len(self) else np.zeros(len(items), np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        starts = self.offsets[:-1][items] if len(self) else np.zeros(len(items), np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        codes = self.codes[np.repeat(starts, counts) + within]
        numbers = None if self.numbers is None else np.append(self.numbers, np.nan)[items]  # -1 is the last
        return ItemFeature(offsets, codes, self.labels, numbers, self.bins)

    def rows(self) -> list[list[str]]:
        """Return the values of each item as lists of labels."""
        return [
            [self.labels[c] for c in self.codes[a:b]] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)
        ]


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Side features and, where there are any, titles of all items of a vocabulary."""

    features: Mapping[str, ItemFeature] = field(default_factory=dict)
    titles: NDArray[Any] | None = None  # (V,) str

    def check(self, n_items: int) -> None:
        """Raise `DataError` unless everything has one row an item."""
        for name, feature in self.features.items():
            if len(feature) != n_items:
                raise DataError(f"Item feature {name!r} must have {n_items} rows, one an item; it has {len(feature)}.")
        if self.titles is not None and len(self.titles) != n_items:
            raise DataError(f"There must be {n_items} titles, one an item; there are {len(self.titles)}.")

    def take(self, items: NDArray[Any]) -> "ItemTable":
        """Return the table of these items, in this order; `-1` gives an item of which nothing is known."""
        titles = None
        if self.titles is not None:
            known = self.titles if len(self.titles) else np.array([""], dtype=object)
            titles = np.where(items >= 0, known[items], "").astype(object)
        return ItemTable({name: f.take(items) for name, f in self.features.items()}, titles)


def _span(values: NDArray[np.float64]) -> str:
    low, high = f"{values.min():.12g}", f"{values.max():.12g}"
    return low if low == high else f"{low} .. {high}"
