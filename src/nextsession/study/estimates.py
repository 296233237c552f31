"""Estimates: the mean of a model over its seeds, and how far it would wander with other people and other seeds.

In every resample people are drawn again, the same ones for all models, and of each model its seeds
are, so that an interval holds both kinds of chance and a difference is paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nextsession.bootstrap import Estimate, Floats
from nextsession.outcomes import Report

_BLOCK = 50  # resamples at once


@dataclass(frozen=True, eq=False)
class Draws:
    """Means of metrics of models: as measured, and in every resample."""

    names: Sequence[str]
    metrics: Sequence[str]
    means: Floats  # (A, M) over the seeds
    drawn: Floats  # (B, A, M)
    spread: Floats  # (A, M) standard deviation over the seeds; NaN with one seed
    confidence: float

    def of(self, name: str, metric: str) -> Estimate:
        """Return a mean with its interval."""
        a, m = self._place(name, metric)
        return self._estimate(float(self.means[a, m]), self.drawn[:, a, m])

    def difference(self, name: str, other: str, metric: str) -> Estimate:
        """Return how much better a model is than another."""
        (a, m), (b, _) = self._place(name, metric), self._place(other, metric)
        return self._estimate(float(self.means[a, m] - self.means[b, m]), self.drawn[:, a, m] - self.drawn[:, b, m])

    def gain(self, name: str, other: str, metrics: Sequence[str]) -> Estimate:
        """Return the mean over metrics of how much better a model is than another, as a share of the other."""
        a, b = self.names.index(name), self.names.index(other)
        chosen = [self.metrics.index(m) for m in metrics]

        def share(means: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                found: Floats = (means[..., a, chosen] / means[..., b, chosen] - 1).mean(axis=-1)
            return found

        return self._estimate(float(share(self.means)), share(self.drawn))

    def _place(self, name: str, metric: str) -> tuple[int, int]:
        return self.names.index(name), self.metrics.index(metric)

    def _estimate(self, mean: float, drawn: Floats) -> Estimate:
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Estimate(mean, mean, mean)
        edge = 50 * (1 - self.confidence)
        low, high = np.percentile(drawn, [edge, 100 - edge])
        return Estimate(mean, float(low), float(high))


def draw(
    reports: Mapping[str, Sequence[Report]],
    metrics: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Draws:
    """Resample the people and the seeds of some models that were asked the same questions.

    Args:
        reports: Of each model, one for each seed.
        metrics: Names such as `ndcg@10`; of questions without a value (NaN) none is taken.
        resamples: How often.
        seed: Of the draws.
        confidence: Share of the resamples inside an interval.
    """
    first = next(iter(reports.values()))[0]
    group = np.unique(first.questions["groups"], return_inverse=True)[1]
    n, names, many = int(group.max()) + 1, list(reports), list(metrics)
    sizes = [len(found) for found in reports.values()]
    values = np.stack([r.values(m) for found in reports.values() for r in found for m in many], axis=1)
    valid = np.isfinite(values)
    sums, counts = np.zeros((n, values.shape[1])), np.zeros((n, values.shape[1]))
    np.add.at(sums, group, np.where(valid, values, 0.0))
    np.add.at(counts, group, valid.astype(np.float64))
    measured = _ratio(sums.sum(0), counts.sum(0)).reshape(-1, len(many))
    starts = np.cumsum([0, *sizes])
    people, seeds = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    drawn = np.empty((resamples, len(names), len(many)))
    for begin in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - begin)
        times = np.stack([np.bincount(people.integers(0, n, n), minlength=n) for _ in range(size)]).astype(float)
        found = _ratio(times @ sums, times @ counts).reshape(size, -1, len(many))
        for a, (start, stop) in enumerate(pairwise(starts)):
            chosen = seeds.integers(start, stop, (size, stop - start))
            drawn[begin : begin + size, a] = np.take_along_axis(found, chosen[:, :, None], axis=1).mean(axis=1)
    parts = [measured[a:z] for a, z in pairwise(starts)]
    means = np.stack([part.mean(axis=0) for part in parts])
    spread = np.stack([part.std(axis=0, ddof=1) if len(part) > 1 else np.full(len(many), np.nan) for part in parts])
    return Draws(names, many, means, drawn, spread, confidence)


def _ratio(sums: Floats, counts: Floats) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(counts > 0, sums / counts, np.nan)
    return found
