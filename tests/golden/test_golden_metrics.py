"""Values computed by independent implementations of the formulas, for given ranks."""

import numpy as np
import pytest

from nextsession.metrics import RANK_METRICS, Ranks
from nextsession.scores import RankCounts


def ranks_of(*places: int) -> Ranks:
    greater = np.array(places, np.int64) - 1
    return Ranks.of(RankCounts(greater, np.ones(len(places), np.int64)), np.array([0, len(places)]), "median")


MANY = ranks_of(1, 2, 3, *range(100, 109))


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        (
            ranks_of(4, 20, 1),
            10,
            {"ndcg": 0.671386, "recall": 0.666667, "precision": 0.2, "map": 0.5, "mrr": 1, "hitrate": 1},
        ),
        (ranks_of(4, 20, 1), 2, {"ndcg": 0.613147, "recall": 0.333333, "truncated_recall": 0.5, "precision": 0.5}),
        (MANY, 10, {"ndcg": 0.469000, "recall": 0.25, "truncated_recall": 0.3, "map": 0.3}),
        (ranks_of(3), 10, {"ndcg": 0.5, "mrr": 0.333333}),
        (ranks_of(4, 20, 1), 10, {"f1": 2 * 0.2 * 0.666667 / 0.866667}),
    ],
)
def test_metrics_of_known_ranks(ranks, k, expected):
    for name, value in expected.items():
        assert RANK_METRICS[name](ranks, k) == pytest.approx([value], abs=1e-6), name
