"""Softmax cross-entropy against negatives that all queries share, without holding the scores of all queries."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.cross_entropy import Precision, through_blocks
from nextsession.nn.ops.cross_entropy_kernels import sampled_gradients
from nextsession.nn.ops.work import in_parts


@dataclass(frozen=True, eq=False)
class Barred:
    """Columns that queries do not compete with: those of their group."""

    groups: Tensor  # (M,) int64
    starts: Tensor  # (G + 1,) int64
    columns: Tensor  # (K,) int64

    def mask(self, first: int, stop: int, n_columns: int) -> Tensor:
        """Return the columns barred for some queries, `(stop - first, C)`."""
        counts = self.starts[1:] - self.starts[:-1]
        rows = torch.repeat_interleave(counts, output_size=len(self.columns))
        of_groups = torch.zeros((len(counts), n_columns), dtype=torch.bool, device=self.columns.device)
        of_groups[rows, self.columns] = True
        return of_groups[self.groups[first:stop]]


Rule = Callable[[int, int], Tensor]
"""Returns which columns are barred for the queries from one number to another, `(R, C)`."""


def sampled_cross_entropy_plainly(
    queries: Tensor,
    columns: Tensor,
    shift: Tensor,
    barred: Tensor,
    found: Tensor,
    of_query: Tensor,
    weights: Tensor,
) -> Tensor:
    """Compute what `sampled_cross_entropy` does from all the scores; `barred`, too, is `(M, C)`."""
    rivals = (queries @ columns.T + shift).masked_fill(barred, float("-inf")).logsumexp(1)
    counted = weights[of_query] * (~barred).any(1)[of_query]
    losses = functional.softplus(rivals[of_query] - found)
    return (losses * counted).sum() / counted.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def sampled_cross_entropy(
    queries: Tensor,
    columns: Tensor,
    shift: Tensor,
    barred: Barred | Rule,
    found: Tensor,
    of_query: Tensor,
    weights: Tensor,
    *,
    precision: Precision = "float32",
) -> Tensor:
    """Return the mean of `log(1 + sum_c exp(queries . columns_c + shift_c - found))` over the positives.

    Args:
        queries: `(M, D)`.
        columns: `(C, D)` vectors of the negatives.
        shift: `(C,)` added to their scores.
        barred: What is left out of the sum of a query; compiled loops for the CPU take `Barred`.
        found: `(P,)` float32 scores of the positives.
        of_query: `(P,)` their query, never falling.
        weights: `(M,)` weight of each query's positives in the mean; not differentiated.
        precision: Numbers that matrices are multiplied in; exponentials are summed in float32.

    Returns:
        A scalar; positives without anything to compete with do not count.
    """
    loss: Tensor = _Sampled.apply(
        queries, columns, shift, found, barred, of_query, weights.detach().float(), precision, torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return loss


class _Sampled(torch.autograd.Function):
    """Sampled cross-entropy whose gradients are ready once its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        columns: Tensor,
        shift: Tensor,
        found: Tensor,
        barred: Barred | Rule,
        of_query: Tensor,
        weights: Tensor,
        precision: Precision,
        differentiate: bool,
    ) -> Tensor:
        """Go through the queries block by block."""
        starts = functional.pad(torch.bincount(of_query, minlength=len(queries)).cumsum(0), (1, 0)).cpu()
        moved, positives = shift.detach().float(), found.detach().float()
        to_found = torch.zeros_like(positives)
        counted = torch.zeros((), device=queries.device)

        def into_gradients(scores: Tensor, first: int, stop: int) -> Tensor | float:
            lo, hi = int(starts[first]), int(starts[stop])
            some, rows = slice(lo, hi), slice(first, stop)
            if scores.device.type == "cpu" and isinstance(barred, Barred):
                places = starts[first : stop + 1] - lo
                loss, weight = compiled_gradients(
                    scores, moved, barred, barred.groups[rows], positives[some], places, weights[rows], to_found[some]
                )
                counted.add_(weight)
                return loss

            rule = barred.mask(first, stop, len(moved)) if isinstance(barred, Barred) else barred(first, stop)
            value, counting, to_found[some] = gradients_plainly(
                scores, moved, rule, positives[some], of_query[some] - first, weights[rows]
            )
            counted.add_(counting)
            return value

        loss, gradients = through_blocks(
            queries, columns, precision, into_gradients, differentiate, biased=shift.requires_grad
        )
        counted.clamp_(min=torch.finfo(torch.float32).tiny)
        ctx.save_for_backward(*gradients, to_found, counted)
        return loss / counted

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass found."""
        *gradients, counted = ctx.saved_tensors
        scale = gradient / counted
        return (*[None if g is None else g * scale for g in gradients], *[None] * 5)


def compiled_gradients(
    scores: Tensor,
    shift: Tensor,
    barred: Barred,
    groups: Tensor,
    found: Tensor,
    starts: Tensor,
    weights: Tensor,
    to_found: Tensor,
) -> tuple[float, float]:
    """Do what `gradients_plainly` does by compiled loops on the CPU; gradients of the positives are written.

    Args:
        scores: `(R, C)`.
        shift: `(C,)`.
        barred: What is left out.
        groups: `(R,)` the group of each query.
        found: Scores of the positives.
        starts: `(R + 1,)` where those of each query begin.
        weights: `(R,)`.
        to_found: As many as `found`; written.

    Returns:
        The loss, and the weight of the positives that count.
    """
    s, a, g, o, b, f, p, w, d = (
        x.numpy() for x in (scores, shift, groups, barred.starts, barred.columns, found, starts, weights, to_found)
    )

    def part(rows: tuple[int, int]) -> tuple[float, float]:
        some = slice(*rows)
        return sampled_gradients(s[some], a, g[some], o, b, f, p[rows[0] : rows[1] + 1], w[some], d)

    found_in_parts = in_parts(np.arange(len(s) + 1) * isqrt(s.shape[1]), part)
    return sum(loss for loss, _ in found_in_parts), sum(weight for _, weight in found_in_parts)


def gradients_plainly(
    scores: Tensor, shift: Tensor, barred: Tensor, found: Tensor, rows: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn scores `(R, C)` into the gradient of the weighted loss of these rows, in place, on any device.

    Returns:
        The loss, the weight of the positives that count, and the gradients of the positives.
    """
    scores += shift
    scores.masked_fill_(barred, float("-inf"))
    rivals = scores.logsumexp(1)
    margins = rivals[rows] - found
    each = weights[rows] * ~rivals.isneginf()[rows]
    pushed = each * margins.sigmoid()
    per_row = torch.zeros_like(weights).index_add_(0, rows, pushed)
    torch.sub(scores, torch.where(rivals.isneginf(), 0.0, rivals)[:, None], out=scores).exp_().mul_(per_row[:, None])
    return (functional.softplus(margins) * each).sum(), each.sum(), -pushed
