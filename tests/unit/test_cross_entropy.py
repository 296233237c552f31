"""Cross-entropy in blocks, compiled and in PyTorch's functions, against all the scores at once."""

import itertools

import numpy as np
import pytest
import torch

from nextsession.nn.ops import cross_entropy, sampled_cross_entropy
from nextsession.nn.ops.cross_entropy import linear_cross_entropy, linear_cross_entropy_plainly
from nextsession.nn.ops.cross_entropy_kernels import highest_of
from nextsession.nn.ops.gathered_scores import gathered_scores, gathered_scores_plainly
from nextsession.nn.ops.matmul import fast_matmul, is_exact
from nextsession.nn.ops.sampled_cross_entropy import Barred, sampled_cross_entropy_plainly

M, V, D = 45, 70, 12


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    """Run on the kernels, and on what a GPU runs on; in blocks of 16 queries either way."""
    monkeypatch.setattr(cross_entropy, "rows_at_once", lambda *_: 16)
    if request.param == "plain":
        monkeypatch.setattr(cross_entropy, "gradients_compiled", cross_entropy.gradients_plainly)
        monkeypatch.setattr(sampled_cross_entropy, "compiled_gradients", None)  # it must not be called
    return request.param


def problem(several=False, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    queries = (scale * torch.randn(M, D, generator=rng)).requires_grad_()
    table = torch.randn(V, D, generator=rng).requires_grad_()
    bias = torch.randn(V, generator=rng).requires_grad_()
    weights = torch.rand(M, generator=rng)
    of_query = torch.randint(M, (3 * M,), generator=rng).sort().values if several else None
    targets = torch.randint(V, (3 * M if several else M,), generator=rng)
    return queries, table, bias, targets, of_query, weights


def same(got, expected, inputs, rtol=2e-5, atol=2e-6):
    """Compare a loss and its gradients with a reference of the same in float64."""
    torch.testing.assert_close(got.double(), expected.double(), rtol=rtol, atol=atol)
    found = torch.autograd.grad(3 * got, inputs, retain_graph=True)
    wanted = torch.autograd.grad(3 * expected, inputs, retain_graph=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= rtol * other.norm() + atol


@pytest.mark.parametrize(
    ("several", "others", "smoothing"), list(itertools.product([False, True], [False, True], [0, 0.1]))
)
def test_blocks_are_the_whole(form, several, others, smoothing):
    queries, table, bias, targets, of_query, weights = problem(several)
    settings = {"of_query": of_query, "label_smoothing": smoothing, "other_targets": others}
    for b, w in ((bias, weights), (None, None)):
        inputs = [queries, table] if b is None else [queries, table, b]
        got = linear_cross_entropy(queries, table, b, targets, weights=w, **settings)
        doubles = [None if x is None else x.double() for x in (queries, table, b)]
        expected = linear_cross_entropy_plainly(
            *doubles, targets, weights=None if w is None else w.double(), **settings
        )
        same(got, expected, inputs)


def test_the_plain_form_is_that_of_torch():
    queries, table, bias, targets, _, _ = problem()
    for smoothing in (0.0, 0.2):
        got = linear_cross_entropy_plainly(queries, table, bias, targets, label_smoothing=smoothing)
        scores = queries @ table.T + bias
        expected = torch.nn.functional.cross_entropy(scores, targets, label_smoothing=smoothing)
        same(got, expected, [queries, table, bias])


def test_one_target_each_is_its_own_query(form):
    queries, table, bias, targets, _, weights = problem()
    one = linear_cross_entropy(queries, table, bias, targets, weights=weights)
    other = linear_cross_entropy(queries, table, bias, targets, weights=weights, of_query=torch.arange(M))
    assert one.item() == other.item()


def test_scores_beyond_what_exp_can_hold(form):
    queries, table, bias, targets, of_query, _ = problem(True, scale=300.0)
    got = linear_cross_entropy(queries, table, bias, targets, of_query=of_query)
    doubles = [x.double() for x in (queries, table, bias)]
    expected = linear_cross_entropy_plainly(*doubles, targets, of_query=of_query)
    same(got, expected, [queries, table, bias], rtol=1e-3)
    assert got > 100


def test_a_query_whose_every_item_is_a_target(form):
    queries, table, bias, _, _, _ = problem()
    everything = torch.arange(V)
    got = linear_cross_entropy(queries, table, bias, everything, of_query=torch.zeros(V, dtype=torch.int64))
    assert got.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(got, [queries, table, bias]))


def test_no_targets_at_all(form):
    queries, table, bias, _, _, _ = problem()
    none = torch.zeros(0, dtype=torch.int64)
    for q in (queries, queries[:0]):
        got = linear_cross_entropy(q, table, bias, none, of_query=none)
        got.backward()
        assert got.item() == 0


def test_a_diverged_model_stays_visible(form):
    queries, table, bias, targets, _, _ = problem()
    with torch.no_grad():
        queries[3, 2] = float("nan")
    assert linear_cross_entropy(queries, table, bias, targets).isnan()


def test_gradients_are_not_formed_where_none_is_wanted(form):
    queries, table, bias, targets, _, _ = problem()
    with torch.no_grad():
        quick = linear_cross_entropy(queries, table, bias, targets)
    assert not quick.requires_grad
    assert quick == linear_cross_entropy(queries, table, bias, targets)


def test_bfloat16_is_near(form):
    queries, table, bias, targets, of_query, weights = problem(True)
    settings = {"of_query": of_query, "weights": weights}
    got = linear_cross_entropy(queries, table, bias, targets, precision="bfloat16", **settings)
    expected = linear_cross_entropy_plainly(queries, table, bias, targets, **settings)
    same(got, expected, [queries, table, bias], rtol=1e-2, atol=1e-3)
    assert got.dtype == torch.float32
    halves = linear_cross_entropy(queries.bfloat16(), table.bfloat16(), bias, targets, **settings)
    torch.testing.assert_close(halves, expected, rtol=1e-2, atol=1e-2)


def columns(seed=0):
    """Queries in groups, negatives that some groups do not compete with, positives of 0 to many a query."""
    queries, table, bias, _, of_query, weights = problem(True, seed)
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(9, V, generator=rng) < 0.3
    mask[4] = True  # a group without anything to compete with
    mask[5] = False
    groups = torch.randint(9, (M,), generator=rng).sort().values
    rows, barred = torch.nonzero(mask, as_tuple=True)
    starts = torch.nn.functional.pad(torch.bincount(rows, minlength=9).cumsum(0), (1, 0))
    found = torch.randn(3 * M, generator=rng).requires_grad_()
    return queries, table, bias, Barred(groups, starts, barred), mask[groups], found, of_query, weights


def test_shared_negatives(form):
    queries, table, bias, barred, mask, found, of_query, weights = columns()
    torch.testing.assert_close(barred.mask(3, 30, V), mask[3:30])
    rule = barred if form == "compiled" else (lambda first, stop: mask[first:stop])
    got = sampled_cross_entropy.sampled_cross_entropy(queries, table, bias, rule, found, of_query, weights)
    doubles = [x.double() for x in (queries, table, bias)]
    expected = sampled_cross_entropy_plainly(*doubles, mask, found.double(), of_query, weights.double())
    same(got, expected, [queries, table, bias, found])
    near = sampled_cross_entropy.sampled_cross_entropy(
        queries, table, bias, rule, found, of_query, weights, precision="bfloat16"
    )
    same(near, expected, [queries, table, bias, found], rtol=1e-2, atol=1e-3)


def test_shared_negatives_nobody_competes_with(form):
    queries, table, bias, _, _, found, of_query, weights = columns()
    everything = Barred(torch.zeros(M, dtype=torch.int64), torch.tensor([0, V]), torch.arange(V))
    rule = everything if form == "compiled" else (lambda first, stop: everything.mask(first, stop, V))
    got = sampled_cross_entropy.sampled_cross_entropy(queries, table, bias, rule, found, of_query, weights)
    assert got.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(got, [queries, table, bias, found]))


