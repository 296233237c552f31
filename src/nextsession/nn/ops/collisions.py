"""Which drawn items are positives of the query that they were drawn for."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled


@compiled
def mark_collisions(
    items: NDArray[np.int64],
    groups: NDArray[np.int64],
    starts: NDArray[np.int64],
    positives: NDArray[np.int64],
    n_items: int,
    barred: NDArray[np.bool_],
    first: int,
    stop: int,
) -> None:
    """Mark the items of the queries `first` to `stop` that are positives of their group, or no items.

    Args:
        items: `(M, C)` codes; a negative one is no item.
        groups: `(M,)` group of each query; fastest where queries of a group follow one another.
        starts: `(G + 1,)` where the positives of each group begin.
        positives: Codes, group by group.
        n_items: Number of items.
        barred: `(M, C)`, written.
        first: The first of the queries.
        stop: Where they end.
    """
    stamps = np.full(n_items, -1, np.int64)  # the group that an item was last found to be a positive of
    stamped = -1
    for i in range(first, stop):
        group = groups[i]
        if group != stamped:
            stamped = group
            for k in range(starts[group], starts[group + 1]):
                stamps[positives[k]] = group
        for c in range(items.shape[1]):
            item = items[i, c]
            barred[i, c] = item < 0 or stamps[item] == group
