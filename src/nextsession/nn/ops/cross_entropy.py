"""Softmax cross-entropy over all items, without ever holding the scores of all queries.

Scores of a block of queries are computed, turned into their gradient, multiplied into the gradients
of queries and items, and forgotten: the gradients are formed in the forward pass, since the loss is
one number and the backward pass can only scale them.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.cross_entropy_kernels import softmax_gradients

Precision = Literal["float32", "bfloat16"]

_BUFFER = 4 << 20  # floats of scores held at once


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
        number = torch.bfloat16 if precision == "bfloat16" else torch.float32
        q, t = queries.detach().to(number), table.detach().to(number)
        b = None if bias is None else bias.detach().float()
        to_queries = torch.empty_like(q)
        to_table = torch.zeros(table.shape, device=table.device)
        to_bias = None if bias is None else torch.zeros(len(table), device=table.device)
        rows = min(max(_BUFFER // max(len(table), 1), 16), 512)
        product = torch.empty((min(rows, len(q)), len(t)), dtype=number, device=q.device)
        scores = product if number == torch.float32 else product.float()
        partial = None if number == torch.float32 else torch.empty_like(t)
        total = torch.zeros((), device=q.device)
        for start in range(0, len(q), rows):
            stop = min(start + rows, len(q))
            block, p, s = q[start:stop], product[: stop - start], scores[: stop - start]
            torch.mm(block, t.T, out=p)
            if s is not p:
                s.copy_(p)
            lo, hi = (start, stop) if starts is None else (int(starts[start]), int(starts[stop]))
            of_rows = None if starts is None else starts[start : stop + 1] - lo
            total += _into_gradients(s, b, targets[lo:hi], of_rows, weights[start:stop], smoothing, others)
            if not differentiate:
                continue
            if to_bias is not None:
                to_bias += s.sum(0)
            if partial is None:
                to_table.addmm_(s.T, block)
            else:
                p.copy_(s)
                to_table += torch.mm(p.T, block, out=partial)
            torch.mm(p, t, out=to_queries[start:stop])
        ctx.save_for_backward(to_queries.to(queries.dtype), to_table.to(table.dtype), to_bias)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass found."""
        to_queries, to_table, to_bias = ctx.saved_tensors
        scaled = [None if g is None else g * gradient for g in (to_queries, to_table, to_bias)]
        return (*scaled, *[None] * 7)


def _into_gradients(
    scores: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    starts: Tensor | None,
    weights: Tensor,
    smoothing: float,
    others: bool,
) -> Tensor | float:
    """Turn scores `(R, V)` into the gradient of the weighted loss of these rows, in place, and return that loss."""
    if starts is None:
        starts = torch.arange(len(scores) + 1)
    if scores.device.type == "cpu":
        return softmax_gradients(
            scores.numpy(),
            (torch.empty(0) if bias is None else bias).numpy(),
            targets.numpy(),
            starts.numpy(),
            weights.numpy(),
            smoothing,
            others,
        )
    return into_gradients_plainly(scores, bias, targets, starts, weights, smoothing, others)


def into_gradients_plainly(
    scores: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    starts: Tensor,
    weights: Tensor,
    smoothing: float,
    others: bool,
) -> Tensor:
    """Do what the kernel does by PyTorch's functions, on any device."""
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
