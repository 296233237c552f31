"""Scores of a few items for each query: `scores[m, c] = queries[m] . table[items[m, c]]`."""

from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nextsession.nn.ops.cross_entropy_kernels import gather_scores, scatter_gradients
from nextsession.nn.ops.work import in_parts

_LANES = 16  # dimensions that one thread takes at least


def gathered_scores_plainly(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Score by gathering a vector for every query and item: `M x C x D` floats."""
    scores = (queries[:, None] * table[items.clamp(min=0)]).sum(-1)
    return scores.masked_fill(items < 0, 0.0)


def gathered_scores(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Score some items for each query, holding no more than the scores on the CPU.

    Args:
        queries: `(M, D)`.
        table: `(V, D)`.
        items: `(M, C)` int64 rows of the table; a negative number scores 0.

    Returns:
        `(M, C)`.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.float32:
        return gathered_scores_plainly(queries, table, items)
    scores: Tensor = _Gathered.apply(queries, table, items)  # type: ignore[no-untyped-call]
    return scores


class _Gathered(torch.autograd.Function):
    """Gathers and multiplies at once, both ways."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
        queries, table, items = queries.contiguous(), table.contiguous(), items.contiguous()
        scores = torch.empty(items.shape)
        q, t, i, s = (x.detach().numpy() for x in (queries, table, items, scores))
        cost = isqrt(items.shape[1] * queries.shape[1]) if len(items) else 0
        in_parts(np.arange(len(q) + 1) * cost, lambda part: gather_scores(q, t, i, s, part[0], part[1]))
        ctx.save_for_backward(queries, table, items)
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, table, items = ctx.saved_tensors
        to_queries, to_table = torch.zeros_like(queries), torch.zeros_like(table)
        g, q, t, i, a, b = (
            x.detach().numpy() for x in (gradient.contiguous(), queries, table, items, to_queries, to_table)
        )
        # Threads take dimensions, not queries: they would write to the same items.
        dim = queries.shape[1]
        blocks = -(-dim // _LANES)
        in_parts(
            np.arange(blocks + 1) * isqrt(items.numel() * _LANES),
            lambda part: scatter_gradients(g, q, t, i, a, b, part[0] * _LANES, min(part[1] * _LANES, dim)),
        )
        return to_queries, to_table, None
