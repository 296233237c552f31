"""Negatives that the queries of a row share, as columns of a matrix of scores for each row."""

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.collisions import groups, queries_of_positives
from nextsession.nn.negatives import Negatives
from nextsession.nn.networks import Examples, Head
from nextsession.nn.ops.row_columns import each_once
from nextsession.nn.ops.row_contrasts import RowColumns, Rule
from nextsession.nn.ops.sampled_cross_entropy import Barred

_LaidOut = tuple[Tensor, list[int], Tensor, Tensor | None, Barred | Rule]
"""Codes, where those of each row begin, how often each was drawn, what is taken from its score, and what is barred."""


def row_columns(
    negatives: Negatives, of_rows: Tensor, correction: Tensor | None, examples: Examples, head: Head, n_items: int
) -> tuple[RowColumns, Tensor, Tensor | None]:
    """Lay the negatives of rows out, each item of a row once on the CPU.

    Args:
        negatives: What was drawn; no query has a column of its own.
        of_rows: `(M,)` the row of each query, never falling; `negatives.of_row`.
        correction: `(G, C)` what is taken from the scores, the same wherever the item is; None: nothing.
        examples: The batch.
        head: What items are met by.
        n_items: Number of items, V.

    Returns:
        The columns, the table of vectors that they point into, `(U, D)`, and its biases, `(U,)` or None.
    """
    lay_out = _each_once if negatives.items.device.type == "cpu" else _as_drawn
    codes, starts, counts, taken, barred = lay_out(negatives, of_rows, correction, examples, n_items)
    if head.sparse:  # a gradient of the rows that occur, not of the table
        present, codes = torch.unique(codes, return_inverse=True)
        table, bias = head.rows(present)
    else:
        table, bias = head.table()
    query_starts = _starts(of_rows, len(negatives.items)).tolist()
    return RowColumns(query_starts, codes, starts, counts, taken, barred), table, bias


def _each_once(
    negatives: Negatives, of_rows: Tensor, correction: Tensor | None, examples: Examples, n_items: int
) -> _LaidOut:
    """Lay out each item of a row once, by compiled loops."""
    of_positives = of_rows[queries_of_positives(examples)]
    given = (negatives.items.contiguous().numpy(), n_items, examples.positives.numpy(), of_positives.numpy())
    codes, starts, counts, places = (torch.from_numpy(x) for x in each_once(*given))
    taken = None if correction is None else _of_items(negatives.items, correction, n_items)[codes]
    return codes, starts.tolist(), counts, taken, _barred(negatives, examples, places)


def _as_drawn(
    negatives: Negatives, of_rows: Tensor, correction: Tensor | None, examples: Examples, n_items: int
) -> _LaidOut:
    """Lay items out as they were drawn, on any device."""
    drawn = negatives.items
    starts = list(range(0, drawn.numel() + 1, drawn.shape[1]))
    counts = torch.ones(drawn.numel(), device=drawn.device)
    taken = None if correction is None else correction.flatten()
    return drawn.flatten().clamp(min=0), starts, counts, taken, _rule(negatives, examples, of_rows)


def _of_items(drawn: Tensor, correction: Tensor, n_items: int) -> Tensor:
    """Return the correction of every item that was drawn, `(V,)`."""
    found = torch.zeros(n_items)
    some = drawn >= 0
    found[drawn[some]] = correction[some]
    return found


def _barred(negatives: Negatives, examples: Examples, places: Tensor) -> Barred:
    """Bar queries from the columns of positives, `places` `(P,)` within their rows, -1: not drawn."""
    if negatives.mask == "none":
        nothing = torch.zeros(0, dtype=torch.int64)
        return Barred(torch.zeros(len(examples.queries), dtype=torch.int64), torch.zeros(2, dtype=torch.int64), nothing)
    of_queries, of_positives = groups(examples, negatives.mask)
    some = places >= 0
    n_groups = int(of_queries.max()) + 1 if len(of_queries) else 0
    return Barred(of_queries, _starts(of_positives[some], n_groups), places[some])


def _rule(negatives: Negatives, examples: Examples, of_rows: Tensor) -> Rule:
    """Say the same by comparing items, on any device, block by block."""
    of_query = queries_of_positives(examples)
    query_starts = _starts(of_query, len(examples.queries)).tolist()
    row_starts = _starts(of_rows[of_query], len(negatives.items)).tolist()

    def rule(row: int, first: int, stop: int) -> Tensor:
        items = negatives.items[row]
        barred = (items < 0).expand(stop - first, -1)
        if negatives.mask == "none":
            return barred
        if negatives.mask == "user":
            return barred | torch.isin(items, examples.positives[row_starts[row] : row_starts[row + 1]])
        some = slice(query_starts[first], query_starts[stop])
        equal = (items == examples.positives[some, None]).to(torch.float32)
        hits = torch.zeros(barred.shape, device=items.device).index_add_(0, of_query[some] - first, equal)
        return barred | (hits > 0)

    return rule


def _starts(of_groups: Tensor, n_groups: int) -> Tensor:
    return functional.pad(torch.bincount(of_groups, minlength=n_groups).cumsum(0), (1, 0))
