"""Losses against values worked out by independent code, to all the digits that are known."""

import pytest
import torch
from torch import Tensor

from nextsession.nn.losses import GBCE, FullSoftmax, Part, SampledSoftmax, Sum, gbce_weight
from nextsession.nn.negatives import InBatch, ItemStatistics, Mixed, Popularity, Shown, Uniform
from nextsession.nn.networks import Examples
from nextsession.nn.ranking_losses import BPR, TOP1, BPRMax, TOP1Max

SCORES = torch.tensor([[2.0, 0.5, -1.0], [-0.3, 1.0, 0.2]])
"""The columns: the positive of the first row, that of the second, and a drawn item."""


class FixedHead:
    """Items with given vectors."""

    def __init__(self, vectors: Tensor, *, sparse: bool = False) -> None:
        self.vectors, self.sparse = vectors, sparse

    def table(self):
        return self.vectors, None

    def rows(self, codes):
        return self.vectors[codes], None


def gru4rec_batch(counts=(10.0, 40.0, 5.0)):
    """Two queries with the scores above; the sampler can draw only item 2 beside the batch."""
    head = FixedHead(SCORES.T.contiguous())
    examples = Examples(torch.eye(2), torch.tensor([0, 1]))
    return examples, head, ItemStatistics(torch.tensor(counts))


def per_row(loss, counts=(10.0, 40.0, 5.0)):
    examples, head, items = gru4rec_batch(counts)
    return [
        loss(Examples(examples.queries, examples.positives, weights=torch.eye(2)[row]), head, items).item()
        for row in range(2)
    ]


@pytest.fixture
def only_item_two(monkeypatch):
    """Make `Popularity` draw item 2."""
    monkeypatch.setattr(Popularity, "draw", lambda self, *_: torch.tensor([2]))
    return Mixed(parts=(InBatch(mask_same_user=False), Popularity(n=1, alpha=0.5)), mask=False)


def test_the_cross_entropy_of_a_batch(only_item_two):
    assert per_row(FullSoftmax()) == pytest.approx([0.241311, 0.543406], abs=1e-6)
    assert per_row(SampledSoftmax(negatives=only_item_two)) == pytest.approx([0.241311, 0.543406], abs=1e-6)
    assert FullSoftmax()(*gru4rec_batch()).item() == pytest.approx(0.392358, abs=1e-6)
    assert SampledSoftmax(negatives=only_item_two)(*gru4rec_batch()).item() == pytest.approx(0.392358, abs=1e-6)


def test_scores_corrected_as_gru4rec_does(only_item_two):
    loss = SampledSoftmax(negatives=only_item_two, logq="gru4rec")
    assert per_row(loss) == pytest.approx([0.245638, 2.315301], abs=1e-6)


def test_the_ranking_losses(only_item_two):
    assert per_row(BPRMax(negatives=only_item_two, bpreg=1)) == pytest.approx([0.558555, 0.378854], abs=1e-6)
    assert BPRMax(negatives=only_item_two)(*gru4rec_batch()).item() == pytest.approx(0.468704, abs=1e-6)
    assert per_row(BPRMax(negatives=only_item_two, elu=0.5)) == pytest.approx([0.371245, 0.362279], abs=1e-6)
    assert per_row(TOP1(negatives=only_item_two)) == pytest.approx([0.674362, 0.685558], abs=1e-6)
    assert per_row(TOP1Max(negatives=only_item_two)) == pytest.approx([0.750783, 0.788547], abs=1e-6)
    one = torch.nn.functional.softplus(torch.tensor([[-1.5, -3.0], [-1.3, -0.8]])).mean(1)
    assert per_row(BPR(negatives=only_item_two)) == pytest.approx(one.tolist(), abs=1e-6)


def test_the_positive_of_gbce():
    weight = gbce_weight(256, 3416, 0.75)
    assert weight == pytest.approx(0.3062225, abs=1e-7)
    assert pytest.approx(0.0749634, abs=1e-7) == 256 / 3415
    assert weight * torch.nn.functional.logsigmoid(torch.tensor(1.2)).item() == pytest.approx(
        torch.tensor(0.9225414).log().item(), abs=1e-6
    )
    assert torch.nn.functional.logsigmoid(torch.tensor(2.4773886)).exp().item() == pytest.approx(0.9225414, abs=1e-6)
    head = FixedHead(torch.zeros(3416, 1).index_fill(0, torch.tensor([0]), 1.2))
    items = ItemStatistics(torch.ones(3416))
    loss = GBCE(negatives=Uniform(n=256, mask=True), t=0.75)(Examples(torch.ones(1, 1), torch.tensor([0])), head, items)
    some = 256 * torch.tensor(2.0).log().item() / 257 - torch.tensor(0.9225414).log().item() / 257
    assert loss.item() == pytest.approx(some, abs=3e-3)  # the positive may be drawn, and does not count then


def session(weights=None):
    """One query: positives that score 2 and 0.5, an ignored item that scores 1, others that score 0 and -1."""
    head = FixedHead(torch.tensor([[2.0], [0.5], [1.0], [0.0], [-1.0]]))
    return (
        Examples(
            torch.ones(1, 1),
            torch.tensor([0, 1]),
            of_query=torch.tensor([0, 0]),
            shown=torch.tensor([2]),
            shown_of=torch.tensor([0]),
            weights=weights,
        ),
        head,
        ItemStatistics(torch.ones(5)),
    )


@pytest.fixture
def zero_and_minus_one(monkeypatch):
    """Make `Uniform` draw the items that score 0 and -1."""
    monkeypatch.setattr(Uniform, "draw", lambda self, *_: torch.tensor([3, 4]))
    return Uniform(n=2, per="batch")


def test_positives_of_a_session_do_not_compete(zero_and_minus_one):
    retrieval = SampledSoftmax(negatives=zero_and_minus_one)
    rank = SampledSoftmax(negatives=Shown())
    assert retrieval(*session()).item() == pytest.approx(0.386988, abs=1e-6)
    assert rank(*session()).item() == pytest.approx(0.643669, abs=1e-6)
    total = Sum(parts=(Part(loss=retrieval), Part(loss=rank, weight=0.2)))
    assert total(*session()).item() == pytest.approx(0.515722, abs=1e-6)
    none = Sum(parts=(Part(loss=retrieval), Part(loss=rank, weight=0)))
    assert none(*session()).item() == retrieval(*session()).item()


def test_the_full_softmax_of_a_session():
    head = FixedHead(torch.tensor([[2.0], [0.5], [0.0], [-1.0]]))
    examples = Examples(torch.ones(1, 1), torch.tensor([0, 1]), of_query=torch.tensor([0, 0]))
    items = ItemStatistics(torch.ones(4))
    assert FullSoftmax()(examples, head, items).item() == pytest.approx(0.386988, abs=1e-6)
    joint = FullSoftmax(other_positives=True)(examples, head, items).item()
    assert joint == pytest.approx((0.342350 + 1.842350) / 2, abs=1e-6)
