"""The items of a served model as the outside sees them: ids as text, titles, features, stock."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import NO_ITEM, Vocabulary
from nextsession.errors import DataError, suggestion
from nextsession.scores import tie_keys

_SEEN = 40_000
_FEW = 64
"""Ids up to which looking them up one by one is faster than all together."""
_MASK_BYTES = 64_000_000
"""Most memory for masks that are kept for the next request with the same filter."""


class Catalogue:
    """Text ids ↔ codes, and which items a request may get.

    >>> found = Catalogue(Vocabulary([7, 42]))
    >>> found.codes(["42", "042", "tea"]), found.texts(np.array([1, 0]))
    (array([ 1, -1, -1], dtype=int32), ['42', '7'])
    """

    def __init__(self, vocabulary: Vocabulary, table: ItemTable | None = None) -> None:
        """Take the items of a model, and what is known of them in the same order.

        Raises:
            DataError: The table is of other items.
        """
        self.vocabulary = vocabulary
        self.table = table or ItemTable()
        self.table.check(len(vocabulary))
        self._numbers = vocabulary.ids.dtype == np.int64
        self._seen: dict[str, int] = {}
        self._masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self._out: frozenset[str] = frozenset()
        self._in_stock: NDArray[np.bool_] | None = None
        self._words: list[str] | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.vocabulary)

    # -- ids ------------------------------------------------------------------------------------

    def codes(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the code of each id, -1 where there is none; numbers must be written as we write them."""
        return np.array(self.numbers(texts), np.int32)

    def numbers(self, texts: Sequence[str]) -> list[int]:
        """Return the codes as a list; those looked up lately are remembered."""
        seen = self._seen
        found = [seen.get(text) for text in texts]
        if None not in found:
            return found  # type: ignore[return-value]
        new = [text for text, code in zip(texts, found, strict=True) if code is None]
        codes = [self._number(text) for text in new] if len(new) <= _FEW else self._numbers_of_many(new)
        if len(seen) + len(new) > _SEEN:
            self._seen = {}
        self._seen.update(zip(new, codes, strict=True))
        rest = iter(codes)
        return [next(rest) if code is None else code for code in found]

    def _number(self, text: str) -> int:
        value = number(text) if self._numbers else text
        return NO_ITEM if value is None else self.vocabulary.find(value)

    def _numbers_of_many(self, texts: Sequence[str]) -> list[int]:
        if not self._numbers:
            return list(self.vocabulary.encode(texts).tolist())
        values = [number(text) for text in texts]
        codes = self.vocabulary.encode(np.array([v or 0 for v in values], np.int64)).tolist()
        return [NO_ITEM if value is None else code for value, code in zip(values, codes, strict=True)]

    def texts(self, codes: NDArray[np.integer[Any]]) -> list[str]:
        """Return the id of each code, as text."""
        ids = self.vocabulary.ids[codes].tolist()
        return [str(x) for x in ids] if self._numbers else ids

    def titles(self, codes: Sequence[int]) -> list[str]:
        """Return the titles of items."""
        titles = self.table.titles
        return [""] * len(codes) if titles is None else [titles[code] if code >= 0 else "" for code in codes]

    def title(self, code: int) -> str:
        """Return the title of an item, `""` if there is none."""
        return "" if self.table.titles is None or code < 0 else str(self.table.titles[code])

    def features(self, code: int) -> dict[str, list[str]]:
        """Return the features of an item by name."""
        return {
            name: [f.labels[c] for c in f.codes[f.offsets[code] : f.offsets[code + 1]]]
            for name, f in self.table.features.items()
        }

    def search(self, words: str, k: int) -> NDArray[np.int32]:
        """Return the first `k` items whose title (or id, where there are no titles) holds all the words."""
        if self._words is None:
            titles = self.vocabulary.ids if self.table.titles is None else self.table.titles
            self._words = [str(title).casefold() for title in titles.tolist()]
        wanted = words.casefold().split()
        found: list[int] = []
        for code, title in enumerate(self._words):
            if all(word in title for word in wanted):
                found.append(code)
                if len(found) == k:
                    break
        return np.array(found, np.int32)

    # -- stock and filters ----------------------------------------------------------------------

    @property
    def out_of_stock(self) -> AbstractSet[str]:
        """Ids of what nobody may get now; known or not."""
        return self._out

    @out_of_stock.setter
    def out_of_stock(self, texts: Iterable[str]) -> None:
        out = frozenset(texts)
        mask = None
        if out:
            codes = self.codes(sorted(out))
            mask = np.ones(len(self), np.bool_)
            mask[codes[codes >= 0]] = False
        self._out, self._in_stock = out, mask

    def allowed(
        self, allow: Sequence[str] | None, where: Mapping[str, Sequence[str]] | None
    ) -> NDArray[np.bool_] | None:
        """Return which items a request may get, `(V,)`, or None for all: in stock, of the list, with the features.

        Raises:
            DataError: There is no such feature.
        """
        mask = self._in_stock
        for name, labels in (where or {}).items():
            some = np.zeros(len(self), np.bool_)
            for label in labels:
                some |= self._with_label(name, label)
            mask = some if mask is None else mask & some
        if allow is not None:
            codes = self.codes(allow)
            some = np.zeros(len(self), np.bool_)
            some[codes[codes >= 0]] = True
            mask = some if mask is None else mask & some
        return mask

    def _with_label(self, name: str, label: str) -> NDArray[np.bool_]:
        feature = self.table.features.get(name)
        if feature is None:
            known = ", ".join(self.table.features) or "none"
            hint = suggestion(name, self.table.features)
            raise DataError(f"where: items have no feature {name!r}.{hint} Features: {known}.")
        found = self._masks.get((name, label))
        if found is None:
            found = np.zeros(len(self), np.bool_)
            if label in feature.labels:
                counts = np.diff(feature.offsets)
                owners = np.repeat(np.arange(len(self)), counts)
                found[owners[feature.codes == feature.labels.index(label)]] = True
            if (len(self._masks) + 1) * len(self) > _MASK_BYTES:
                self._masks = {}
            self._masks = {**self._masks, (name, label): found}  # a new dictionary: other threads read the old one
        return found

    def any_of(self, mask: NDArray[np.bool_] | None, k: int) -> NDArray[np.int32]:
        """Return `k` items that a request may get, in the order that breaks ties: the last resort of a list."""
        codes = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        keys = tie_keys(len(self))[codes]
        first = np.argpartition(keys, k)[:k] if k < len(codes) else np.arange(len(codes))
        return codes[first[np.argsort(keys[first])]].astype(np.int32)


def number(text: str) -> int | None:
    """Return the number that a text is, if it is written as Python writes it and fits 64 bits.

    >>> number("42"), number("-7"), number("007"), number("٤٢"), number("9" * 30)
    (42, -7, None, None, None)
    """
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return None
    value = int(text)
    return value if str(value) == text and -(2**63) <= value < 2**63 else None
