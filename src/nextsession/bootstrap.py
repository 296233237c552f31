"""Bootstrap: how far a mean would wander if other users had come.

Users, not questions, are drawn again: questions of one user are not independent (cluster
bootstrap).  The draws depend only on the seed and the number of groups, so two models asked the same
questions are resampled together, and the interval of their difference is a paired one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled

Floats: TypeAlias = NDArray[np.float64]

_BLOCK = 16  # resamples counted before they are multiplied


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval in which it lies with the chosen confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Show four decimals.

        >>> print(Estimate(0.25, 0.2, 0.31))
        0.2500 [0.2000, 0.3100]
        """
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def intervals(
    columns: Iterable[Floats], groups: NDArray[np.int64], *, resamples: int, seed: int, confidence: float = 0.95
) -> list[Estimate]:
    """Return the mean of each column `(Q,)` with a percentile interval.

    Args:
        columns: One value a question; NaN: the question has none in that column and does not count.
        groups: `(Q,)` questions with the same number are drawn together.
        resamples: How often all groups are drawn with replacement; 0: intervals of no width.
        seed: Of the draws.
        confidence: Share of the resamples inside the interval.
    """
    group = np.unique(groups, return_inverse=True)[1]
    n_groups = int(group.max(initial=-1)) + 1
    totals = [_by_group(column, group, n_groups) for column in columns]
    if not totals:
        return []
    sums, counts = (np.stack(part, axis=1) for part in zip(*totals, strict=True))
    means = _ratio(sums.sum(axis=0, keepdims=True), counts.sum(axis=0, keepdims=True))[0]
    if resamples == 0 or n_groups == 0:
        return [Estimate(float(m), float(m), float(m)) for m in means]
    drawn = _resampled(sums, counts, resamples, seed)
    edge = 100 * (1 - confidence) / 2
    return [
        _estimate(float(mean), column[~np.isnan(column)], edge) for mean, column in zip(means, drawn.T, strict=True)
    ]


def _estimate(mean: float, drawn: Floats, edge: float) -> Estimate:
    """Take the interval between two percentiles; without a single resample it has no width."""
    low, high = np.percentile(drawn, [edge, 100 - edge]) if len(drawn) else (mean, mean)
    return Estimate(mean, float(low), float(high))


def _by_group(column: Floats, group: NDArray[np.intp], n_groups: int) -> tuple[Floats, Floats]:
    valid = ~np.isnan(column)
    held, place = (column, group) if valid.all() else (column[valid], group[valid])
    counts = np.bincount(place, minlength=n_groups)
    sums: Floats = np.bincount(place, held, n_groups).astype(np.float64)
    return sums, counts.astype(np.float64)


def _ratio(sums: Floats, counts: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(counts > 0, sums / counts, np.nan)
    return ratio


def _resampled(sums: Floats, counts: Floats, resamples: int, seed: int) -> Floats:
    """Return the mean of every column in every resample, `(resamples, M)`."""
    rng = np.random.default_rng(seed)
    kinds, kind = np.unique(counts, axis=1, return_inverse=True)  # most columns count the same questions
    everything = np.concatenate([sums, kinds], axis=1).astype(np.float32)
    totals = np.empty((resamples, everything.shape[1]))
    times = np.empty((_BLOCK, len(sums)), np.float32)
    for start in range(0, resamples, _BLOCK):
        stop = min(start + _BLOCK, resamples)
        for row in range(stop - start):
            times[row] = 0
            _count(rng.integers(0, len(sums), len(sums), dtype=np.uint32), times[row])
        totals[start:stop] = times[: stop - start] @ everything
    return _ratio(totals[:, : sums.shape[1]], totals[:, sums.shape[1] :][:, kind.ravel()])


@compiled
def _count(drawn: NDArray[np.uint32], times: NDArray[np.float32]) -> None:
    for i in range(len(drawn)):
        times[drawn[i]] += np.float32(1)
