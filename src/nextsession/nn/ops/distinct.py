"""Items drawn without replacement for each of some rows."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nextsession.compiled import compiled
from nextsession.nn.ops.work import seed
from nextsession.tiles import bits_at, key_of

Codes = NDArray[np.int64]


def distinct_items(pool: Tensor, n: int, n_items: int, count: int, spared: Tensor, of_rows: Tensor) -> Tensor:
    """Draw `n` different items for each of `count` rows.

    Args:
        pool: Codes to draw from, all different.
        n: Items drawn for a row.
        n_items: Number of items; codes are below it.
        count: Number of rows.
        spared: `(S,)` items that are not drawn for a row.
        of_rows: `(S,)` that row, never falling.

    Returns:
        `(count, n)` codes; -1 at the end where a row had no more to draw.
    """
    if pool.device.type != "cpu":
        return distinct_items_plainly(pool, n, n_items, count, spared, of_rows)
    starts = functional.pad(torch.bincount(of_rows, minlength=count).cumsum(0), (1, 0))
    drawn = _draw(pool.clone().numpy(), n, n_items, starts.numpy(), spared.numpy(), seed())
    return torch.from_numpy(drawn)


def distinct_items_plainly(pool: Tensor, n: int, n_items: int, count: int, spared: Tensor, of_rows: Tensor) -> Tensor:
    """Do what `distinct_items` does on any device: each row takes the items of the lowest of random numbers."""
    taken, at_once = min(n, len(pool)), max((64 << 20) // max(n_items, 1), 1)
    drawn = torch.full((count, n), -1, device=pool.device)
    for first in range(0, count, at_once):
        size = min(at_once, count - first)
        numbers = torch.rand((size, n_items), device=pool.device)
        inside = (of_rows >= first) & (of_rows < first + size)
        numbers.view(-1).index_fill_(0, ((of_rows - first) * n_items + spared)[inside], 2.0)
        lowest, places = numbers[:, pool].topk(taken, largest=False)
        drawn[first : first + size, :taken] = torch.where(lowest < 2, pool[places], -1)
    return drawn


@compiled
def _draw(pool: Codes, n: int, n_items: int, starts: Codes, spared: Codes, seed: int) -> Codes:
    """Draw items without replacement for each of some rows.

    The first places of a shuffle (Fisher and Yates) are a sample, and a shuffle may begin from any order: that
    which the row before has left.  Rows cost what they draw, whatever the number of items.
    The pool is shuffled; spared items lie row by row, from `starts` `(R + 1,)` on.
    """
    rows = len(starts) - 1
    drawn = np.full((rows, n), -1, np.int64)
    stamps = np.full(n_items, -1, np.int64)
    for r in range(rows):
        for k in range(starts[r], starts[r + 1]):
            stamps[spared[k]] = r
        key = key_of(seed, r)
        found = place = 0
        while found < n and place < len(pool):
            left = np.uint64(len(pool) - place)
            other = place + np.int64((np.uint64(bits_at(key, np.uint32(place))) * left) >> np.uint64(32))
            item = pool[other]
            pool[other] = pool[place]
            pool[place] = item
            place += 1
            if stamps[item] != r:
                drawn[r, found] = item
                found += 1
    return drawn
