"""Metrics: exact definitions, from the ranks of the targets and from the lists.

Everything about ranks needs, for each target, only how many items beat it and how many equal it
(`RankCounts`); no list is sorted and nothing is sampled.  What is said about lists (coverage,
popularity, ...) needs the lists themselves.

One question has `P` distinct targets, `P >= 1`; their ranks count from 1.  Questions without a
target have no metric: the evaluation skips and counts them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.items import ItemTable
from nextsession.data.log import offsets_of
from nextsession.errors import ConfigError, suggestion
from nextsession.scores import RankCounts

Ties = Literal["optimistic", "median", "conservative"]
"""Where a target stands among items of the same score: first, in the middle, last."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of the targets of `Q` questions, best first within a question; infinite for a miss."""

    values: Floats  # (T,)
    offsets: NDArray[np.int64]  # (Q+1,) each question has a target
    order: NDArray[np.int64]  # (T,) which of the targets, as they were given, each rank belongs to

    @classmethod
    def of(cls, counts: RankCounts, offsets: NDArray[np.int64], ties: Ties) -> "Ranks":
        """Turn counts into ranks by a tie rule.

        A target tied with `equal - 1` others stands at `greater + 1` (optimistic), `greater + equal`
        (conservative) or in the middle (median).  Several targets of one question that tie with
        each other take different places: the first, the last, or the places that a random order
        gives them on average, so that no metric can exceed 1.
        """
        values, order = _ranks(
            counts.greater, counts.equal, offsets, ("optimistic", "median", "conservative").index(ties)
        )
        return cls(values, offsets, order)

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.offsets) - 1

    @property
    def targets(self) -> NDArray[np.int64]:
        """The number of targets of each question, `(Q,)`."""
        return np.diff(self.offsets)

    def each(self) -> "Ranks":
        """Return the ranks with every target as a question of its own, in the order they were given."""
        values = np.empty_like(self.values)
        values[self.order] = self.values
        places = np.arange(len(values))
        return Ranks(values, np.append(places, len(values)), places)

    def total(self, per_target: NDArray[np.generic]) -> Floats:
        """Sum a column of `(T,)` over the targets of each question, `(Q,)`."""
        if len(self) == 0:
            return np.zeros(0)
        if len(self) == len(self.values):
            return per_target.astype(np.float64)
        sums: Floats = np.add.reduceat(per_target.astype(np.float64), self.offsets[:-1])
        return sums


def recall(ranks: Ranks, k: int) -> Floats:
    """Return the share of the targets among the first `k`: hits / P."""
    return ranks.total(ranks.values <= k) / ranks.targets


def truncated_recall(ranks: Ranks, k: int) -> Floats:
    """Return the share of the targets found, of as many as `k` places can hold: hits / min(k, P)."""
    return ranks.total(ranks.values <= k) / np.minimum(ranks.targets, k)


def hitrate(ranks: Ranks, k: int) -> Floats:
    """Return 1 where any target is among the first `k`."""
    return (_first(ranks) <= k).astype(np.float64)


def precision(ranks: Ranks, k: int) -> Floats:
    """Return hits / k, also for lists shorter than `k`."""
    return ranks.total(ranks.values <= k) / k


def f1(ranks: Ranks, k: int) -> Floats:
    """Return the harmonic mean of precision and recall: 2 hits / (k + P)."""
    return 2 * ranks.total(ranks.values <= k) / (k + ranks.targets)


