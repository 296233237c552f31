import numpy as np
import pytest

from nextsession.data.items import ItemFeature, ItemTable
from nextsession.errors import ConfigError
from nextsession.metrics import (
    ItemSpace,
    Ranks,
    check_names,
    gini,
    hitrate,
    mrr,
    ndcg,
    novelty_of,
    popularity_of,
    recall,
)
from nextsession.scores import DenseScores, RankCounts, Targets


def constant(n_items: int, ties: str) -> Ranks:
    targets = Targets(np.array([0, 1]), np.array([n_items // 2], np.int32))
    return Ranks.of(DenseScores(np.zeros((1, n_items), np.float32)).ranks(targets), targets.offsets, ties)


@pytest.mark.parametrize(("ties", "rank", "hit"), [("optimistic", 1, 1), ("median", 50.5, 0), ("conservative", 100, 0)])
def test_a_constant_model_shines_only_by_optimism(ties, rank, hit):
    ranks = constant(100, ties)
    assert ranks.values.tolist() == [rank]
    assert hitrate(ranks, 10).tolist() == [hit]


def test_a_miss_counts_nothing_and_stays_in_the_denominator():
    counts = RankCounts(np.array([0, 9]), np.array([1, 0]))
    ranks = Ranks.of(counts, np.array([0, 2]), "median")
    assert ranks.values.tolist() == [1, np.inf]
    assert recall(ranks, 100).tolist() == [0.5]
    assert mrr(ranks, 100).tolist() == [1]
    assert ndcg(ranks, 100)[0] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_ranks_of_each_target_keep_the_order_they_were_given():
    counts = RankCounts(np.array([5, 2, 0, 7]), np.array([1, 1, 0, 1]))
    ranks = Ranks.of(counts, np.array([0, 3, 4]), "median")
    assert ranks.values.tolist() == [3, 6, np.inf, 8]
    assert ranks.each().values.tolist() == [6, 3, np.inf, 8]


def test_popularity_is_a_share_of_the_most_popular():
    assert popularity_of(np.array([4, 1, 0])).tolist() == [1, 0.25, 0]
    assert popularity_of(np.array([0, 0])).tolist() == [0, 0]


def test_novelty_of_an_item_never_seen_is_finite_and_the_largest():
    novelty = novelty_of(np.array([5, 1, 0]))
    assert novelty.tolist() == pytest.approx([-np.log2(6 / 9), -np.log2(2 / 9), -np.log2(1 / 9)])


def test_gini_is_nought_for_even_lists_and_nears_one_for_a_single_item():
    assert gini(np.full(10, 3)) == 0
    assert gini(np.array([0] * 99 + [50])) == pytest.approx(0.99)


def test_diversity_is_one_minus_cosine_over_pairs():
    table = ItemTable(
        {"colour": ItemFeature.of([["red"], ["red"], ["blue"], []]), "kind": ItemFeature.of([["a"], ["b"], ["b"], []])}
    )
    lists = np.array([[0, 1, 2, 3], [1, 1, -1, -1], [2, -1, -1, -1]], np.int32)
    found = ItemSpace.of(table).diversity(lists, (2, 3, 9))
    assert found[0].tolist() == pytest.approx([0.5, (0.5 + 1 + 0.5) / 3, (0.5 + 1 + 0.5 + 3) / 6])
    assert found[1].tolist() == pytest.approx([0, 0, 0])
    assert found[2].tolist() == [0, 0, 0]


def test_an_unknown_metric_is_named_with_its_neighbour():
    with pytest.raises(ConfigError, match=r"no metric 'ndgc'. Did you mean 'ndcg'"):
        check_names(("recall", "ndgc"))
    with pytest.raises(ConfigError, match="k is a setting of its own"):
        check_names(("ndcg@10",))
