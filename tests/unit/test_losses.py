"""Every loss, its value and its gradients, against loops over positives and negatives in float64."""

import math

import pytest
import torch
from pydantic import TypeAdapter

from nextsession.nn.losses import BCE, GBCE, FullSoftmax, Loss, Part, SampledSoftmax, Sum, gbce_weight
from nextsession.nn.negatives import Hard, InBatch, ItemStatistics, Mixed, Popularity, Shown, Uniform
from nextsession.nn.networks import Examples
from nextsession.nn.ranking_losses import BPR, TOP1, BPRMax, TOP1Max

V, D, M = 14, 5, 7
COUNTS = torch.tensor([3.0, 0.0, 8, 1, 2, 5, 40, 7, 0, 2, 2, 9, 1, 6])


class FixedHead:
    """Items with given vectors and biases."""

    def __init__(self, vectors, bias=None, sparse=False):
        self.vectors, self.bias, self.sparse = vectors, bias, sparse

    def table(self):
        assert not self.sparse
        return self.vectors, self.bias

    def rows(self, codes):
        return self.vectors[codes], None if self.bias is None else self.bias[codes]


def problem(several=False, seed=0, biased=True, sparse=False):
    """Return examples, head, statistics, and what is learned."""
    rng = torch.Generator().manual_seed(seed)
    queries = torch.randn(M, D, generator=rng).requires_grad_()
    vectors = torch.randn(V, D, generator=rng).requires_grad_()
    bias = torch.randn(V, generator=rng).requires_grad_() if biased else None
    of_query = torch.tensor([0, 0, 0, 2, 3, 3, 4, 5, 5, 6]) if several else None
    examples = Examples(
        queries,
        torch.randint(V, (10 if several else M,), generator=rng),
        of_query=of_query,
        users=torch.tensor([0, 0, 1, 1, 1, 3, 3]),
        weights=torch.rand(M, generator=rng),
        shown=torch.tensor([5, 6, 7, 2, 9]),
        shown_of=torch.tensor([0, 0, 3, 3, 3]),
    )
    inputs = [queries, vectors] if bias is None else [queries, vectors, bias]
    return examples, FixedHead(vectors, bias, sparse), ItemStatistics(COUNTS), inputs


def competitors(negatives, examples, query):
    """Return the places among the negatives of a query that it competes with, by looking at each."""
    negatives = negatives.for_each()
    of_query = list(range(M)) if examples.of_query is None else examples.of_query.tolist()
    users = examples.users.tolist()
    codes = negatives.items.tolist() if negatives.shared else negatives.items[query].tolist()
    found = []
    for place, code in enumerate(codes):
        if code < 0:
            continue
        if negatives.mask == "none":
            if negatives.own is not None and negatives.own[place] == query:
                continue
        elif negatives.mask == "positives":
            if any(p == code and q == query for p, q in zip(examples.positives.tolist(), of_query, strict=True)):
                continue
        elif any(
            p == code and users[q] == users[query] for p, q in zip(examples.positives.tolist(), of_query, strict=True)
        ):
            continue
        found.append((place, code))
    return found


def by_loops(loss, negatives, examples, head, items):
    """Return the mean of the loss of each positive, whose formula is written out for one positive."""
    queries, vectors = examples.queries.double(), head.vectors.double()
    biases = torch.zeros(V).double() if head.bias is None else head.bias.double()
    of_query = list(range(M)) if examples.of_query is None else examples.of_query.tolist()
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for positive, query in zip(examples.positives.tolist(), of_query, strict=True):
        up = queries[query] @ vectors[positive] + biases[positive]
        some = competitors(negatives, examples, query)
        down = [queries[query] @ vectors[code] + biases[code] for _, code in some]
        if not down and not isinstance(loss, BCE | GBCE):
            continue
        total = total + examples.weights[query].item() * one(
            loss, up, down, some, positive, query, negatives, examples, items
        )
        weight += examples.weights[query].item()
    return total / weight


