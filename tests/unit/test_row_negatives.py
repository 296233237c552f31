"""Negatives that the queries of a row share: products of matrices, against scores gathered for each query."""

import pytest
import torch

from nextsession.nn import row_columns
from nextsession.nn.losses import BCE, GBCE, SampledSoftmax
from nextsession.nn.negatives import ItemStatistics, Mixed, Negatives, Uniform
from nextsession.nn.networks import Examples
from nextsession.nn.ops import cross_entropy
from nextsession.nn.ops.distinct import distinct_items_plainly

V, D = 60, 8
COUNTS = torch.tensor([0.0, 3.0, 5.0] * 20)


class FixedHead:
    """Items with given vectors and biases."""

    def __init__(self, vectors, bias, sparse):
        self.vectors, self.bias, self.sparse = vectors, bias, sparse

    def table(self):
        assert not self.sparse
        return self.vectors, self.bias

    def rows(self, codes):
        return self.vectors[codes], None if self.bias is None else self.bias[codes]


def problem(sparse=False, several=False, biased=True, scale=1.0):
    """Rows of 5, 0, 1 and 34 queries, every third without a positive or with two if there may be several."""
    rng = torch.Generator().manual_seed(3)
    users = torch.repeat_interleave(torch.tensor([5, 0, 1, 34]))
    queries = (scale * torch.randn(len(users), D, generator=rng)).requires_grad_()
    vectors = torch.randn(V, D, generator=rng).requires_grad_()
    bias = torch.randn(V, generator=rng).requires_grad_() if biased else None
    of_query = None
    if several:
        of_query = torch.sort(torch.randint(len(users), (50,), generator=rng)).values
    positives = torch.randint(V, (50 if several else len(users),), generator=rng)
    weights = torch.rand(len(users), generator=rng)
    examples = Examples(queries, positives, of_query, users, weights=weights)
    inputs = [queries, vectors] if bias is None else [queries, vectors, bias]
    return examples, FixedHead(vectors, bias, sparse), ItemStatistics(COUNTS), inputs


def both_ways(monkeypatch, loss, form, **how):
    """Return value and gradients by rows, and with the negatives written out for each query."""
    found = []
    for written_out in (False, True):
        examples, head, items, inputs = problem(**how)
        torch.manual_seed(1)
        with monkeypatch.context() as patch:
            if written_out:
                draw = Uniform.__call__
                patch.setattr(Uniform, "__call__", lambda *args, draw=draw: draw(*args).for_each())
            elif form == "as drawn":
                patch.setattr(row_columns, "_each_once", row_columns._as_drawn)
            elif form == "small blocks":
                patch.setattr(cross_entropy, "_CACHED", 100)
                patch.setattr(cross_entropy, "_ROWS", 7)
            value = loss(examples, head, items)
        found.append([value, *torch.autograd.grad(value, inputs)])
    return found


