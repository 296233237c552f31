"""Softmax cross-entropy over all items where part of every item's score depends on when the question is asked.

```
score[m, v] = queries[m] . table[v] + bias[v] + left[m] . right[moment of m][v] + what single pairs are raised by
```

The vectors of the items are the same at all moments and their gradient is formed once; only the few
columns of `right` are there for each.  As in `nextsession.nn.ops.cross_entropy`, scores of a block of queries are
computed, turned into their gradient, multiplied into the other gradients, and forgotten.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.cross_entropy import gradients_compiled, gradients_plainly, rows_at_once

Runs = list[tuple[int, int]]
"""First and end of the queries that were asked at each moment, one run after another."""


@dataclass(frozen=True, eq=False)
class Raised:
    """Scores of single queries and items that are raised (or lowered) beside what their vectors say."""

    rows: Tensor  # (K,) int64 queries, never falling
    items: Tensor  # (K,) int64; no pair twice
    by: Tensor  # (K,) float32


def moment_scores(
    queries: Tensor, table: Tensor, bias: Tensor, left: Tensor | None, right: Tensor | None, runs: Runs, raised: Raised
) -> Tensor:
    """Return all scores, `(M, V)`, by PyTorch's functions: the reference form, and what answers are made of.

    Args:
        queries: `(M, D)`.
        table: `(V, D)`.
        bias: `(V,)`.
        left: `(M, E)`, or None.
        right: `(G, V, E)`, or None.
        runs: The queries of each of the `G` moments.
        raised: What single pairs are raised by.
    """
    scores = torch.addmm(bias, queries, table.T)
    if left is not None and right is not None:
        scores = scores + torch.cat([left[a:z] @ right[g].T for g, (a, z) in enumerate(runs)])
    return scores.index_put((raised.rows, raised.items), raised.by, accumulate=True)


def moment_cross_entropy(
    queries: Tensor,
    table: Tensor,
    bias: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    runs: Runs,
    raised: Raised,
    targets: Tensor,
    of_query: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy of the targets; other targets of a query are not among its rivals.

    Args:
        queries: As in `moment_scores`, like all up to `raised`.
        table: See there.
        bias: See there.
        left: See there.
        right: See there.
        runs: See there.
        raised: See there.
        targets: `(P,)` int64 items.
        of_query: `(P,)` query of each target, never falling.
        label_smoothing: Share of each target that is spread evenly over all items.

    Returns:
        A scalar, float32; 0 without targets.
    """
    counts = torch.bincount(of_query, minlength=len(queries))
    starts = functional.pad(counts.cumsum(0), (1, 0)).cpu()
    loss: Tensor = _InForward.apply(
        queries, table, bias, left, right, raised.by, raised, runs, targets, starts, label_smoothing
    )  # type: ignore[no-untyped-call]
    return loss


class _InForward(torch.autograd.Function):
    """Cross-entropy whose gradients are ready once its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        table: Tensor,
        bias: Tensor,
        left: Tensor | None,
        right: Tensor | None,
        by: Tensor,
        raised: Raised,
        runs: Runs,
        targets: Tensor,
        starts: Tensor,
        smoothing: float,
    ) -> Tensor:
        """Go through the queries block by block."""
        q, t, shift, b = (x.detach().float() for x in (queries, table, bias, by))
        weights = torch.full((len(q),), 1 / max(len(targets), 1), device=q.device)
        step = gradients_compiled if q.device.type == "cpu" else gradients_plainly
        to_q, to_t, to_bias, to_by = (torch.zeros_like(x) for x in (q, t, shift, b))
        to_left = None if left is None else torch.zeros_like(left)
        to_right = None if right is None else torch.zeros_like(right)
        total = torch.zeros((), device=q.device)
        buffer = torch.empty((rows_at_once(len(q), len(t), q.device), len(t)), device=q.device)
        for g, first, stop in _blocks(runs, len(buffer)):
            scores = torch.mm(q[first:stop], t.T, out=buffer[: stop - first])
            if left is not None and right is not None:
                scores.addmm_(left.detach()[first:stop], right.detach()[g].T)
            some = slice(*torch.searchsorted(raised.rows, raised.rows.new_tensor([first, stop])).tolist())
            pairs = (raised.rows[some] - first, raised.items[some])
            scores.index_put_(pairs, b[some], accumulate=True)
            lo, hi = int(starts[first]), int(starts[stop])
            of_rows = starts[first : stop + 1] - lo
            total += step(scores, shift, targets[lo:hi], of_rows, weights[first:stop], smoothing, False)
            to_by[some] = scores[pairs]
            to_bias += scores.sum(0)
            to_t.addmm_(scores.T, q[first:stop])
            torch.mm(scores, t, out=to_q[first:stop])
            if to_left is not None and to_right is not None and left is not None and right is not None:
                torch.mm(scores, right.detach()[g], out=to_left[first:stop])
                to_right[g].addmm_(scores.T, left.detach()[first:stop])
        ctx.save_for_backward(to_q, to_t, to_bias, to_left, to_right, to_by)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass found."""
        return (*[None if g is None else g * gradient for g in ctx.saved_tensors], *[None] * 5)


def _blocks(runs: Runs, most: int) -> Iterator[tuple[int, int, int]]:
    """Give the number of each moment with at most so many of its queries at a time."""
    for g, (first, stop) in enumerate(runs):
        for start in range(first, stop, most):
            yield g, start, min(start + most, stop)
