"""The counting models on real logs: the figures that others measured, and those of other implementations.

Skipped, set by set, where `$NEXTSESSION_DATA` is not given or does not hold the set.
"""

import os
from datetime import datetime

import numpy as np
import pytest

from nextsession import create
from nextsession.data import sets
from nextsession.data.format import Filters
from nextsession.evaluation import EvaluationSettings, evaluate
from nextsession.splits import SplitSettings, split, split_ready

LEAVE_SESSION = SplitSettings(protocol="leave-one-session-out", users=20_000)


@pytest.fixture
def real(monkeypatch, tmp_path_factory):
    """Give a function that prepares a real set from nothing, into a cache of this test run."""
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path_factory.mktemp("cache")))

    def prepare(name, **settings):
        one = sets.get(name)
        if not os.environ.get("NEXTSESSION_DATA") or one.find() is None:
            pytest.skip(f"set NEXTSESSION_DATA to the folder that holds {one.folders[0] if one.folders else name}/")
        return one.prepare(**settings)

    return prepare


def quality(model, questions, *, k, exclude="nothing"):
    """The means of ndcg, recall, mrr and hit rate at each `k`."""
    rules = EvaluationSettings(metrics=("ndcg", "recall", "mrr", "hitrate"), k=k, bootstrap=0, exclude=exclude)
    report = evaluate(model, questions, rules)
    return {name: float(report.values(name).mean()) for name in report.names}


@pytest.mark.parametrize(
    ("name", "settings", "hitrate", "mrr"),
    [
        ("sequentialrules", {}, 0.611, 0.340),
        ("markov", {}, 0.578, 0.356),
        ("itemknn", {"official_counts": True}, 0.390, 0.181),
    ],
)
def test_rsc15_as_the_reference_implementation(real, name, settings, hitrate, mrr):
    """Hit rate and MRR at 20 of the reference, on its first 500 sessions; ours on all of them.

    Half of Markov's counts are ties: by their order its MRR lies anywhere in 0.33 .. 0.37, and ours
    takes the middle rank, so it is given that room.
    """
    prepared = real("rsc15-100k")
    parts = split(prepared.log, SplitSettings(protocol="prefixes"), prepared.questions)
    found = quality(create(name, **settings).fit(parts.train), parts.test, k=(20,))
    assert found["hitrate@20"] == pytest.approx(hitrate, rel=0.025)
    assert found["mrr@20"] == pytest.approx(mrr, rel=0.05 if name == "markov" else 0.02)


@pytest.mark.slow
def test_globo_first_sessions_of_the_last_day(real):
    """Hit rate at 20 of others, on 300 sessions of the last day; on the first 300 that end in it ours is the same.

    They are easy, being the nearest to training: on the whole day the same models find half as much,
    so their choice matters more than the model.  The published MRR (0.186, 0.139, 0.152) is not
    reached on them (0.13), whatever the rule for ties.
    """
    log = real("globo").log.as_sessions().before(milliseconds_of("2017-10-17T04:00:00+00:00"))
    cut = log.session_ends.max() - 86_400_000
    train = log.sessions(log.session_ends < cut).compact()
    test = log.sessions(log.session_ends >= cut).recode(train.vocabulary)
    test = test.take(np.flatnonzero(np.diff(test.session_offsets[test.user_offsets]) > 1))
    first = test.take(np.argsort(test.session_starts, kind="stable")[:300])
    questions = split_ready(train, first, SplitSettings(protocol="session-events", unseen="drop")).test
    for name, hitrate in (("associationrules", 0.408), ("itemknn", 0.374), ("markov", 0.353)):
        found = quality(create(name).fit(train), questions, k=(20,))
        assert found["hitrate@20"] == pytest.approx(hitrate, rel=0.04), name


def milliseconds_of(instant):
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


@pytest.mark.slow
def test_globo_recency_decides_everything(real):
    """Clicks of the last hour, and of the last day, before the asked session began; all clicks count."""
    few = Filters(item_events=5, user_sessions=3, user_events=5, passes=3)
    log = real("globo", filters=few).log
    assert (log.n_events, len(log), log.n_sessions, log.n_items) == (2_317_236, 125_089, 785_775, 11_587)
    questions = split(log, LEAVE_SESSION).test
    published = {
        "1h": {"ndcg@10": 0.437, "ndcg@100": 0.525, "recall@10": 0.584, "recall@100": 0.880},
        "24h": {"ndcg@10": 0.193, "ndcg@100": 0.324, "recall@10": 0.274, "recall@100": 0.759},
    }
    for window, expected in published.items():
        found = quality(create("recent", window=window).fit(log), questions, k=(10, 100))
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0.02), window
    fading = quality(create("recent", half_life="20m").fit(log), questions, k=(10, 100))
    assert fading["ndcg@10"] > 0.437 * 1.01


def test_ebnerd_recency(real):
    """Clicks of the last hour; only clicks that are nobody's last session count, as in training."""
    parts = split(real("ebnerd").log, SplitSettings(protocol="leave-one-session-out"))
    found = quality(create("recent", window="1h").fit(parts.train), parts.test, k=(10, 100))
    expected = {"ndcg@10": 0.249, "ndcg@100": 0.366, "recall@10": 0.413, "recall@100": 0.853}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_tafeng_habits(real):
    parts = split(real("tafeng").log, SplitSettings(protocol="leave-one-session-out"))
    habits = quality(create("frequent").fit(parts.train), parts.test, k=(10, 100, 500))
    expected = {"ndcg@10": 0.123, "recall@10": 0.134, "recall@100": 0.308, "recall@500": 0.476}
    assert {name: habits[name] for name in expected} == pytest.approx(expected, rel=0.02)
    nearest = quality(create("tifuknn").fit(parts.train), parts.test, k=(10, 100, 500))
    assert nearest["recall@100"] > habits["recall@100"] * 1.03  # the neighbours know what one has not had yet
    assert nearest["recall@500"] > habits["recall@500"] * 1.02


@pytest.mark.slow
def test_movielens_bprmf(real):
    """The floor of published tables with full ranking: BPR-MF 0.074 / 0.038, popularity 0.037 / 0.018."""
    paper = SplitSettings(protocol="leave-one-item-out", form="paper-like")
    parts = split(real("ml-1m-order").log, paper)
    popular = quality(create("popular").fit(parts.train), parts.test, k=(10,), exclude="history")
    assert (popular["recall@10"], popular["ndcg@10"]) == pytest.approx((0.037, 0.018), rel=0.05)
    found = quality(create("bprmf", dim=64).fit(parts.train), parts.test, k=(10,), exclude="history")
    assert (found["recall@10"], found["ndcg@10"]) == pytest.approx((0.074, 0.038), rel=0.15)
