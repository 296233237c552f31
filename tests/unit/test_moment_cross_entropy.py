"""Cross-entropy at moments, block by block, against all the scores at once in float64."""

import pytest
import torch

from nextsession.nn.ops import moment_cross_entropy as module
from nextsession.nn.ops.moment_cross_entropy import Raised, moment_cross_entropy, moment_scores

M, V, D, E = 45, 30, 8, 3
RUNS = [(0, 7), (7, 8), (8, 40), (40, 45)]


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def form(request, monkeypatch):
    """Run on the kernels, and on what a GPU runs on; in blocks of 5 queries, fewer than most moments have."""
    monkeypatch.setattr(module, "rows_at_once", lambda *_: 5)
    if request.param == "plain":
        monkeypatch.setattr(module, "gradients_compiled", module.gradients_plainly)


def problem(runs=RUNS, n_pairs=120, n_targets=90, drift=True, seed=0):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng).requires_grad_()

    pairs = torch.randperm(M * V, generator=rng)[:n_pairs].sort().values
    targets = torch.randperm(M * V, generator=rng)[:n_targets].sort().values
    targets = targets[targets // V % 4 > 0]  # every fourth query has none
    return {
        "queries": draw(M, D),
        "table": draw(V, D),
        "bias": draw(V),
        "left": draw(M, E) if drift else None,
        "right": draw(len(runs), V, E) if drift else None,
        "runs": runs,
        "raised": Raised(pairs // V, pairs % V, draw(len(pairs))),
        "targets": targets % V,
        "of_query": targets // V,
    }


def slowly(given, smoothing):
    """Return the loss, target by target, from the whole matrix of scores in float64."""
    double = {k: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for k, x in given.items()}
    raised = double.pop("raised")
    targets, of_query = double.pop("targets"), double.pop("of_query")
    scores = moment_scores(**double, raised=Raised(raised.rows, raised.items, raised.by.double()))
    losses = []
    for target, query in zip(targets.tolist(), of_query.tolist(), strict=True):
        own = targets[of_query == query].tolist()
        rivals = [v for v in range(V) if v == target or v not in own]
        loss = scores[query, rivals].logsumexp(0) - scores[query, target]
        losses.append(loss + smoothing * (scores[query, target] - scores[query].mean()))
    return torch.stack(losses).mean() if losses else scores.sum() * 0


def expect_same(given, smoothing=0.0):
    inputs = [x for x in (*given.values(), given["raised"].by) if isinstance(x, torch.Tensor) and x.requires_grad]
    got, expected = moment_cross_entropy(**given, label_smoothing=smoothing), slowly(given, smoothing)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-6)
    found, wanted = torch.autograd.grad(3 * got, inputs), torch.autograd.grad(3 * expected, inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("drift", [True, False])
def test_blocks_are_the_whole(smoothing, drift):
    expect_same(problem(drift=drift), smoothing)


@pytest.mark.parametrize("runs", [[(0, M)], [(i, i + 1) for i in range(M)]], ids=["one", "each its own"])
def test_moments_of_all_queries_and_of_one(runs):
    expect_same(problem(runs))


def test_nothing_raised():
    expect_same(problem(n_pairs=0))


def test_every_score_raised():
    expect_same(problem(n_pairs=M * V))


def test_targets_that_were_had_before_are_raised_too():
    given = problem(n_pairs=0)
    some = torch.arange(0, len(given["targets"]), 2)
    given["raised"] = Raised(given["of_query"][some], given["targets"][some], torch.randn(len(some)).requires_grad_())
    expect_same(given)


def test_no_targets():
    given = problem(n_targets=0)
    loss = moment_cross_entropy(**given)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, [given["table"]])
    assert not gradient.any()


def test_no_queries():
    nothing = torch.zeros(0, dtype=torch.int64)
    given = problem()
    given |= {"queries": torch.zeros(0, D), "left": None, "right": None, "runs": [], "targets": nothing}
    given |= {"of_query": nothing, "raised": Raised(nothing, nothing, torch.zeros(0))}
    assert moment_cross_entropy(**given).item() == 0


def test_scores_are_what_the_formula_says():
    given = problem()
    expected = given["queries"] @ given["table"].T + given["bias"]
    by_pair = {(q, v): x for q, v, x in zip(*(t.tolist() for t in vars(given["raised"]).values()), strict=True)}
    for g, (first, stop) in enumerate(RUNS):
        for q in range(first, stop):
            expected[q] = expected[q] + torch.stack([given["left"][q] @ given["right"][g, v] for v in range(V)])
    expected = expected + torch.tensor([[by_pair.get((q, v), 0.0) for v in range(V)] for q in range(M)])
    given = {k: v for k, v in given.items() if k not in ("targets", "of_query")}
    torch.testing.assert_close(moment_scores(**given), expected, rtol=1e-5, atol=1e-5)