def ndcg(ranks: Ranks, k: int) -> Floats:
    """Return sum 1/log2(rank + 1) over hits, divided by its largest possible value for min(k, P) targets."""
    gains = np.where(ranks.values <= k, 1 / np.log2(ranks.values + 1), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    scores: Floats = ranks.total(gains) / ideal[np.minimum(ranks.targets, k) - 1]
    return scores


def mrr(ranks: Ranks, k: int) -> Floats:
    """Return 1 / rank of the best target if that is at most `k`, else 0."""
    first = _first(ranks)
    return np.where(first <= k, 1 / first, 0.0)


def average_precision(ranks: Ranks, k: int) -> Floats:
    """Return the mean over min(k, P) of the precision at each hit; its mean over questions is MAP."""
    found = np.arange(1, len(ranks.values) + 1) - np.repeat(ranks.offsets[:-1], ranks.targets)
    gains = np.where(ranks.values <= k, found / ranks.values, 0.0)
    return ranks.total(gains) / np.minimum(ranks.targets, k)


RANK_METRICS: dict[str, Callable[[Ranks, int], Floats]] = {
    "recall": recall,
    "truncated_recall": truncated_recall,
    "hitrate": hitrate,
    "precision": precision,
    "f1": f1,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
}
"""Metrics of the ranks of the targets: `(ranks, k) -> (Q,)`."""

LIST_METRICS = ("popularity", "novelty", "diversity")
"""Metrics of each list."""

WHOLE_METRICS = ("coverage", "gini")
"""Metrics of all lists together."""


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names if there are such metrics.

    Raises:
        ConfigError: There is no metric of that name; the message suggests the nearest.
    """
    known = [*RANK_METRICS, *LIST_METRICS, *WHOLE_METRICS]
    for name in names:
        if name not in known:
            hint = suggestion(name, known) + (" k is a setting of its own." if "@" in name else "")
            raise ConfigError(f"There is no metric {name!r}.{hint} Metrics: {', '.join(known)}.")
    return names


# -- lists --------------------------------------------------------------------------------------


def list_means(lists: NDArray[np.int32], per_item: Floats, ks: tuple[int, ...]) -> Floats:
    """Return the mean of a column of `(V,)` over the first `k` of each list, `(Q, len(ks))`; 0 for empty lists.

    Lists end in -1 where they are short.
    """
    if len(per_item) == 0:
        return np.zeros((len(lists), len(ks)))
    held = lists >= 0
    sums = np.cumsum(np.where(held, per_item[lists], 0.0), axis=1)
    counts = np.cumsum(held, axis=1)
    width = lists.shape[1]
    last = np.minimum(ks, width) - 1
    means: Floats = sums[:, last] / np.maximum(counts[:, last], 1)
    return means


def popularity_of(counts: NDArray[np.int64]) -> Floats:
    """Return the share of each item's count in the largest count: what `popularity` (ARP) averages."""
    return counts / max(1.0, float(counts.max(initial=0)))


def novelty_of(counts: NDArray[np.int64]) -> Floats:
    """Return -log2 of each item's share of all events, every count raised by one: what `novelty` averages."""
    raised = counts + 1.0
    novelty: Floats = -np.log2(raised / raised.sum())
    return novelty


def coverage(shown: NDArray[np.int64]) -> float:
    """Return the share of the items that are in any list at all; `shown` counts lists an item, `(V,)`."""
    return float(np.count_nonzero(shown) / max(1, len(shown)))


def gini(shown: NDArray[np.int64]) -> float:
    """Return how unevenly items are shown: 0 all alike, towards 1 few items only.

    `sum (2 i - V - 1) c_(i) / (V sum c)` over the counts in rising order; 0 if nothing is shown.
    """
    total, n = int(shown.sum()), len(shown)
    if total == 0:
        return 0.0
    return float(np.dot(2 * np.arange(1, n + 1) - n - 1, np.sort(shown)) / (n * total))


@dataclass(frozen=True, eq=False)
class ItemSpace:
    """Items as unit vectors of their side features, for the diversity of lists.

    Each categorical value is one dimension: fixed, and never a table that the model learnt.
    """

    offsets: NDArray[np.int64]  # (V+1,)
    values: NDArray[np.int64]  # dimensions of each item, ascending, each of weight 1

    @classmethod
    def of(cls, table: ItemTable) -> "ItemSpace":
        """Place all features of a table side by side."""
        owners, values, width = [], [], 0
        for name in sorted(table.features):
            feature = table.features[name]
            owners.append(np.repeat(np.arange(len(feature)), np.diff(feature.offsets)))
            values.append(feature.codes.astype(np.int64) + width)
            width += len(feature.labels)
        n_items = len(next(iter(table.features.values())))
        pairs = np.unique(np.concatenate(owners) * width + np.concatenate(values))
        return cls(offsets_of(np.bincount(pairs // max(1, width), minlength=n_items)), pairs % max(1, width))

    def diversity(self, lists: NDArray[np.int32], ks: tuple[int, ...]) -> Floats:
        """Return the mean of 1 - cosine over the pairs of the first `k` of each list, `(Q, len(ks))` (ILD).

        An item of which nothing is known is unlike every other.  Lists of one item have diversity 0.
        """
        return _diversity(lists, np.array(ks), self.offsets, self.values)


# -- inside what was shown ----------------------------------------------------------------------


def slate_counts(
    target_scores: NDArray[np.float32],
    target_offsets: NDArray[np.int64],
    ignored_scores: NDArray[np.float32],
    ignored_offsets: NDArray[np.int64],
) -> tuple[RankCounts, Floats]:
    """Compare the targets with what was shown beside them and ignored.

    Returns:
        For every target how many of the slate score higher and the same (itself included), and for
        every question the share of (target, ignored) pairs in the right order, ties half: the AUC,
        NaN where a question lacks one or the other.  Items without a score tie with one another.
    """
    greater, equal, auc = _slates(target_scores, target_offsets, ignored_scores, ignored_offsets)
    return RankCounts(greater, equal), auc


# -- inside -------------------------------------------------------------------------------------


def _first(ranks: Ranks) -> Floats:
    return ranks.values[ranks.offsets[:-1]]


@compiled
def _ranks(
    greater: NDArray[np.int64], equal: NDArray[np.int64], offsets: NDArray[np.int64], ties: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values = np.full(len(greater), np.inf)
    order = np.arange(len(greater))
    for q in range(len(offsets) - 1):
        a, z = offsets[q], offsets[q + 1]
        found = a  # insertion sort of the found targets by `greater`, misses last
        for t in range(a, z):
            if equal[t] == 0:
                continue
            place = found
            order[place] = t
            while place > a and greater[order[place - 1]] > greater[t]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = t
            found += 1
        rest = found
        for t in range(a, z):
            if equal[t] == 0:
                order[rest] = t
                rest += 1
        start = a
        while start < found:
            above, same = greater[order[start]], equal[order[start]]
            stop = start
            while stop < found and greater[order[stop]] == above:
                stop += 1
            together = stop - start
            for i in range(together):
                if ties == 0:
                    values[start + i] = above + 1 + i
                elif ties == 1:
                    values[start + i] = above + (i + 1) * (same + 1) / (together + 1)
                else:
                    values[start + i] = above + same - together + 1 + i
            start = stop
    return values, order


@compiled
def _diversity(
    lists: NDArray[np.int32], ks: NDArray[np.int64], offsets: NDArray[np.int64], values: NDArray[np.int64]
) -> NDArray[np.float64]:
    result = np.zeros((len(lists), len(ks)))
    width = lists.shape[1]
    sums = np.zeros(width + 1)
    for q in range(len(lists)):
        n = 0
        while n < width and lists[q, n] >= 0:
            total = sums[n]
            a, a_end = offsets[lists[q, n]], offsets[lists[q, n] + 1]
            for j in range(n):
                b, b_end = offsets[lists[q, j]], offsets[lists[q, j] + 1]
                shared, x, y = 0, a, b
                while x < a_end and y < b_end:
                    if values[x] == values[y]:
                        shared += 1
                        x += 1
                        y += 1
                    elif values[x] < values[y]:
                        x += 1
                    else:
                        y += 1
                total += 1.0 if shared == 0 else 1 - shared / np.sqrt((a_end - a) * (b_end - b))
            n += 1
            sums[n] = total
        for i in range(len(ks)):
            m = min(ks[i], n)
            if m > 1:
                result[q, i] = 2 * sums[m] / (m * (m - 1))
    return result


@compiled
def _slates(
    wanted: NDArray[np.float32],
    wanted_offsets: NDArray[np.int64],
    ignored: NDArray[np.float32],
    ignored_offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    greater = np.zeros(len(wanted), np.int64)
    equal = np.zeros(len(wanted), np.int64)
    auc = np.full(len(wanted_offsets) - 1, np.nan)
    for q in range(len(wanted_offsets) - 1):
        a, z = wanted_offsets[q], wanted_offsets[q + 1]
        b, y = ignored_offsets[q], ignored_offsets[q + 1]
        right = 0.0
        for t in range(a, z):
            for i in range(b, y):
                greater[t] += ignored[i] > wanted[t]
                equal[t] += ignored[i] == wanted[t]
            right += (y - b) - greater[t] - 0.5 * equal[t]
            for i in range(a, z):
                greater[t] += wanted[i] > wanted[t]
                equal[t] += wanted[i] == wanted[t]
        if z > a and y > b:
            auc[q] = right / ((z - a) * (y - b))
    return greater, equal, auc
