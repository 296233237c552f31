"""Values of the neighbour models that were worked out by hand and by the published code, k = infinity."""

from math import sqrt

import numpy as np
import pytest

from nextsession import SessionLog, Vocabulary, create

DAY = 86_400_000
SESSIONS = {"a": [1, 2, 3], "b": [2, 3, 4], "c": [3, 5], "d": [1, 3, 3, 6]}  # one a day
EVERYTHING = {"neighbours": 100, "sample": 100}


def log_of(names: str) -> SessionLog:
    days = ["abcd".index(name) * DAY for name in names]
    sessions = [SESSIONS[name] for name in names]
    return SessionLog.from_lists(
        [[s] for s in sessions],
        vocabulary=Vocabulary(range(1, 7)),
        times=[[[d] * len(s)] for d, s in zip(days, sessions, strict=True)],
    )


def scores(name: str, names: str = "abcd", **settings) -> dict[int, float]:
    model = create(name, **EVERYTHING | settings).fit(log_of(names))
    asked = SessionLog.from_lists([[[1, 2, 3]]], vocabulary=model.vocabulary_)
    row = model.scores(asked, asked_at=4 * DAY).dense()[0]
    return dict(zip(model.vocabulary_.ids.tolist(), row.tolist(), strict=True))


def test_sknn_jaccard():
    assert scores("sknn", similarity="jaccard") == pytest.approx({1: 1.5, 2: 1.5, 3: 2.25, 4: 0.5, 5: 0.25, 6: 0.5})


def test_sknn_cosine_is_shared_over_the_product_of_both_roots():
    a, b, c, d = 3 / 3, 2 / 3, 1 / (sqrt(3) * sqrt(2)), 2 / 3
    expected = {1: a + d, 2: a + b, 3: a + b + c + d, 4: b, 5: c, 6: d}
    assert scores("sknn", similarity="cosine") == pytest.approx(expected)


def test_cosine_does_not_reward_long_sessions():
    log = SessionLog.from_lists([[[1, 2]], [[1, 3, 4, 5, 6, 7]]])
    model = create("sknn", similarity="cosine").fit(log)
    row = model.scores(SessionLog.from_lists([[[1]]], vocabulary=log.vocabulary)).dense()[0]
    assert row[log.vocabulary.encode([2])] == pytest.approx(1 / sqrt(2))
    assert row[log.vocabulary.encode([3])] == pytest.approx(1 / sqrt(6))


@pytest.mark.parametrize(("name", "similarity"), [("a", 0.666667), ("b", 0.555556), ("c", 0.333333), ("d", 0.444444)])
def test_vsknn_similarities(name, similarity):
    alone = scores("vsknn", name, weighting="div", decay="div", idf=0)
    assert alone[3] == pytest.approx(similarity, abs=1e-6)


def test_vsknn():
    expected = {1: 1.111111, 2: 1.222222, 3: 2, 4: 0.555556, 5: 0.333333, 6: 0.444444}
    assert scores("vsknn", weighting="div", decay="div", idf=0) == pytest.approx(expected, abs=1e-5)


def test_vsknn_with_idf_may_push_an_item_down():
    expected = {1: 1.881275, 2: 2.069402, 3: 1.553713, 4: 1.325719, 5: 0.795431, 6: 1.060575}
    assert scores("vsknn", weighting="div", decay="div", idf=1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "similarity"), [("a", 0.365043), ("b", 0.404468), ("c", 0.439981), ("d", 0.500538)])
def test_stan_similarities(name, similarity):
    assert max(scores("stan", name).values()) == pytest.approx(similarity, abs=1e-6)


def test_stan():
    expected = {1: 0.326291, 2: 0.472459, 3: 1.710029, 4: 0.248332, 5: 0.270136, 6: 0.307316}
    settings = {"place_decay": 1.02, "age_decay": "5d", "distance_decay": 2.05}
    assert scores("stan", **settings) == pytest.approx(expected, abs=1e-5)


def test_vstan_is_stan_times_idf_where_every_neighbour_shares_the_last_item():
    stan, idf = scores("stan"), {i: np.log(4 / n) for i, n in {1: 2, 2: 2, 3: 5, 4: 1, 5: 1, 6: 1}.items()}
    assert scores("vstan", idf=5) == pytest.approx({i: stan[i] * (1 + 5 * idf[i]) for i in stan}, rel=1e-5)


def test_vmisknn():
    a, b, c, d = (1 + 2 + 3) / 3, (2 + 3) / 3, 3 / 3, (1 + 3) / 3
    votes = {1: a + d, 2: a + b, 3: a + b + c + d, 4: b, 5: c, 6: d}
    events = {1: 2, 2: 2, 3: 5, 4: 1, 5: 1, 6: 1}
    expected = {i: 0.9 * votes[i] * 2 * np.log(12 / events[i]) for i in votes}
    assert scores("vmisknn", decay="linear", idf=2) == pytest.approx(expected, rel=1e-5)
