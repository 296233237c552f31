"""Vocabulary: ids outside, codes inside."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nextsession.errors import DataError

Id: TypeAlias = str | int
"""An id as the outside world writes it."""

NO_ITEM = -1
"""The code of no item: an id the vocabulary does not know."""

_SMALL = 512
"""Up to this many strings a dictionary answers faster than a bulk look-up."""


class Vocabulary:
    """An immutable list of distinct ids, all `int` or all `str`; the code of an id is its place.

    Codes of items are never negative; `-1` means *no item*.

    >>> items = Vocabulary.of(["milk", "bread", "milk"])
    >>> items.encode(["milk", "soap"])
    array([ 1, -1], dtype=int32)
    >>> items.extend(["soap"]).encode(["milk", "soap"])
    array([1, 2], dtype=int32)
    """

    def __init__(self, ids: ArrayLike) -> None:
        """Take ids in the order given; an array that cannot be written to is kept, any other is copied.

        Raises:
            DataError: An id occurs twice, or ids are neither all integers nor all strings.
        """
        array = as_ids(ids)
        self.ids: NDArray[Any] = array.copy() if array.flags.writeable else array
        """The ids in the order of their codes: int64, or objects that are all `str`."""
        self.ids.flags.writeable = False
        if len(self.ids) > np.iinfo(np.int32).max:
            raise DataError(f"A vocabulary holds at most 2^31-1 ids, got {len(self.ids)}.")
        if self.ids.dtype == np.int64:
            rising = self.ids[self._rising]
            distinct = bool(np.all(rising[1:] > rising[:-1]))
        else:
            distinct = len(set(self.ids.tolist())) == len(self.ids)
        self._translation: tuple[Vocabulary, NDArray[np.int32]] | None = None
        if not distinct:
            values, counts = np.unique(self.ids, return_counts=True)
            raise DataError(f"Ids of a vocabulary must be distinct; {values[counts > 1][0]!r} occurs more than once.")

    @classmethod
    def of(cls, ids: ArrayLike) -> Self:
        """Make a vocabulary of the distinct ids, sorted."""
        array = as_ids(ids)
        if array.dtype == np.int64:
            return cls(np.unique(array))
        return cls(np.array(sorted(set(array.tolist())), dtype=object))

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        """Say whether the other holds the same ids in the same order."""
        if self is other:
            return True
        return (
            isinstance(other, Vocabulary) and self.ids.dtype == other.ids.dtype and np.array_equal(self.ids, other.ids)
        )

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the vocabulary itself: it never changes."""
        return self

    def __repr__(self) -> str:
        """Show the size and the first ids."""
        first = ", ".join(repr(x) for x in self.ids[:3].tolist())
        return f"Vocabulary({len(self)} ids: {first}{', …' if len(self) > 3 else ''})"

    @cached_property
    def _rising(self) -> NDArray[np.int64] | slice:
        """The order that sorts integer ids; a slice of all where they are sorted already."""
        ascending = bool(np.all(self.ids[1:] > self.ids[:-1]))
        return slice(None) if ascending else np.argsort(self.ids, kind="stable")

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {x: code for code, x in enumerate(self.ids.tolist())}

    @cached_property
    def _texts(self) -> Any:
        return pa.array(self.ids, pa.large_string())

    def encode(self, ids: ArrayLike) -> NDArray[np.int32]:
        """Return the code of each id, `-1` where it is not known."""
        array = as_ids(ids)
        if array.dtype != self.ids.dtype or len(self) == 0:
            return np.full(len(array), NO_ITEM, dtype=np.int32)
        if array.dtype == np.int64:
            order = None if isinstance(self._rising, slice) else self._rising
            places = np.minimum(np.searchsorted(self.ids, array, sorter=order), len(self) - 1)
            codes = places if order is None else order[places]
            return np.where(self.ids[codes] == array, codes, NO_ITEM).astype(np.int32)
        if len(array) <= _SMALL:
            return np.array([self._codes.get(x, NO_ITEM) for x in array.tolist()], dtype=np.int32)
        import pyarrow.compute as pc  # takes as long to load as everything else here

        found = pc.index_in(pa.array(array, pa.large_string()), value_set=self._texts)
        return np.asarray(pc.fill_null(found, NO_ITEM).to_numpy(zero_copy_only=False), dtype=np.int32)

    def find(self, one: Id) -> int:
        """Return the code of one id, `-1` if it is not known: what `encode` says, without arrays.

        >>> Vocabulary([7, 3]).find(3), Vocabulary([7, 3]).find(4), Vocabulary(["tea"]).find("tea")
        (1, -1, 0)
        """
        if self.ids.dtype != np.int64:
            return self._codes.get(one, NO_ITEM)  # type: ignore[arg-type]
        if isinstance(one, str) or len(self) == 0:
            return NO_ITEM
        order = None if isinstance(self._rising, slice) else self._rising
        place = min(int(self.ids.searchsorted(one, sorter=order)), len(self) - 1)
        code = place if order is None else int(order[place])
        return code if self.ids[code] == one else NO_ITEM

    def translate(self, other: "Vocabulary") -> NDArray[np.int32]:
        """Return the code of each id of another vocabulary, `(len(other),)`; `-1` where it is not known.

        The last answer is kept: blocks of questions share a vocabulary, and a large one takes as
        long to look up as many answers.
        """
        known = self._translation
        if known is None or known[0] is not other:
            known = other, self.encode(other.ids)
            known[1].flags.writeable = False
            self._translation = known
        return known[1]

    def decode(self, codes: ArrayLike) -> NDArray[Any]:
        """Return the id of each code.

        Raises:
            DataError: A code is negative or too large.
        """
        array = np.asarray(codes)
        if array.size and (array.min() < 0 or array.max() >= len(self)):
            raise DataError(f"Codes must be in 0..{len(self) - 1}; got {array.min()}..{array.max()}.")
        found: NDArray[Any] = self.ids[array]
        return found

    def extend(self, ids: ArrayLike) -> "Vocabulary":
        """Append the ids not yet known, sorted; old codes stay as they are."""
        array = as_ids(ids)
        fresh = Vocabulary.of(array[self.encode(array) == NO_ITEM]).ids  # to sort what is known would take long
        if len(fresh) == 0:
            return self
        if len(self) == 0:
            return Vocabulary(fresh)
        if fresh.dtype != self.ids.dtype:
            raise DataError(f"Ids must all be integers or all strings; {fresh[0]!r} joins {self.ids[0]!r}.")
        return Vocabulary(np.concatenate([self.ids, fresh]))

    def save(self, path: Path) -> None:
        """Write an Arrow file with one column, `id`, in the order of the codes."""
        write_ids(path, self.ids)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(read_ids(path))


