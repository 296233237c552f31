"""What a query does not compete with, where it is drawn as a negative: positives of its own."""

from math import isqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.networks import Examples
from nextsession.nn.ops.collisions import mark_collisions
from nextsession.nn.ops.work import in_parts

Mask = Literal["none", "positives", "user"]
"""What a query does not compete with: only its own column of an in-batch sample, any of its
positives, or any positive of the same user in the batch."""


def queries_of_positives(examples: Examples) -> Tensor:
    """Return the query of each positive, `(P,)`."""
    if examples.of_query is not None:
        return examples.of_query
    return torch.arange(len(examples.positives), device=examples.positives.device)


def groups(examples: Examples, mask: Mask) -> tuple[Tensor, Tensor]:
    """Return who shares what they do not compete with: the group of each query, `(M,)`, and of each positive."""
    of_query = queries_of_positives(examples)
    if mask == "user" and examples.users is not None:
        return examples.users, examples.users[of_query]
    return torch.arange(len(examples.queries), device=of_query.device), of_query


def collides(codes: Tensor, examples: Examples, mask: Mask, n_items: int, rows: slice = slice(None)) -> Tensor:
    """Return which of the items `(M, C)` drawn for some queries are positives that they must not compete with.

    Args:
        codes: Items of the queries `rows`; -1 (no item) always collides.
        examples: The batch.
        mask: What collides; "none": nothing but -1.
        n_items: Number of items, V.
        rows: The queries, all by default.
    """
    if mask == "none" or not len(examples):
        return codes < 0
    of_rows, of_positives = groups(examples, mask)
    if codes.device.type == "cpu":
        order = torch.argsort(of_positives, stable=True)
        n_groups = int(torch.maximum(of_rows.max(), of_positives.max())) + 1
        starts = functional.pad(torch.bincount(of_positives, minlength=n_groups).cumsum(0), (1, 0))
        return _stamped(codes.contiguous(), of_rows[rows], starts, examples.positives[order], n_items)
    return collides_plainly(codes, examples, mask, n_items, rows)


def collides_plainly(codes: Tensor, examples: Examples, mask: Mask, n_items: int, rows: slice = slice(None)) -> Tensor:
    """Do what `collides` does by PyTorch's functions, on any device."""
    if mask == "none":
        return codes < 0
    of_rows, of_positives = groups(examples, mask)
    taken = (of_positives * n_items + examples.positives).sort().values
    keys = of_rows[rows, None] * n_items + codes
    places = torch.searchsorted(taken, keys).clamp_(max=len(taken) - 1)
    return (taken[places] == keys) | (codes < 0)


def _stamped(codes: Tensor, of_rows: Tensor, starts: Tensor, positives: Tensor, n_items: int) -> Tensor:
    """Do what `collides` does by compiled loops over `(M, C)` items; positives lie group by group."""
    barred = torch.empty(codes.shape, dtype=torch.bool)
    c, g, s, p, b = (x.numpy() for x in (codes, of_rows, starts, positives, barred))
    cost = isqrt(codes.shape[1]) if len(codes) else 0
    in_parts(np.arange(len(c) + 1) * cost, lambda part: mark_collisions(c, g, s, p, n_items, b, part[0], part[1]))
    return barred
