import numpy as np
import pytest

from nextsession.bootstrap import Estimate, intervals


def slowly(columns, groups, resamples, seed):
    """Draw groups, look up their rows one by one, take means and percentiles."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(members), len(members), dtype=np.uint32)
        rows = np.concatenate([members[g] for g in drawn])
        found.append([np.nanmean(column[rows]) for column in columns])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return [Estimate(np.nanmean(c), a, z) for c, a, z in zip(columns, low, high, strict=True)]


@pytest.mark.parametrize("n_groups", [7, 60])
def test_intervals_agree_with_rows_looked_up_one_by_one(n_groups):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, n_groups, 200)
    columns = [rng.random(200), (rng.random(200) < 0.3).astype(float)]
    columns.append(np.where(rng.random(200) < 0.2, np.nan, columns[0]))
    fast = intervals(columns, groups, resamples=90, seed=5)
    for one, other in zip(fast, slowly(columns, groups, 90, 5), strict=True):
        assert vars(one) == pytest.approx(vars(other), abs=1e-5)


def test_questions_of_one_user_widen_the_interval():
    rng = np.random.default_rng(1)
    habits = np.repeat(rng.random(50), 20)
    alone = intervals([habits], np.arange(1000), resamples=500, seed=0)[0]
    together = intervals([habits], np.repeat(np.arange(50), 20), resamples=500, seed=0)[0]
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        found = intervals(
            [(rng.random(80) < 0.4).astype(float)], np.arange(80), resamples=200, seed=trial, confidence=0.9
        )
        held += found[0].low <= 0.4 <= found[0].high
    assert 0.82 * 200 <= held <= 0.96 * 200


def test_without_resamples_or_values_an_interval_has_no_width():
    assert intervals([np.array([0.0, 1.0])], np.arange(2), resamples=0, seed=0) == [Estimate(0.5, 0.5, 0.5)]
    empty = intervals([np.array([np.nan, np.nan])], np.arange(2), resamples=5, seed=0)[0]
    assert np.isnan([empty.mean, empty.low, empty.high]).all()
    assert intervals([], np.arange(2), resamples=5, seed=0) == []


def test_the_same_seed_draws_the_same():
    columns, groups = [np.random.default_rng(0).random(50)], np.arange(50)
    one, again, other = (intervals(columns, groups, resamples=50, seed=s)[0] for s in (1, 1, 2))
    assert one == again != other
