"""Losses against negatives that the queries of a row share: a matrix product for each row of the batch.

As in `nextsession.nn.ops.cross_entropy`, scores of a block of queries are computed, turned into their
gradient, multiplied into the gradients of queries and items, and forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.cross_entropy import rows_at_once
from nextsession.nn.ops.cross_entropy_kernels import binary_gradients
from nextsession.nn.ops.sampled_cross_entropy import Barred, compiled_gradients, gradients_plainly

Rule = Callable[[int, int, int], Tensor]
"""Returns which columns of a row, the first number, are barred for its queries from the second number to the third."""


@dataclass(frozen=True, eq=False)
class RowColumns:
    """Items that the queries of each row compete with, row by row."""

    query_starts: list[int]
    """`(G + 1,)` where the queries of each row begin; all belong to one."""
    places: Tensor  # (K,) int64 rows of the table of vectors
    starts: list[int]
    """`(G + 1,)` where the items of each row begin."""
    counts: Tensor  # (K,) float32 how often each was drawn
    correction: Tensor | None  # (K,) float32 taken from their scores; None: nothing
    barred: Barred | Rule
    """What a query does not compete with, numbered within its row; compiled loops for the CPU take `Barred`."""

    def rule(self, row: int, first: int, stop: int) -> Tensor:
        """Return the columns barred for some queries of a row, `(stop - first, C)`."""
        if isinstance(self.barred, Barred):
            return self.barred.mask(first, stop, self.starts[row + 1] - self.starts[row])
        return self.barred(row, first, stop)


def row_cross_entropy(
    queries: Tensor,
    table: Tensor,
    bias: Tensor | None,
    columns: RowColumns,
    found: Tensor,
    of_query: Tensor,
    weights: Tensor,
) -> Tensor:
    """Return the mean of `log(1 + sum_c exp(score_c - found))` over the positives.

    Args:
        queries: `(M, D)`, those of a row after each other.
        table: `(U, D)` vectors that `columns.places` points into.
        bias: `(U,)`, or None.
        columns: The negatives.
        found: `(P,)` float32 scores of the positives.
        of_query: `(P,)` their query, never falling.
        weights: `(M,)` weight of each query's positives in the mean; not differentiated.

    Returns:
        A scalar; positives without anything to compete with do not count.
    """
    loss: Tensor = _CrossEntropy.apply(
        queries, table, bias, found, columns, of_query, weights.detach().float(), torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return loss


def row_rejections(
    queries: Tensor, table: Tensor, bias: Tensor | None, columns: RowColumns, weights: Tensor, *, average: bool
) -> Tensor:
    """Return the sum over queries of `weights sum_c log(1 + exp(score_c))`.

    Args:
        queries: `(M, D)`, those of a row after each other.
        table: `(U, D)` vectors that `columns.places` points into.
        bias: `(U,)`, or None.
        columns: The negatives.
        weights: `(M,)`; not differentiated.
        average: The mean over the negatives of a query instead of their sum?
    """
    loss: Tensor = _Rejections.apply(
        queries, table, bias, columns, weights.detach().float(), average, torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Sampled cross-entropy whose gradients are ready once its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        table: Tensor,
        bias: Tensor | None,
        found: Tensor,
        columns: RowColumns,
        of_query: Tensor,
        weights: Tensor,
        differentiate: bool,
    ) -> Tensor:
        starts = functional.pad(torch.bincount(of_query, minlength=len(queries)).cumsum(0), (1, 0)).cpu()
        positives = found.detach().float()
        to_found = torch.zeros_like(positives)
        counted = torch.zeros((), device=queries.device)
        raised = columns.counts.log()
        if columns.correction is not None:
            raised = raised - columns.correction

        def into_gradients(scores: Tensor, shift: Tensor | None, row: int, first: int, stop: int) -> Tensor | float:
            lo, hi = int(starts[first]), int(starts[stop])
            some = slice(lo, hi)
            moved = raised[columns.starts[row] : columns.starts[row + 1]]
            moved = moved if shift is None else moved + shift
            if scores.device.type == "cpu" and isinstance(columns.barred, Barred):
                places = starts[first : stop + 1] - lo
                groups = columns.barred.groups[first:stop]
                loss, weight = compiled_gradients(
                    scores, moved, columns.barred, groups, positives[some], places, weights[first:stop], to_found[some]
                )
                counted.add_(weight)
                return loss
            value, counting, to_found[some] = gradients_plainly(
                scores,
                moved,
                columns.rule(row, first, stop),
                positives[some],
                of_query[some] - first,
                weights[first:stop],
            )
            counted.add_(counting)
            return value

        loss, gradients = _through_rows(queries, table, bias, columns, into_gradients, differentiate)
        counted.clamp_(min=torch.finfo(torch.float32).tiny)
        ctx.save_for_backward(*gradients, to_found, counted)
        return loss / counted

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, counted = ctx.saved_tensors
        scale = gradient / counted
        return (*[None if g is None else g * scale for g in gradients], *[None] * 4)


class _Rejections(torch.autograd.Function):
    """The negatives' part of binary cross-entropy, whose gradients are ready once its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        table: Tensor,
        bias: Tensor | None,
        columns: RowColumns,
        weights: Tensor,
        average: bool,
        differentiate: bool,
    ) -> Tensor:
        def into_gradients(scores: Tensor, shift: Tensor | None, row: int, first: int, stop: int) -> Tensor | float:
            counts = columns.counts[columns.starts[row] : columns.starts[row + 1]]
            if shift is not None:
                scores += shift
            if scores.device.type == "cpu" and isinstance(columns.barred, Barred):
                some = (scores, counts, columns.barred.groups[first:stop], columns.barred.starts)
                s, c, g, o, b, w = (x.numpy() for x in (*some, columns.barred.columns, weights[first:stop]))
                return binary_gradients(s, c, g, o, b, w, average)
            return _binary_plainly(scores, counts, columns.rule(row, first, stop), weights[first:stop], average)

        loss, gradients = _through_rows(queries, table, bias, columns, into_gradients, differentiate)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*[None if g is None else g * gradient for g in ctx.saved_tensors], *[None] * 4)


