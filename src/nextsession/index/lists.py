"""Inverted lists of vectors in bytes: vectors of like direction lie together, and few lists are looked at."""

import itertools
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.data.log import offsets_of
from nextsession.errors import ArtifactError
from nextsession.index.approximate import Approximate
from nextsession.mapping import mapped_array
from nextsession.scores import Limits
from nextsession.selection import among, least_of_best

_LEARNT_FROM, _ROUNDS = 40, 10
"""Vectors for each list from which the lists are learnt, and how often they are drawn to the mean of what they hold."""
_BLOCK = 100_000
"""Vectors that are read together."""
_WIDE = 16
"""Bytes are multiplied quickly so many at a time: rows are a multiple of them wide."""
_SPARE = 3
"""So many items, and an eighth more, are chosen by their bytes than are listed by their vectors: bytes hardly err."""
_ALL = np.ones(0, np.bool_)
_ARRAYS = ("columns", "steady", "told", "scales", "middles", "starts", "codes", "extra", "items")


class InvertedLists(Approximate):
    """About `4 sqrt(V)` lists of vectors of like direction, in bytes; the most promising of a query are looked at.

    That is where as many bytes are read to choose among the lists as to look through those chosen.
    What a list promises is the product of the query with the mean of its vectors, and so much more
    as its vectors are scattered: the best of `n` normal numbers lies near `sqrt(2 ln n)` deviations
    above their mean.  By the mean alone, lists of rare items, whose vectors point anywhere, hide the
    few that are wanted, and many times as many lists must be looked at for the same recall.

    Numbers that are the same in all queries, such as the 1 beside a bias, are multiplied beforehand.
    """

    kind = "ivf"

    columns: NDArray[np.int64]  # (C,) that queries read and that differ from query to query
    steady: NDArray[np.int64]  # (S,) that are the same in all queries,
    told: NDArray[np.float32]  # (S,) and what they are
    scales: NDArray[np.float32]  # (C,) what a code of 1 is worth
    middles: NDArray[np.float32]  # (L, W + 2) of each list: its mean, what its items have anyway, how scattered it is
    starts: NDArray[np.int64]  # (L + 1,) where each list begins
    codes: NDArray[np.int8]  # (n, W) the vectors, list by list
    extra: NDArray[np.float32]  # (n,) the product of each with what is told
    items: NDArray[np.int32]  # (n,) whose they are
    _rough: NDArray[np.int8]  # (L, W) the means in bytes, of which the largest number of each is 127
    _worth: NDArray[np.float32]  # (L,) what a 1 is worth in each

    def _make(self, codes: NDArray[np.int64], queries: NDArray[np.float32], seed: int) -> None:
        same = np.all(queries == queries[:1], axis=0)
        read = np.any(queries != 0, axis=0)
        self.columns, self.steady = np.flatnonzero(read & ~same), np.flatnonzero(read & same)
        self.told = queries[0, self.steady]
        lists = self._shared_out(codes, seed)
        self.starts = offsets_of(np.bincount(lists, minlength=int(lists.max(initial=0)) + 1))
        self.items = codes[np.argsort(lists, kind="stable")].astype(np.int32)
        width, blocks = len(self.columns), range(0, len(codes), _BLOCK)  # a copy of all vectors would be as large again
        largest: NDArray[np.float32] = np.zeros(width, np.float32)
        for a in blocks:
            largest = np.maximum(largest, np.abs(self._read(codes[a : a + _BLOCK])).max(axis=0))
        self.scales = (np.maximum(largest, 1e-9) / 127).astype(np.float32)
        wide = _WIDE * max(1, -(-width // _WIDE))
        self.codes, self.extra = np.zeros((len(codes), wide), np.int8), np.zeros(len(codes), np.float32)
        for a in blocks:
            some = self.items[a : a + _BLOCK]
            self.codes[a : a + _BLOCK, :width] = np.rint(self._read(some) / self.scales)
            self.extra[a : a + _BLOCK] = self.vectors[np.ix_(some, self.steady)] @ self.told
        self.middles = np.zeros((len(self.starts) - 1, wide + 2), np.float32)
        for row, a, z in zip(self.middles, self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            if a < z:
                row[:width], *row[wide:] = _middle(self._read(self.items[a:z]), self.extra[a:z])
        self._round()

    def _round(self) -> None:
        """Put the means into bytes: a quarter of the memory that is looked through for each query."""
        means = self.middles[:, :-2]
        self._worth = (np.maximum(np.abs(means).max(axis=1, initial=0), 1e-9) / 127).astype(np.float32)
        self._rough = np.rint(means / self._worth[:, None]).astype(np.int8)

    def _read(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the columns of vectors that are indexed, `(len(codes), C)`."""
        found: NDArray[np.float32] = self.vectors[np.ix_(codes, self.columns)]
        return found

    def _shared_out(self, codes: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Share vectors out to lists by direction (spherical k-means), and return the list of each, `(n,)`."""
        lists = max(1, min(int(4 * len(codes) ** 0.5), len(codes) // _LEARNT_FROM))
        rng = np.random.default_rng(seed)
        some = self._read(codes[np.sort(rng.permutation(len(codes))[: _LEARNT_FROM * lists])])
        if not len(some):
            return np.zeros(len(codes), np.int64)
        directions = directions_of(some, lists, rng)
        found = np.empty(len(codes), np.int64)
        for a in range(0, len(codes), _BLOCK):
            found[a : a + _BLOCK] = _nearest(self._read(codes[a : a + _BLOCK]), directions)
        return found

    def _candidates(
        self, queries: NDArray[np.float32], k: int, limits: Limits
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        allowed = _ALL if limits.allowed is None else limits.allowed
        offsets, chosen, unlike = found_in_lists(
            queries, self.columns, self.steady, self.told, self.scales, self._rough, self._worth,
            self.middles[:, -2:], self.starts, self.codes, self.extra, self.items, self.effort,
            k + k // 8 + _SPARE, limits.offsets, limits.barred, allowed,
        )  # fmt: skip
        if not len(unlike):
            return offsets, chosen
        found = [chosen[a:z] for a, z in itertools.pairwise(offsets.tolist())]
        return self._with_unlike(found, unlike.tolist(), queries, k, limits)

    def save(self, folder: Path) -> None:
        """Write the arrays, and how hard it looks."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        facts = {"effort": self.effort, "recall": self.recall}
        (folder / "index.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, vectors: NDArray[np.float32]) -> Self:
        """Map what `save` wrote into memory, so that processes share it."""
        self = cls(vectors)
        facts = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.effort, self.recall = facts["effort"], facts["recall"]
        try:
            for name in _ARRAYS:
                setattr(self, name, mapped_array(folder / f"{name}.npy"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{folder} is damaged: {error}") from None
        if len(self.items) != len(self.codes) or self.items.max(initial=-1) >= len(vectors):
            raise ArtifactError(f"{folder} is of other items; build the index again.")
        self._round()
        query = np.zeros((1, vectors.shape[1]), np.float32)
        query[0, self.steady] = self.told
        self.search(query, 1)  # so that what is compiled is there before the first visitor
        return self


def directions_of(vectors: NDArray[np.float32], number: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return directions that vectors gather around, `(number, D)`: spherical k-means."""
    some = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    directions = some[np.sort(rng.permutation(len(some))[:number])]
    for _ in range(_ROUNDS):
        near = _nearest(some, directions)
        sums = np.zeros_like(directions)
        np.add.at(sums, near, some)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        empty = np.flatnonzero(lengths[:, 0] < 1e-9)
        directions = sums / np.maximum(lengths, 1e-9)
        directions[empty] = some[rng.integers(len(some), size=len(empty))]
    found: NDArray[np.float32] = directions
    return found


def _nearest(vectors: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the direction that each vector has most of, `(n,)`."""
    step = max(1, 16_000_000 // len(directions))
    parts = [np.argmax(vectors[a : a + step] @ directions.T, axis=1) for a in range(0, len(vectors), step)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _middle(vectors: NDArray[np.float32], extra: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
    """Return the mean of a list, that of what its items have anyway, and how far its best lies above both."""
    own = np.column_stack([vectors, extra])
    mean = own.mean(axis=0)
    scatter = np.sqrt(np.mean((own - mean) ** 2)) * np.sqrt(2 * np.log(max(len(own), 2)))
    return mean[:-1], float(mean[-1]), float(scatter)


@compiled_fast
def _products(
    query: NDArray[np.float32], rows: NDArray[np.int8], extra: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write the products of a query with rows of bytes, and what each has besides."""
    for i in range(len(rows)):
        row, product = rows[i], extra[i]
        for d in range(len(query)):
            product += query[d] * np.float32(row[d])
        out[i] = product


@compiled_fast
def _promising(
    query: NDArray[np.float32],
    length: np.float32,
    means: NDArray[np.int8],
    worth: NDArray[np.float32],
    besides: NDArray[np.float32],
    number: int,
) -> NDArray[np.int64]:
    """Return the lists that promise most, the most promising first."""
    promises = np.empty(len(means), np.float32)
    for i in range(len(means)):
        row, product = means[i], np.float32(0)
        for d in range(len(query)):
            product += query[d] * np.float32(row[d])
        promises[i] = worth[i] * product + besides[i, 0] + length * besides[i, 1]
    least = least_of_best(promises, number, np.empty(2 * number, np.float32))
    some = np.flatnonzero(promises >= least)
    return some[np.argsort(-promises[some])[:number]]


@compiled
def found_in_lists(
    queries: NDArray[np.float32],
    columns: NDArray[np.int64],
    steady: NDArray[np.int64],
    told: NDArray[np.float32],
    scales: NDArray[np.float32],
    means: NDArray[np.int8],
    worth: NDArray[np.float32],
    besides: NDArray[np.float32],
    starts: NDArray[np.int64],
    codes: NDArray[np.int8],
    extra: NDArray[np.float32],
    items: NDArray[np.int32],
    effort: int,
    number: int,
    barred_offsets: NDArray[np.int64],
    barred: NDArray[np.int32],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return the `number` items of the lists that are best by their bytes, for each query, without those barred.

    Returns:
        Where those of each query begin, `(B + 1,)`; the items, query by query; and which queries are unlike
        those that the lists were made for: nothing is found for one that reads another column.
    """
    wide, used = codes.shape[1], len(columns) + len(steady)
    offsets, unlike, total, strange = np.zeros(len(queries) + 1, np.int64), np.empty(len(queries), np.int64), 0, 0
    chosen = np.empty((number + 1) * len(queries), np.int32)
    asked, inner = np.zeros(wide, np.float32), np.zeros(wide, np.float32)
    for b in range(len(queries)):
        query, length, read, like = queries[b], np.float32(0), 0, True
        for d in range(len(columns)):
            value = query[columns[d]]
            inner[d], asked[d] = value, value * scales[d]
            length += value * value
            read += value != 0
        for d in range(len(steady)):
            like &= query[steady[d]] == told[d]
            length += told[d] * told[d]
            read += told[d] != 0
        if not like or (used < len(query) and np.count_nonzero(query) > read):
            unlike[strange] = b
            strange += 1
            offsets[b + 1] = total
            continue
        lists = _promising(inner, np.float32(np.sqrt(length)), means, worth, besides, min(effort, len(means)))
        size = 0
        for j in range(len(lists)):
            size += starts[lists[j] + 1] - starts[lists[j]]
        scores, size = np.empty(size, np.float32), 0
        for j in range(len(lists)):
            a, z = starts[lists[j]], starts[lists[j] + 1]
            _products(asked, codes[a:z], extra[a:z], scores[size : size + z - a])
            if len(allowed):
                for i in range(z - a):
                    if not allowed[items[a + i]]:
                        scores[size + i] = -np.inf
            size += z - a
        not_listed = np.sort(barred[barred_offsets[b] : barred_offsets[b + 1]])
        wanted = number + len(not_listed)
        least = max(least_of_best(scores, wanted, np.empty(2 * wanted, np.float32)), np.finfo(np.float32).min)
        best, of_best, size, found = np.empty(4 * wanted, np.int32), np.empty(4 * wanted, np.float32), 0, 0
        for j in range(len(lists)):
            a, z = starts[lists[j]], starts[lists[j] + 1]
            own = scores[size : size + z - a]
            size += z - a
            worthy = 0
            for i in range(len(own)):
                worthy += own[i] >= least
            if found + worthy > len(best):
                best = np.append(best, np.empty(found + worthy, np.int32))
                of_best = np.append(of_best, np.empty(found + worthy, np.float32))
            if worthy:
                for i in range(len(own)):
                    if own[i] >= least and not among(not_listed, items[a + i]):
                        best[found], of_best[found] = items[a + i], own[i]
                        found += 1
        least = np.partition(of_best[:found], found - number)[found - number] if found > number else least
        if total + found > len(chosen):
            chosen = np.append(chosen, np.empty(total + found, np.int32))
        for i in range(found):
            if of_best[i] >= least:
                chosen[total] = best[i]
                total += 1
        offsets[b + 1] = total
    return offsets, chosen[:total], unlike[:strange]