def one(loss, up, down, some, positive, query, negatives, examples, items):
    """Return the loss of one positive that scores `up` against negatives that score `down`."""
    n = len(down)
    if isinstance(loss, BCE):
        rejected = sum(torch.log(1 - torch.sigmoid(s)) for s in down)
        return -torch.log(torch.sigmoid(up)) - (rejected / max(n, 1) if loss.average else rejected)
    if isinstance(loss, GBCE):
        beta = gbce_weight(loss.negatives.n, int((COUNTS > 0).sum()), loss.t)
        rejected = sum(torch.log(1 - torch.sigmoid(s)) for s in down)
        return -(beta * torch.log(torch.sigmoid(up)) + rejected) / (loss.negatives.n + 1)
    if isinstance(loss, SampledSoftmax):
        negatives = negatives.for_each()
        row = (lambda x: x) if negatives.shared else (lambda x: x[query])
        if loss.logq == "gru4rec":
            up = up - math.log(max(items.counts[positive], 1))
            down = [s - row(negatives.log_support)[place] for s, (place, _) in zip(down, some, strict=True)]
        if loss.logq in ("exact", "improved"):
            down = [s - row(negatives.log_q)[place] for s, (place, _) in zip(down, some, strict=True)]
        if loss.logq == "exact":
            expected = loss.negatives.log_q(torch.tensor(positive), examples, items)
            up = up - (0 if expected.isneginf() else expected)
        return torch.log(torch.exp(up) + sum(torch.exp(s) for s in down)) - up
    down = torch.stack(down)
    if isinstance(loss, BPR):
        return -torch.log(torch.sigmoid(up - down)).mean()
    if isinstance(loss, TOP1):
        row = torch.cat([down, up[None]])
        every = (torch.sigmoid(row - up) + torch.sigmoid(row**2)).mean()
        return every - torch.sigmoid(up**2) / (n + 1)
    if isinstance(loss, TOP1Max):
        return (torch.softmax(down, 0) * (torch.sigmoid(down - up) + torch.sigmoid(down**2))).sum()
    if loss.elu:
        up, down = torch.nn.functional.elu(up, loss.elu), torch.nn.functional.elu(down, loss.elu)
    shares = torch.softmax(down, 0)
    return -torch.log((shares * torch.sigmoid(up - down)).sum() + 1e-24) + loss.bpreg * (shares * down**2).sum()