def _binary_plainly(scores: Tensor, counts: Tensor, barred: Tensor, weights: Tensor, average: bool) -> Tensor:
    """Turn scores `(R, C)` into the gradient of the weighted rejections, in place, and return these."""
    each = counts.expand_as(scores).masked_fill(barred, 0.0)
    if average:
        weights = weights / each.sum(1).clamp(min=1)
    each = each * weights[:, None]
    loss = (functional.softplus(scores) * each).sum()
    scores.sigmoid_().mul_(each)
    return loss


def _through_rows(
    queries: Tensor,
    table: Tensor,
    bias: Tensor | None,
    columns: RowColumns,
    into_gradients: Callable[[Tensor, Tensor | None, int, int, int], Tensor | float],
    differentiate: bool,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Sum a loss of the scores of each row over blocks of its queries, and form its gradients on the way.

    Products are written where they belong (`out`), which autocast leaves in float32.

    Returns:
        The loss, and the gradients of queries, table and bias; None where not wanted.
    """
    q, t = queries.detach().float(), table.detach().float()
    b = None if bias is None else bias.detach().float()
    widest = max((z - a for a, z in zip(columns.starts, columns.starts[1:], strict=False)), default=0)
    longest = max((z - a for a, z in zip(columns.query_starts, columns.query_starts[1:], strict=False)), default=0)
    at_once = rows_at_once(longest, widest, q.device)
    held = torch.empty(at_once * widest, device=q.device)
    vectors, to_vectors = torch.empty((2, widest, q.shape[1]), device=q.device)
    total = torch.zeros((), device=q.device)
    to_queries = torch.zeros_like(q) if differentiate else None
    to_table = torch.zeros_like(t) if differentiate else None
    to_bias = torch.zeros_like(b) if differentiate and b is not None else None
    for row, (begin, end) in enumerate(zip(columns.query_starts, columns.query_starts[1:], strict=False)):
        places = columns.places[columns.starts[row] : columns.starts[row + 1]]
        n = len(places)
        if begin == end or n == 0:
            continue
        v, to_v = torch.index_select(t, 0, places, out=vectors[:n]), to_vectors[:n]
        shift = None if b is None else b[places]
        for first in range(begin, end, at_once):
            stop = min(first + at_once, end)
            block = q[first:stop]
            scores = torch.mm(block, v.T, out=held[: (stop - first) * n].view(stop - first, n))
            total += into_gradients(scores, shift, row, first, stop)
            if to_queries is None:
                continue
            to_v.addmm_(scores.T, block, beta=int(first > begin))
            torch.mm(scores, v, out=to_queries[first:stop])
            if to_bias is not None:
                to_bias.index_add_(0, places, scores.sum(0))
        if to_table is not None:
            to_table.index_add_(0, places, to_v)
    if to_queries is None or to_table is None:
        return total, (None, None, None)
    return total, (to_queries.to(queries.dtype), to_table.to(table.dtype), to_bias)
