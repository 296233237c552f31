"""Softmax cross-entropy over all items, without ever holding the scores of all queries.

Scores of a block of queries are computed, turned into their gradient, multiplied into the gradients
of queries and items, and forgotten: the gradients are formed in the forward pass, since the loss is
one number and the backward pass can only scale them.
"""

from collections.abc import Callable
from math import isqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.cross_entropy_kernels import softmax_gradients
from nextsession.nn.ops.work import in_parts

Precision = Literal["float32", "bfloat16"]

_HELD = {"cpu": 16 << 20, "cuda": 128 << 20}
"""Scores held at once at most: 64 MB of them, and 512 MB on a GPU."""
_CACHED = 1 << 20
"""Scores held at once on the CPU where there are few items: they stay in its caches."""
_ROWS, _FEWEST = 256, 16
"""Queries whose scores are held at once at least: of many items, and of so many that `_HELD` allows fewer.

At a million items there are `_FEWEST`.  Going through blocks of items twice instead, once for the sum and
once for the gradient, would need a fourth product and exponentials again: it would pay from about 400 thousand.
"""


def rows_at_once(queries: int, columns: int, device: torch.device) -> int:
    """Return how many queries' scores of so many columns are held at once."""
    columns = max(columns, 1)
    most = _HELD.get(device.type, _HELD["cuda"]) // columns
    wanted = max(_CACHED // columns, _ROWS) if device.type == "cpu" else most
    return max(min(wanted, most, queries), min(_FEWEST, queries), 1)


def linear_cross_entropy_plainly(
    queries: Tensor,
    table: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    of_query: Tensor | None = None,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    other_targets: bool = False,
) -> Tensor:
    """Compute what `linear_cross_entropy` does from all the scores, `M x V`, by PyTorch's own functions."""
    scores = queries @ table.T
    if bias is not None:
        scores = scores + bias
    rows = torch.arange(len(targets), device=targets.device) if of_query is None else of_query
    scores = scores[rows]
    found = scores.gather(1, targets[:, None]).squeeze(1)
    denominators = scores
    if not other_targets:
        is_target = torch.zeros((len(queries), len(table)), dtype=torch.bool, device=targets.device)
        is_target[rows, targets] = True
        others = is_target[rows].scatter(1, targets[:, None], False)
        denominators = scores.masked_fill(others, float("-inf"))
    losses = denominators.logsumexp(1) - found + label_smoothing * (found - scores.mean(1))
    each = torch.ones_like(losses) if weights is None else weights[rows]
    return (losses * each).sum() / each.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def linear_cross_entropy(
    queries: Tensor,
    table: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    of_query: Tensor | None = None,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    other_targets: bool = False,
    precision: Precision = "float32",
) -> Tensor:
    """Return the mean cross-entropy of the targets under the softmax of `queries @ table.T + bias`.

    Args:
        queries: `(M, D)`.
        table: `(V, D)` vectors of all items.
        bias: `(V,)`, or None.
        targets: `(P,)` int64 items.
        of_query: `(P,)` query of each target, never falling; None: one target a query.
        weights: `(M,)` weight of each query's targets in the mean; not differentiated.  None: all 1.
        label_smoothing: Share of each target that is spread evenly over all items.
        other_targets: Do the other targets of a query stand in the denominator of each?
        precision: Numbers that matrices are multiplied in; exponentials are summed in float32.

    Returns:
        A scalar, float32; 0 without targets.
    """
    each = torch.ones(len(queries), device=queries.device) if weights is None else weights.detach().float()
    counts = _targets_of(of_query, len(queries))
    total = each.sum() if counts is None else (each * counts).sum()
    each = each / total.clamp(min=torch.finfo(torch.float32).tiny)
    starts = None if counts is None else functional.pad(counts.cumsum(0), (1, 0)).cpu()
    loss: Tensor = _InForward.apply(
        queries, table, bias, targets, starts, each, label_smoothing, other_targets, precision, torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return loss


def _targets_of(of_query: Tensor | None, queries: int) -> Tensor | None:
    """Return the number of targets of each query, `(M,)`; None: one each."""
    return None if of_query is None else torch.bincount(of_query, minlength=queries)


class _InForward(torch.autograd.Function):
    """Cross-entropy whose gradients are ready once its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        starts: Tensor | None,
        weights: Tensor,
        smoothing: float,
        others: bool,
        precision: Precision,
        differentiate: bool,
    ) -> Tensor:
        """Go through the queries block by block."""
        shift = None if bias is None else bias.detach().float()

        def into_gradients(scores: Tensor, first: int, stop: int) -> Tensor | float:
            lo, hi = (first, stop) if starts is None else (int(starts[first]), int(starts[stop]))
            of_rows = torch.arange(len(scores) + 1) if starts is None else starts[first : stop + 1] - lo
            step = gradients_compiled if scores.device.type == "cpu" else gradients_plainly
            return step(scores, shift, targets[lo:hi], of_rows, weights[first:stop], smoothing, others)

        loss, gradients = through_blocks(
            queries, table, precision, into_gradients, differentiate, biased=bias is not None
        )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass found."""
        return (*[None if g is None else g * gradient for g in ctx.saved_tensors], *[None] * 7)


def through_blocks(
    queries: Tensor,
    table: Tensor,
    precision: Precision,
    into_gradients: Callable[[Tensor, int, int], Tensor | float],
    differentiate: bool,
    *,
    biased: bool,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Sum a loss of scores `queries @ table.T` over blocks of queries, and form its gradients on the way.

    Args:
        queries: `(M, D)`.
        table: `(C, D)`.
        precision: Numbers that matrices are multiplied in.
        into_gradients: Turns float32 scores of the queries `first` to `stop` into their gradients in
            place, and returns their loss.
        differentiate: Are the gradients wanted?
        biased: Is that of a bias wanted too?

    Returns:
        The loss, and the gradients of queries, table and bias; None where not wanted.
    """
    number = torch.bfloat16 if precision == "bfloat16" else torch.float32
    q, t = queries.detach().to(number), table.detach().to(number)
    rows = rows_at_once(len(q), len(t), q.device)
    product = torch.empty((rows, len(t)), dtype=number, device=q.device)
    scores = product if number == torch.float32 else product.float()
    total = torch.zeros((), device=q.device)
    to_queries = torch.empty_like(q) if differentiate else None
    to_table = torch.zeros(t.shape, device=q.device) if differentiate else None
    to_bias = torch.zeros(len(t), device=q.device) if differentiate and biased else None
    partial = torch.empty_like(t) if differentiate and scores is not product else None
    for start in range(0, len(q), rows):
        stop = min(start + rows, len(q))
        block, p, s = q[start:stop], product[: stop - start], scores[: stop - start]
        torch.mm(block, t.T, out=p)
        if scores is not product:
            s.copy_(p)
        total += into_gradients(s, start, stop)
        if to_queries is None or to_table is None:
            continue
        if to_bias is not None:
            to_bias += s.sum(0)
        if partial is None:
            to_table.addmm_(s.T, block)
        else:  # sums over blocks in float32: bfloat16 would lose what is added last
            p.copy_(s)
            to_table += torch.mm(p.T, block, out=partial)
        torch.mm(p, t, out=to_queries[start:stop])
    if to_queries is None or to_table is None:
        return total, (None, None, None)
    return total, (to_queries.to(queries.dtype), to_table.to(table.dtype), to_bias)


def gradients_compiled(
    scores: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    starts: Tensor,
    weights: Tensor,
    smoothing: float,
    others: bool,
) -> float:
    """Turn scores `(R, V)` on the CPU into the gradient of the weighted loss of these rows, and return that loss."""
    s, b, t, o, w = (
        x.numpy() for x in (scores, scores.new_empty(0) if bias is None else bias, targets, starts, weights)
    )

    def part(rows: tuple[int, int]) -> float:
        some = slice(*rows)
        return softmax_gradients(s[some], b, t, o[rows[0] : rows[1] + 1], w[some], smoothing, others)

    return sum(in_parts(np.arange(len(s) + 1) * isqrt(s.shape[1]), part))


def gradients_plainly(
    scores: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    starts: Tensor,
    weights: Tensor,
    smoothing: float,
    others: bool,
) -> Tensor:
    """Do what `gradients_compiled` does by PyTorch's functions, on any device."""
    if bias is not None:
        scores += bias
    counts = (starts[1:] - starts[:-1]).to(scores.device, non_blocking=True)
    rows = torch.repeat_interleave(counts, output_size=len(targets))
    found = scores[rows, targets]
    each = weights[rows]
    losses = smoothing * (found - scores.mean(1)[rows]) if smoothing else torch.zeros_like(found)
    if not others:
        scores[rows, targets] = float("-inf")
    rivals = scores.logsumexp(1)
    margins = rivals[rows] - found
    losses += margins if others else functional.softplus(margins)
    pushed = each if others else each * margins.sigmoid()
    per_row = torch.zeros_like(weights).index_add_(0, rows, pushed)
    torch.sub(scores, torch.where(rivals.isneginf(), 0.0, rivals)[:, None], out=scores).exp_().mul_(per_row[:, None])
    if smoothing:
        scores -= (weights * counts * (smoothing / scores.shape[1]))[:, None]
    scores.index_put_((rows, targets), each * smoothing - pushed, accumulate=True)
    return (losses * each).sum()
