"""Metrics from counts are those that a ranked list gives, read one place at a time."""

import math
from itertools import permutations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from nextsession.metrics import RANK_METRICS, Ranks, coverage, gini, list_means, slate_counts
from nextsession.scores import DenseScores, RankCounts, Targets


def slowly(name: str, ranking: list[int], wanted: set[int], k: int) -> float:
    """Each metric as its definition says, from a list."""
    hits = [item in wanted for item in ranking[:k]]
    found, p = sum(hits), len(wanted)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, p) + 1))
    return {
        "recall": found / p,
        "truncated_recall": found / min(k, p),
        "hitrate": float(found > 0),
        "precision": found / k,
        "f1": 0.0 if not found else 2 * (found / k) * (found / p) / (found / k + found / p),
        "ndcg": sum(1 / math.log2(place + 1) for place, hit in enumerate(hits, 1) if hit) / ideal,
        "mrr": next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0),
        "map": sum(sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit) / min(k, p),
    }[name]


@st.composite
def answers(draw, *, distinct: bool):
    n = draw(st.integers(1, 12))
    value = st.integers(-20, 20) if distinct else st.integers(0, 2)
    scores = draw(st.lists(value, min_size=n, max_size=n, unique=distinct))
    wanted = draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=5))
    return scores, wanted, draw(st.integers(1, 15))


def counts_of(scores, wanted) -> tuple[RankCounts, np.ndarray]:
    targets = Targets(np.array([0, len(wanted)]), np.array(sorted(wanted), np.int32))
    return DenseScores(np.array([scores], np.float32)).ranks(targets), targets.offsets


@given(answers(distinct=True))
@settings(max_examples=200, deadline=None)
def test_metrics_agree_with_a_ranked_list(answer):
    scores, wanted, k = answer
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i])
    for ties in ("optimistic", "median", "conservative"):
        ranks = Ranks.of(*counts_of(scores, wanted), ties)
        for name, metric in RANK_METRICS.items():
            assert metric(ranks, k)[0] == pytest.approx(slowly(name, ranking, wanted, k)), name


@given(answers(distinct=False))
@settings(max_examples=200, deadline=None)
def test_tied_targets_stand_first_last_or_where_chance_puts_them(answer):
    scores, wanted, _ = answer

    def places(key):
        ranking = sorted(range(len(scores)), key=key)
        return sorted(1.0 + ranking.index(i) for i in wanted)

    counts, offsets = counts_of(scores, wanted)
    first = Ranks.of(counts, offsets, "optimistic").values.tolist()
    last = Ranks.of(counts, offsets, "conservative").values.tolist()
    assert first == places(lambda i: (-scores[i], i not in wanted))
    assert last == places(lambda i: (-scores[i], i in wanted))
    middle = Ranks.of(counts, offsets, "median").values
    assert middle.sum() == pytest.approx((sum(first) + sum(last)) / 2)
    assert np.all((first <= middle) & (middle <= last))


def test_the_median_is_the_mean_place_over_all_orders_of_the_tied():
    tied, wanted = range(5), {1, 3}
    mean = np.mean([sorted(order.index(i) + 1 for i in wanted) for order in permutations(tied)], axis=0)
    ranks = Ranks.of(*counts_of([0] * 5, wanted), "median")
    assert ranks.values.tolist() == pytest.approx(mean.tolist()) == [2.0, 4.0]


@given(answers(distinct=False))
@settings(max_examples=100, deadline=None)
def test_no_metric_leaves_nought_to_one(answer):
    scores, wanted, k = answer
    for ties in ("optimistic", "median", "conservative"):
        ranks = Ranks.of(*counts_of(scores, wanted), ties)
        for name, metric in RANK_METRICS.items():
            assert 0 <= metric(ranks, k)[0] <= 1 + 1e-12, (name, ties)


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_slates_agree_with_pairs(wanted, data):
    ignored = [data.draw(st.lists(st.integers(0, 2), max_size=4)) for _ in wanted]

    def columns(rows):
        return np.array([x for row in rows for x in row], np.float32), np.cumsum([0, *map(len, rows)])

    counts, auc = slate_counts(*columns(wanted), *columns(ignored))
    t = 0
    for q, (mine, others) in enumerate(zip(wanted, ignored, strict=True)):
        pairs = [(x > y) + 0.5 * (x == y) for x in mine for y in others]
        assert auc[q] == pytest.approx(np.mean(pairs)) if pairs else np.isnan(auc[q])
        for x in mine:
            assert counts.greater[t] == sum(y > x for y in mine + others)
            assert counts.equal[t] == sum(y == x for y in mine + others)
            t += 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_gini_is_the_mean_difference_of_all_pairs(shown):
    n, total = len(shown), sum(shown)
    expected = sum(abs(a - b) for a in shown for b in shown) / (2 * n * total) if total else 0
    assert gini(np.array(shown)) == pytest.approx(expected)
    assert coverage(np.array(shown)) == pytest.approx(sum(c > 0 for c in shown) / n)


@given(st.lists(st.lists(st.integers(0, 6), max_size=4, unique=True), min_size=1, max_size=4))
def test_list_means_agree_with_a_loop(lists):
    per_item = np.array([1.0, 0.5, 0.25, 3, 2, 7, 9])
    padded = np.array([row + [-1] * (4 - len(row)) for row in lists], np.int32)
    means = list_means(padded, per_item, (1, 3, 10))
    for row, found in zip(lists, means, strict=True):
        assert found.tolist() == pytest.approx([np.mean(per_item[row[:k]]) if row else 0 for k in (1, 3, 10)])