def write_ids(path: Path, ids: NDArray[Any]) -> None:
    """Write ids (int64 or `str`) as an Arrow file with one column, `id`."""
    table = pa.table({"id": pa.array(ids, pa.int64() if ids.dtype.kind == "i" else pa.large_string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_ids(path: Path) -> NDArray[Any]:
    """Return what `write_ids` wrote."""
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).read_all()["id"]
        if pa.types.is_integer(column.type):
            found: NDArray[Any] = column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()
            return found  # of one chunk: mapped
        return np.array(column.to_pylist(), dtype=object)


def as_ids(ids: ArrayLike | Sequence[Id]) -> NDArray[Any]:
    """Return ids as an int64 array, or as an object array of `str`.

    Raises:
        DataError: Ids are mixed, floating or missing.
    """
    if isinstance(ids, list | tuple) and all(isinstance(x, str) for x in ids):
        array: NDArray[Any] = np.array(ids, dtype=object)  # numpy's own text drops trailing zero bytes
    else:
        array = ids if isinstance(ids, np.ndarray) else np.array(ids if isinstance(ids, list | tuple) else list(ids))  # type: ignore[arg-type]
    if array.dtype.kind in "iu" or array.size == 0:
        if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError(f"Integer ids must fit 64 signed bits, got {array.max()}; pass such ids as strings.")
        return array.astype(np.int64, copy=False)
    if array.dtype.kind in "UT":
        if isinstance(ids, list | tuple) and not all(isinstance(x, str) for x in ids):
            raise DataError("Ids must all be integers or all strings; the list given mixes them.")
        return array.astype(object)
    if array.dtype.kind == "O":
        if all(isinstance(x, str) for x in array.tolist()):
            return array
        if all(isinstance(x, int | np.integer) and not isinstance(x, bool) for x in array.tolist()):
            try:
                return array.astype(np.int64)
            except OverflowError:
                raise DataError("Integer ids must fit 64 signed bits; pass larger ids as strings.") from None
    wrong = next((x for x in array.tolist() if not isinstance(x, str | int)), array.dtype)
    raise DataError(f"Ids must all be integers or all strings, got {wrong!r}.")