def test_how_many_scores_are_held():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    rows = cross_entropy.rows_at_once
    assert rows(10_000, 3_417, cpu) == 306
    assert rows(10_000, 256, cpu) == 4096
    assert rows(10_000, 37_500, cpu) == 256
    for items in (1, 100_000, 1_000_000):
        assert rows(10**8, items, cpu) * items <= 64 << 18
        assert rows(10**8, items, gpu) * items <= 512 << 18
    assert rows(10_000, 10**8, cpu) == 16
    assert (rows(5, 10**8, cpu), rows(5, 10, cpu), rows(0, 0, cpu)) == (5, 5, 1)


@pytest.mark.parametrize("dim", [12, 40])
def test_gathered_scores(dim):
    queries, table = torch.randn(M, dim, requires_grad=True), torch.randn(V, dim, requires_grad=True)
    items = torch.randint(-1, V, (M, 20))
    got = gathered_scores(queries, table, items)
    expected = gathered_scores_plainly(queries.double(), table.double(), items)
    weights = torch.randn(M, 20)
    same((got * weights).sum(), (expected * weights).sum(), [queries, table])
    assert (got[items < 0] == 0).all()
    assert gathered_scores(queries[:0], table, items[:0]).shape == (0, 20)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 101])
def test_the_highest_of_a_row(n):
    rng = np.random.default_rng(n)
    for _ in range(20):
        row = rng.normal(size=n).astype(np.float32)
        assert highest_of(row, np.empty(n // 2 + 1, np.float32)) == row.max()


def test_two_threads_find_what_one_does():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    queries, table = torch.randn(512, 32, requires_grad=True), torch.randn(5000, 32, requires_grad=True)
    targets, items = torch.randint(5000, (512,)), torch.randint(5000, (512, 100))

    def all_gradients():
        loss = linear_cross_entropy(queries, table, None, targets) + gathered_scores(queries, table, items).sum()
        return torch.autograd.grad(loss, [queries, table])

    try:
        torch.set_num_threads(1)
        one = all_gradients()
        torch.set_num_threads(2)
        two = all_gradients()
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_fast_products_are_exact_and_the_setting_is_restored():
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(64, 128), torch.randn(128, 64)
    with fast_matmul():
        inside = torch.get_float32_matmul_precision()
        product = a @ b
    assert inside == ("medium" if is_exact() and not torch.cuda.is_available() else before)
    assert torch.get_float32_matmul_precision() == before
    exact = a.double() @ b.double()
    assert (product - exact).norm() / exact.norm() < 1e-6


def test_the_setting_is_restored_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ValueError, match="inside"), fast_matmul():
        raise ValueError("inside")
    assert torch.get_float32_matmul_precision() == before
