"""Scores of positives and of the negatives they compete with, and the mean that a loss is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nextsession.nn.collisions import collides, queries_of_positives
from nextsession.nn.negatives import ItemStatistics, Negatives
from nextsession.nn.networks import Examples, Head
from nextsession.nn.ops.gathered_scores import gathered_scores


@dataclass(frozen=True, eq=False)
class Contrast:
    """What the positives of a batch and their negatives score."""

    positives: Tensor  # (P,) float32
    negatives: Tensor  # (M, C) float32, 0 where barred
    barred: Tensor  # (M, C) does the query not compete with this negative?
    of_query: Tensor  # (P,) query of each positive
    one_each: bool  # has every query one positive?

    @property
    def n_negatives(self) -> Tensor:
        """Return how many negatives each query has, `(M,)`."""
        return (~self.barred).sum(1)

    def spread(self, of_queries: Tensor) -> Tensor:
        """Give every positive what belongs to its query: `(M, ...)` to `(P, ...)`."""
        return of_queries if self.one_each else of_queries[self.of_query]


def contrast(examples: Examples, head: Head, negatives: Negatives, items: ItemStatistics) -> Contrast:
    """Score the positives of a batch, and the negatives drawn for it, which are written out for each query."""
    negatives = negatives.for_each()
    barred = barred_from(negatives, examples, items.n_items)
    scores = negative_scores(examples, head, negatives.items).masked_fill(barred, 0.0)
    of_query = queries_of_positives(examples)
    return Contrast(positive_scores(examples, head), scores, barred, of_query, examples.of_query is None)


def positive_scores(examples: Examples, head: Head) -> Tensor:
    """Score each positive for its query, `(P,)` float32."""
    vectors, bias = head.rows(examples.positives)
    queries = examples.queries if examples.of_query is None else examples.queries[examples.of_query]
    scores = (queries.float() * vectors.float()).sum(-1)
    return scores if bias is None else scores + bias.float()


def negative_scores(examples: Examples, head: Head, codes: Tensor) -> Tensor:
    """Score the items `(C,)` for all queries, or the items `(M, C)` for one query each; float32, 0 for code -1."""
    if codes.dim() == 1:
        vectors, bias = head.rows(codes)
        scores = (examples.queries @ vectors.T.to(examples.queries.dtype)).float()
        return scores if bias is None else scores + bias.float()
    if head.sparse:  # a gradient of the rows that occur, not of the table
        present, places = torch.unique(codes, return_inverse=True)
        vectors, bias = head.rows(present.clamp(min=0))
        codes = torch.where(codes < 0, codes, places)
    else:
        vectors, bias = head.table()
    scores = gathered_scores(examples.queries.float(), vectors.float(), codes)
    return scores if bias is None else scores + bias.float()[codes.clamp(min=0)].masked_fill(codes < 0, 0.0)


def barred_from(negatives: Negatives, examples: Examples, n_items: int, rows: slice = slice(None)) -> Tensor:
    """Return which negatives the queries `rows` do not compete with, `(M, C)`."""
    queries = len(examples.queries[rows])
    codes = negatives.items.expand(queries, -1) if negatives.shared else negatives.items[rows]
    barred = collides(codes, examples, negatives.mask, n_items, rows)
    if negatives.own is None or negatives.mask != "none":
        return barred
    numbers = torch.arange(len(examples.queries), device=codes.device)[rows]
    return barred | (negatives.own == numbers[:, None])


def weights_of_queries(examples: Examples) -> Tensor:
    """Return the weight of each query, `(M,)`."""
    return examples.queries.new_ones(len(examples.queries)) if examples.weights is None else examples.weights


def mean_of(losses: Tensor, examples: Examples, counted: Tensor | None = None) -> Tensor:
    """Return the mean loss of the positives, weighted as their queries are.

    Args:
        losses: `(P,)`.
        examples: The batch.
        counted: `(P,)` those with something to compete with; the others do not count.  All by default.
    """
    weights = torch.ones_like(losses)
    if examples.weights is not None:
        weights = examples.weights[queries_of_positives(examples)].to(losses.dtype)
    if counted is not None:
        weights = weights * counted
        losses = torch.where(counted, losses, 0.0)
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
