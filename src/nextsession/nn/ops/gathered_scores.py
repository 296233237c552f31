"""Scores of a few items for each query: `scores[m, c] = queries[m] . table[items[m, c]]`."""

from torch import Tensor


def gathered_scores_plainly(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Score by gathering a vector for every query and item: `M x C x D` floats."""
    scores = (queries[:, None] * table[items.clamp(min=0)]).sum(-1)
    return scores.masked_fill(items < 0, 0.0)


def gathered_scores(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Score some items for each query.

    Args:
        queries: `(M, D)`.
        table: `(V, D)`.
        items: `(M, C)` rows of the table; a negative number scores 0.

    Returns:
        `(M, C)`.
    """
    return gathered_scores_plainly(queries, table, items)
