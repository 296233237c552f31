"""Negatives that all queries share, as columns of a matrix of scores: each item once, and what is barred for whom."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.collisions import groups
from nextsession.nn.contrasts import barred_from
from nextsession.nn.negatives import ItemStatistics, Negatives
from nextsession.nn.networks import Examples
from nextsession.nn.ops.sampled_cross_entropy import Barred, Rule


@dataclass(frozen=True, eq=False)
class Columns:
    """Items to compete with."""

    items: Tensor  # (C,) codes
    shift: Tensor  # (C,) float32 added to their scores
    barred: Barred | Rule


def columns_of(negatives: Negatives, correction: Tensor | None, examples: Examples, items: ItemStatistics) -> Columns:
    """Lay shared negatives out.

    Where collisions are masked, an item drawn `k` times has one column with `log k` added: they are
    masked together, so the sum of exponentials is the same, and the positives of a batch are few items.
    On CUDA columns stay as they were drawn: to count them would wait for the device.

    Args:
        negatives: What was drawn.
        correction: `(C,)` what is taken from the scores; None: nothing.
        examples: The batch.
        items: Their number.
    """
    drawn = negatives.items
    shift = torch.zeros(drawn.shape, device=drawn.device) if correction is None else -correction
    if drawn.device.type != "cpu":
        n_items = items.n_items
        return Columns(drawn, shift, lambda first, stop: barred_from(negatives, examples, n_items, slice(first, stop)))
    if negatives.mask == "none":
        return Columns(drawn, shift, _own_columns(negatives, examples))
    once, places = torch.unique(drawn, return_inverse=True)
    shift = torch.zeros(len(once)).index_add_(0, places, shift.exp()).log()
    of_queries, of_positives = groups(examples, negatives.mask)
    keys = torch.unique(of_positives * items.n_items + examples.positives)
    codes = keys % items.n_items
    column = torch.searchsorted(once, codes).clamp_(max=max(len(once) - 1, 0))
    drawn_too = once[column] == codes if len(once) else torch.zeros_like(codes, dtype=torch.bool)
    n_groups = int(of_queries.max()) + 1 if len(of_queries) else 0
    starts = _starts((keys // items.n_items)[drawn_too], n_groups)
    return Columns(once, shift, Barred(of_queries, starts, column[drawn_too]))


def _own_columns(negatives: Negatives, examples: Examples) -> Barred:
    """Bar every query from the columns that are its own positives by construction, and from nothing else."""
    queries = torch.arange(len(examples.queries))
    if negatives.own is None:
        return Barred(torch.zeros_like(queries), torch.zeros(2, dtype=torch.int64), queries[:0])
    own = negatives.own
    order = torch.argsort(own, stable=True)
    order = order[own[order] >= 0]
    return Barred(queries, _starts(own[order], len(queries)), order)


def _starts(of_groups: Tensor, n_groups: int) -> Tensor:
    return functional.pad(torch.bincount(of_groups, minlength=n_groups).cumsum(0), (1, 0))
