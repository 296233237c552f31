"""Samplers: what they draw, how often they say it is to be expected, and what collides."""

import pytest
import torch
from pydantic import TypeAdapter

from nextsession.nn.collisions import collides, collides_plainly
from nextsession.nn.negatives import (
    Hard,
    InBatch,
    ItemStatistics,
    Mixed,
    NegativeSampler,
    Popularity,
    Shown,
    Uniform,
)
from nextsession.nn.networks import Examples

COUNTS = torch.tensor([0.0, 1.0, 4.0, 0.0, 9.0, 16.0, 100.0, 0.0])


class FixedHead:
    """Items with given vectors."""

    sparse = False

    def __init__(self, vectors, bias=None):
        self.vectors, self.bias = vectors, bias

    def table(self):
        return self.vectors, self.bias

    def rows(self, codes):
        return self.vectors[codes], None if self.bias is None else self.bias[codes]


def batch(n=6, **more):
    return Examples(torch.zeros(n, 3), torch.randint(8, (n,)), **more)


def drawn(sampler, examples=None, counts=COUNTS, head=None):
    return sampler(batch() if examples is None else examples, head, ItemStatistics(counts))


def chi_square(codes, probabilities):
    """Return the chi-square statistic over its degrees of freedom: near 1 where the probabilities are right."""
    found = torch.bincount(codes.flatten(), minlength=len(probabilities)).double()
    assert (found[probabilities == 0] == 0).all()
    expected = (probabilities.double() * found.sum())[probabilities > 0]
    return ((found[probabilities > 0] - expected) ** 2 / expected).sum().item() / (len(expected) - 1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


@pytest.mark.parametrize("all_items", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_popular_items_are_drawn_as_often_as_said(alpha, all_items):
    sampler = Popularity(n=200_000, alpha=alpha, all_items=all_items)
    found = drawn(sampler)
    weights = COUNTS.clamp(min=1) ** alpha
    if not all_items:
        weights = torch.where(COUNTS > 0, weights, 0)
    shares = weights / weights.sum()
    assert chi_square(found.items, shares) < 3
    torch.testing.assert_close(found.log_q.exp(), 200_000 * shares[found.items])
    torch.testing.assert_close(found.log_support, alpha * COUNTS.clamp(min=1).log()[found.items])
    assert sampler.log_q(torch.tensor([0]), batch(), ItemStatistics(COUNTS)).isneginf() != all_items


@pytest.mark.parametrize("all_items", [False, True])
def test_uniform_items_are_drawn_alike(all_items):
    found = drawn(Uniform(n=20_000, all_items=all_items))
    known = torch.ones(8) if all_items else (COUNTS > 0).float()
    assert found.items.shape == (6, 20_000)
    assert not found.shared
    assert chi_square(found.items, known / known.sum()) < 3
    torch.testing.assert_close(found.log_q.exp(), torch.full((6, 20_000), 20_000 / known.sum().item()))


def test_who_gets_a_draw_of_their_own():
    users = torch.tensor([2, 2, 2, 5, 5, 9])
    of_rows = drawn(Uniform(n=50, per="row"), batch(users=users))
    assert (of_rows.items.shape, of_rows.of_row.tolist()) == ((10, 50), users.tolist())
    per_row = of_rows.for_each().items
    assert per_row.shape == of_rows.for_each().log_q.shape == (6, 50)
    assert (per_row[0] == per_row[2]).all()
    assert (per_row[3] == per_row[4]).all()
    assert (per_row[2] != per_row[3]).any()
    assert drawn(Uniform(n=50, per="batch")).items.shape == (50,)
    per_query = drawn(Uniform(n=50), batch(users=users)).items
    assert (per_query[0] != per_query[1]).any()


def test_the_batch_is_its_own_sample():
    examples = batch(users=torch.tensor([0, 0, 1, 1, 2, 2]))
    found = drawn(InBatch(), examples)
    assert (found.items == examples.positives).all()
    assert found.own.tolist() == [0, 1, 2, 3, 4, 5]
    assert (found.mask, drawn(InBatch(mask_same_user=False), examples).mask) == ("user", "positives")
    assert drawn(InBatch(mask_same_user=False, mask=False), examples).mask == "none"
    expected = 6 * COUNTS.clamp(min=1) / COUNTS.sum()
    torch.testing.assert_close(found.log_q.exp(), expected[examples.positives])


def test_a_mixture_expects_what_its_parts_do_together():
    examples = batch(200, users=torch.zeros(200, dtype=torch.int64))
    mixed = Mixed(parts=(InBatch(), Popularity(n=1000, alpha=0.5), Uniform(n=500, per="batch")), mask=False)
    found = drawn(mixed, examples)
    assert found.items.shape == (1700,)
    assert found.own.tolist() == [*range(200), *[-1] * 1500]
    roots = torch.where(COUNTS > 0, COUNTS.sqrt(), 0)
    expected = 200 * COUNTS.clamp(min=1) / COUNTS.sum() + 1000 * roots / roots.sum() + 100.0 * (COUNTS > 0)
    torch.testing.assert_close(found.log_q.exp(), expected[found.items])
    logs = COUNTS.clamp(min=1).log()[found.items]
    torch.testing.assert_close(found.log_support, torch.cat([logs[:200], logs[200:1200] / 2, torch.zeros(500)]))


def test_a_mixture_of_shared_and_own_draws():
    mixed = Mixed(parts=(Popularity(n=7), Uniform(n=3)), mask_same_user=True)
    found = drawn(mixed)
    assert found.items.shape == found.log_q.shape == found.log_support.shape == (6, 10)
    assert (found.items[0, :7] == found.items[5, :7]).all()
    assert found.mask == "user"


def test_hard_items_are_the_highest_of_the_pool():
    vectors = torch.randn(8, 3)
    examples = Examples(torch.randn(6, 3), torch.tensor([1, 2, 4, 5, 6, 1]))
    sampler = Hard(pool=Uniform(n=500, per="batch"), top=2)
    for bias in (None, torch.randn(8)):
        found = drawn(sampler, examples, head=FixedHead(vectors, bias))
        scores = examples.queries @ vectors.T + (0 if bias is None else bias)
        scores[:, COUNTS == 0] = float("-inf")
        scores[torch.arange(6), examples.positives] = float("-inf")
        assert (found.items == scores.topk(2).indices).all()
        assert not found.items.requires_grad


def test_hard_items_run_out():
    examples = Examples(torch.randn(2, 3), torch.tensor([1, 2]))
    counts = torch.tensor([0.0, 3.0, 3.0])
    found = drawn(Hard(pool=Uniform(n=50, per="batch"), top=9), examples, counts, FixedHead(torch.randn(3, 3)))
    assert found.items.tolist() == [[2, -1], [1, -1]]
    with pytest.raises(ValueError, match="shared"):
        drawn(Hard(pool=Uniform(n=50)), examples, counts, FixedHead(torch.randn(3, 3)))


def test_shown_items_stay_with_their_query():
    examples = batch(4, shown=torch.tensor([3, 5, 1, 7]), shown_of=torch.tensor([2, 0, 2, 2]))
    found = drawn(Shown(), examples)
    assert found.items.tolist() == [[5, -1, -1], [-1, -1, -1], [3, 1, 7], [-1, -1, -1]]
    assert (found.log_q == 0).all()
    none = torch.zeros(0, dtype=torch.int64)
    assert drawn(Shown(), batch(4, shown=none, shown_of=none)).items.tolist() == [[-1]] * 4
    with pytest.raises(ValueError, match="shown"):
        drawn(Shown())


def test_what_collides():
    of_query = torch.tensor([0, 0, 1, 2])
    examples = Examples(
        torch.zeros(4, 3), torch.tensor([3, 5, 1, 2]), of_query=of_query, users=torch.tensor([0, 0, 4, 4])
    )
    codes = torch.arange(-1, 8).expand(4, -1)

    def colliding(mask):
        barred = collides(codes, examples, mask, 8)
        assert (barred == collides_plainly(codes, examples, mask, 8)).all()
        assert (collides(codes[1:3], examples, mask, 8, slice(1, 3)) == barred[1:3]).all()
        return [(codes[0][row]).tolist() for row in barred]

    assert colliding("none") == [[-1]] * 4
    assert colliding("positives") == [[-1, 3, 5], [-1, 1], [-1, 2], [-1]]
    assert colliding("user") == [[-1, 1, 3, 5], [-1, 1, 3, 5], [-1, 2], [-1, 2]]


def test_samplers_are_read_by_their_kind():
    read = TypeAdapter(NegativeSampler).validate_python
    mixed = read({"kind": "mixed", "parts": [{"kind": "in_batch"}, {"kind": "uniform", "n": 8, "per": "batch"}]})
    assert mixed == Mixed(parts=(InBatch(), Uniform(n=8, per="batch")))
    for sampler in (mixed, Popularity(), Uniform(), InBatch(), Shown(), Hard()):
        assert read(sampler.model_dump()) == sampler


def test_draws_are_those_of_the_seed():
    for sampler in (Uniform(), Popularity(n=50)):
        torch.manual_seed(3)
        once = drawn(sampler, batch()).items
        torch.manual_seed(3)
        assert (drawn(sampler, batch()).items == once).all()
