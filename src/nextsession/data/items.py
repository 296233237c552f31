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
    A numeric feature has been binned; its labels name the bins.
    """

    offsets: NDArray[np.int64]  # (V+1,)
    codes: NDArray[np.int32]  # (values,)
    labels: tuple[str, ...]

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

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.offsets) - 1

    def take(self, items: NDArray[Any]) -> "ItemFeature":
        """Return the feature of these items, in this order; `-1` gives an item without values."""
        counts = np.where(items >= 0, np.diff(self.offsets)[items], 0) if len(self) else np.zeros(len(items), np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        starts = self.offsets[:-1][items] if len(self) else np.zeros(len(items), np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        return ItemFeature(offsets, self.codes[np.repeat(starts, counts) + within], self.labels)

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
