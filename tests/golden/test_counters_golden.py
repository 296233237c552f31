"""Values of counting models that were worked out by hand, on four sessions of six items."""

import numpy as np
import pytest

from nextsession import SessionLog, create

SESSIONS = [[1, 2, 3], [2, 3, 4], [3, 5], [1, 3, 3, 6]]
LOG = SessionLog.from_lists([[session] for session in SESSIONS])


def row(name, item, **settings):
    """The scored items after `item`, by id."""
    scores = create(name, **settings).fit(LOG).scores(SessionLog.from_lists([[[item]]])).dense()[0]
    return {int(i): float(s) for i, s in zip(LOG.vocabulary.ids, scores, strict=True) if s > -np.inf}


def test_sequential_rules_with_weights_that_fall_like_one_over_the_distance():
    assert row("sequentialrules", 3, steps=10, weighting="div") == {3: 1, 4: 1, 5: 1, 6: 1.5}
    assert row("sequentialrules", 1, steps=10, weighting="div") == pytest.approx({2: 1, 3: 2, 6: 1 / 3})


def test_sequential_rules_of_one_step_count_what_markov_counts():
    assert row("sequentialrules", 3, steps=1, weighting="same") == {3: 1, 4: 1, 5: 1, 6: 1}
    assert row("markov", 3) == {3: 0.25, 4: 0.25, 5: 0.25, 6: 0.25}
    assert row("markov", 1) == {2: 0.5, 3: 0.5}


def test_markov_with_laplace_smoothing():
    assert row("markov", 1, smoothing=1.0) == pytest.approx(
        {1: 1 / 8, 2: 2 / 8, 3: 2 / 8, 4: 1 / 8, 5: 1 / 8, 6: 1 / 8}
    )


def test_association_rules_count_pairs_of_events():
    assert row("associationrules", 1) == {2: 1, 3: 3, 6: 1}
    assert row("associationrules", 3) == {1: 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 2}


def test_item_knn():
    """Three holds four sessions (five events), one holds two, and they share two."""
    assert row("itemknn", 1)[3] == pytest.approx(2 / np.sqrt(22 * 24))
    assert row("itemknn", 1, official_counts=True)[3] == pytest.approx(2 / np.sqrt(22 * 25))
    assert row("itemknn", 3, official_counts=True)[1] == pytest.approx(3 / np.sqrt(22 * 25))
    assert 3 not in row("itemknn", 3)


def test_session_popular_puts_the_session_first():
    model = create("sessionpopular").fit(LOG)
    (answer,) = model.recommend(SessionLog.from_lists([[[5, 6, 6]]]), 6)
    assert answer[:3] == [6, 5, 3]


def test_tifuknn_weighs_sessions_and_groups():
    """Five sessions in groups of two, from the last: weights 0.49 | 0.7 x (0.9, 1) / 2 | (0.9, 1) / 2, over three."""
    log = SessionLog.from_lists([[["a"], ["b"], ["c"], ["d"], ["e", "a"]]])
    model = create("tifuknn", group=2, within_decay=0.9, group_decay=0.7, alpha=1.0).fit(log)
    scores = model.scores(log).dense()[0]
    assert scores == pytest.approx([(0.49 + 0.5) / 3, 0.315 / 3, 0.35 / 3, 0.45 / 3, 0.5 / 3])


def test_recent_halves_with_the_half_life():
    hour = 3_600_000
    log = SessionLog.from_lists([[["a"], ["b"], ["b"]]], times=[[[0], [hour], [2 * hour]]])
    scores = create("recent", half_life="1h").fit(log).scores(SessionLog.from_lists([[]]), asked_at=2 * hour + 1)
    assert scores.dense()[0] == pytest.approx([-2, np.log2(1.5)], abs=1e-6)
    windowed = create("recent", window="1h").fit(log).scores(SessionLog.from_lists([[]]), asked_at=2 * hour)
    assert windowed.dense()[0] == pytest.approx([0.5 / 3, 1 + 0.5 / 2], abs=1e-6)