@pytest.mark.parametrize("form", ["each once", "as drawn", "small blocks"])
@pytest.mark.parametrize("how", [{}, {"sparse": True, "biased": False}, {"several": True}, {"scale": 30.0}])
@pytest.mark.parametrize(
    "loss",
    [
        SampledSoftmax(negatives=Uniform(n=50, per="row", all_items=True)),
        SampledSoftmax(negatives=Uniform(n=50, per="row"), logq="improved"),
        SampledSoftmax(negatives=Uniform(n=30, per="row", mask=False), logq="exact"),
        SampledSoftmax(negatives=Uniform(n=39, per="row", distinct=True, unseen=True)),
        BCE(negatives=Uniform(n=50, per="row")),
        BCE(negatives=Uniform(n=50, per="row", all_items=True), average=True),
        GBCE(negatives=Uniform(n=50, per="row", mask=False)),
    ],
    ids=str,
)
def test_rows_are_their_queries(monkeypatch, loss, how, form):
    by_rows, by_queries = both_ways(monkeypatch, loss, form, **how)
    for a, b in zip(by_rows, by_queries, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("mask", ["none", "positives", "user"])
def test_what_is_barred_is_the_same_in_both_forms(mask):
    examples, _, _, _ = problem(several=True)
    drawn = torch.randint(-1, V, (4, 50), generator=torch.Generator().manual_seed(0))
    negatives = Negatives(drawn, mask, None, lambda: drawn, lambda: drawn, examples.users)
    once, plain = (
        form(negatives, examples.users, None, examples, V) for form in (row_columns._each_once, row_columns._as_drawn)
    )
    for row, (first, stop) in enumerate(((0, 5), (5, 5), (5, 6), (6, 40))):
        counts = torch.zeros(2, stop - first, V)
        for form, (codes, starts, times, _, barred) in enumerate((once, plain)):
            some = slice(starts[row], starts[row + 1])
            rule = barred(row, first, stop) if form else barred.mask(first, stop, starts[row + 1] - starts[row])
            counts[form].index_add_(1, codes[some], torch.where(rule, 0.0, times[some]))
        torch.testing.assert_close(counts[0], counts[1])


def test_a_mixture_writes_rows_out():
    examples, head, items, _ = problem()
    mixed = Mixed(parts=(Uniform(n=4, per="row"), Uniform(n=3, per="batch")))(examples, head, items)
    assert mixed.items.shape == mixed.log_q.shape == mixed.log_support.shape == (40, 7)
    assert (mixed.items[6] == mixed.items[39]).all()


@pytest.mark.parametrize("per", ["query", "row", "batch"])
def test_distinct_items(per):
    examples, head, items, _ = problem()
    found = Uniform(n=30, per=per, distinct=True)(examples, head, items)
    rows = found.items.view(-1, 30)
    assert len(rows) == {"query": 40, "row": 4, "batch": 1}[per]
    assert all(len(set(row.tolist())) == 30 for row in rows)
    assert (COUNTS[rows] > 0).all()
    torch.testing.assert_close(found.log_q.exp(), torch.full(found.items.shape, 0.75))
    beyond = Uniform(n=70, per=per, distinct=True)(examples, head, items)
    assert ((beyond.items >= 0).sum(-1) == 40).all()
    assert (beyond.log_q[beyond.items >= 0] == 0).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_items_of_the_row_are_not_drawn(compiled):
    examples, head, items, _ = problem()
    if compiled:
        drawn = Uniform(n=45, per="row", distinct=True, unseen=True, all_items=True)(examples, head, items).items
    else:
        drawn = distinct_items_plainly(torch.arange(V), 45, V, 4, examples.positives, examples.users)
    for row in range(4):
        seen = set(examples.positives[examples.users == row].tolist())
        found = [x for x in drawn[row].tolist() if x >= 0]
        assert not seen & set(found)
        assert len(found) == len(set(found)) == min(45, V - len(seen))


@pytest.mark.parametrize("compiled", [True, False])
def test_distinct_items_are_drawn_alike(compiled):
    pool = torch.tensor([1, 2, 4, 7, 8])
    if compiled:
        counts = torch.zeros(9).index_fill_(0, pool, 1.0)
        examples = Examples(torch.zeros(6000, 1), torch.zeros(6000, dtype=torch.int64))
        drawn = Uniform(n=2, distinct=True)(examples, None, ItemStatistics(counts)).items
    else:
        nothing = torch.zeros(0, dtype=torch.int64)
        drawn = distinct_items_plainly(pool, 2, 9, 6000, nothing, nothing)
    pairs = torch.bincount(drawn[:, 0] * 9 + drawn[:, 1], minlength=81).view(9, 9)[pool][:, pool].double()
    off = ~torch.eye(5, dtype=torch.bool)
    assert pairs.sum() == pairs[off].sum() == 6000
    assert ((pairs[off] - 300) ** 2 / 300).sum() < 2.5 * 19


def test_unseen_needs_rows():
    with pytest.raises(ValueError, match="unseen = true needs"):
        Uniform(per="row", unseen=True)