SAMPLERS = [
    Uniform(n=6),
    Uniform(n=6, per="row", mask=False),
    Uniform(n=20, per="row"),
    Uniform(n=7, per="row", distinct=True, unseen=True),
    Uniform(n=9, per="batch"),
    Popularity(n=12, alpha=0.5),
    Popularity(n=12, mask=False),
    InBatch(),
    InBatch(mask_same_user=False),
    InBatch(mask_same_user=False, mask=False),
    Mixed(parts=(InBatch(), Popularity(n=5)), mask_same_user=True),
    Mixed(parts=(InBatch(), Popularity(n=5, alpha=0.5)), mask=False),
    Mixed(parts=(InBatch(), Uniform(n=5), Shown())),
    Hard(pool=Uniform(n=9, per="batch"), top=4),
    Shown(),
]
LOSSES = [
    *[lambda s, logq=logq: SampledSoftmax(negatives=s, logq=logq) for logq in ("none", "exact", "gru4rec", "improved")],
    lambda s: BCE(negatives=s),
    lambda s: BCE(negatives=s, average=True),
    lambda s: BPR(negatives=s),
    lambda s: TOP1(negatives=s),
    lambda s: TOP1Max(negatives=s),
    lambda s: BPRMax(negatives=s, bpreg=0.7),
    lambda s: BPRMax(negatives=s, elu=0.5),
]
CASES = [make(sampler) for sampler in SAMPLERS for make in LOSSES] + [
    GBCE(negatives=Uniform(n=6)),
    GBCE(negatives=Uniform(n=20, per="row", mask=False)),
    GBCE(negatives=Uniform(n=6, mask=False), t=0.3),
]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("loss", CASES, ids=lambda loss: f"{loss.kind}-{loss.negatives.kind}")
def test_losses_are_their_formulas(loss, several):
    examples, head, items, inputs = problem(several, biased=several, sparse=not several)
    torch.manual_seed(0)
    got = loss(examples, head, items)
    torch.manual_seed(0)
    negatives = loss.negatives(examples, head, items)
    expected = by_loops(loss, negatives, examples, head, items)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(got, inputs, allow_unused=True)
    wanted = torch.autograd.grad(expected, inputs, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("logq", ["none", "improved"])
@pytest.mark.parametrize("per", ["batch", "query"])
def test_with_all_items_as_negatives_sampled_is_full(monkeypatch, per, logq):
    everything = torch.arange(V) if per == "batch" else torch.arange(V).expand(M, -1)
    monkeypatch.setattr(Uniform, "draw", lambda *_: everything)
    examples, head, items, inputs = problem(True)
    sampled = SampledSoftmax(negatives=Uniform(n=V, per=per, all_items=True), logq=logq)(examples, head, items)
    full = FullSoftmax()(examples, head, items)
    torch.testing.assert_close(sampled, full)
    for a, b in zip(torch.autograd.grad(sampled, inputs), torch.autograd.grad(full, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampler", [Popularity(n=4000, alpha=0.6, all_items=True), Uniform(n=4000, all_items=True)])
def test_the_improved_correction_is_unbiased_in_the_limit(sampler):
    examples, head, items, inputs = problem()
    full = torch.autograd.grad(FullSoftmax()(examples, head, items), inputs)
    torch.manual_seed(0)
    loss = SampledSoftmax(negatives=sampler, logq="improved")(examples, head, items)
    for a, b in zip(torch.autograd.grad(loss, inputs), full, strict=True):
        assert (a - b).norm() < 0.06 * b.norm()


def test_the_gradient_of_improved_is_that_of_its_paper():
    examples, head, items, inputs = problem()
    loss = SampledSoftmax(negatives=Popularity(n=6), logq="improved")
    torch.manual_seed(0)
    got = torch.autograd.grad(loss(examples, head, items), inputs)
    torch.manual_seed(0)
    negatives = loss.negatives(examples, head, items)
    scores = examples.queries @ head.vectors.T + head.bias
    ups = scores.gather(1, examples.positives[:, None]).squeeze(1)
    barred = negatives.items == examples.positives[:, None]
    down = (scores[:, negatives.items] - negatives.log_q).masked_fill(barred, float("-inf")).logsumexp(1)
    unsure = (1 - (ups - torch.logaddexp(ups, down)).exp()).detach()
    some = ~barred.all(1)
    weights = examples.weights[some]
    paper = (-unsure * (ups - down))[some] @ weights / weights.sum()
    for a, b in zip(got, torch.autograd.grad(paper, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [FullSoftmax(), *CASES[::3]], ids=lambda loss: loss.kind)
def test_extreme_scores_stay_finite(loss):
    examples, head, items, inputs = problem(True)
    with torch.no_grad():
        for x in inputs:
            x *= 100
    value = loss(examples, head, items)
    assert value.isfinite()
    assert all(g is None or g.isfinite().all() for g in torch.autograd.grad(value, inputs, allow_unused=True))


@pytest.mark.parametrize("loss", [SampledSoftmax(), BCE(), GBCE(), FullSoftmax()], ids=lambda loss: loss.kind)
def test_queries_in_bfloat16(loss):
    examples, head, items, _ = problem()
    low = Examples(examples.queries.bfloat16(), examples.positives, users=examples.users, weights=examples.weights)
    torch.manual_seed(0)
    expected = loss(examples, head, items)
    torch.manual_seed(0)
    got = loss(low, FixedHead(head.vectors.bfloat16(), head.bias), items)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("negatives", [None, Uniform(n=9, per="batch"), Uniform(n=9)])
def test_autocast_leaves_the_scores_alone(negatives):
    loss = FullSoftmax() if negatives is None else SampledSoftmax(negatives=negatives)
    examples, head, items, inputs = problem(True)
    torch.manual_seed(0)
    expected = loss(examples, head, items)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(examples, head, items)
    torch.testing.assert_close(got, expected)
    for a, b in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_positives_with_nothing_shown_do_not_count():
    examples, head, items, inputs = problem(True)
    loss = SampledSoftmax(negatives=Shown())
    keep = torch.isin(examples.of_query, torch.tensor([0, 3]))
    fewer = Examples(
        examples.queries, examples.positives[keep], of_query=examples.of_query[keep],
        shown=examples.shown, shown_of=examples.shown_of, weights=examples.weights,
    )  # fmt: skip
    torch.testing.assert_close(loss(examples, head, items), loss(fewer, head, items))
    none = torch.zeros(0, dtype=torch.int64)
    nothing = Examples(examples.queries, examples.positives, of_query=examples.of_query, shown=none, shown_of=none)
    value = loss(nothing, head, items)
    assert value.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(value, inputs))


def test_an_item_that_dominates_the_batch_is_not_lost():
    """In-batch negatives push what is popular down; the corrections, and masks, must bring its rank back."""
    torch.manual_seed(0)
    n_items, dominating = 30, 7
    counts = torch.ones(n_items)
    counts[dominating] = 300.0
    items = ItemStatistics(counts)

    def place(loss):
        torch.manual_seed(1)
        vectors = torch.nn.Parameter(0.1 * torch.randn(n_items, 8))
        query = torch.nn.Parameter(0.1 * torch.randn(1, 8))
        bias = torch.nn.Parameter(torch.zeros(n_items))
        learned = torch.optim.Adam([vectors, query, bias], lr=0.02)
        for _ in range(150):
            positives = torch.multinomial(counts, 64, replacement=True)
            examples = Examples(query.expand(64, -1), positives)
            learned.zero_grad()
            loss(examples, FixedHead(vectors, bias), items).backward()
            learned.step()
        scores = (query @ vectors.T + bias).detach()[0]
        return int((scores > scores[dominating]).sum()), (scores[dominating] - scores.median()).item()

    in_batch = InBatch(mask_same_user=False)
    unmasked = InBatch(mask_same_user=False, mask=False)
    expected, above = place(SampledSoftmax(negatives=Uniform(n=20)))
    assert expected == 0
    for corrected in (
        SampledSoftmax(negatives=in_batch, logq="exact"),
        SampledSoftmax(negatives=in_batch, logq="improved"),
        SampledSoftmax(negatives=unmasked, logq="gru4rec"),
    ):
        rank, margin = place(corrected)
        assert rank == 0
        assert margin > above / 2
    assert place(SampledSoftmax(negatives=unmasked))[1] < above / 3  # what happens without


def test_the_sum_of_losses():
    examples, head, items, _ = problem(True)
    total = Sum(parts=(Part(loss=FullSoftmax()), Part(loss=SampledSoftmax(negatives=Shown()), weight=0.2)))
    rank = SampledSoftmax(negatives=Shown())(examples, head, items)
    torch.testing.assert_close(total(examples, head, items), FullSoftmax()(examples, head, items) + 0.2 * rank)


def test_losses_are_read_by_their_kind():
    read = TypeAdapter(Loss).validate_python
    for loss in (FullSoftmax(), SampledSoftmax(), BCE(), GBCE(), BPR(), BPRMax(), TOP1(), TOP1Max()):
        assert read({"kind": loss.kind}) == loss
        assert read(loss.model_dump()) == loss
    total = read({"kind": "sum", "parts": [{"loss": {"kind": "softmax"}}, {"loss": {"kind": "bce"}, "weight": 0.5}]})
    assert total == Sum(parts=(Part(loss=FullSoftmax()), Part(loss=BCE(), weight=0.5)))
