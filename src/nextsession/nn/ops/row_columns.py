"""The items drawn for each row of a batch, each once with how often it was drawn."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled

Codes = NDArray[np.int64]


@compiled
def each_once(
    items: Codes, n_items: int, positives: Codes, rows: Codes
) -> tuple[Codes, Codes, NDArray[np.float32], Codes]:
    """Lay the distinct items of each row end to end.

    Args:
        items: `(G, C)` codes; a negative one is no item.
        n_items: Number of items.
        positives: `(P,)` codes.
        rows: `(P,)` the row of each, never falling.

    Returns:
        Codes `(K,)`; where those of each row begin, `(G + 1,)`; how often each was drawn, `(K,)`; and the
        place of each positive among the items of its row, `(P,)`, -1: not drawn.
    """
    codes, counts = np.empty(items.size, np.int64), np.empty(items.size, np.float32)
    starts = np.zeros(len(items) + 1, np.int64)
    places = np.full(len(positives), -1, np.int64)
    stamps, place_of = np.full(n_items, -1, np.int64), np.empty(n_items, np.int64)
    found = p = 0
    for g in range(len(items)):
        first = found
        for item in items[g]:
            if item < 0:
                continue
            if stamps[item] != g:
                stamps[item], place_of[item] = g, found - first
                codes[found], counts[found] = item, np.float32(0)
                found += 1
            counts[first + place_of[item]] += np.float32(1)
        while p < len(positives) and rows[p] == g:
            if stamps[positives[p]] == g:
                places[p] = place_of[positives[p]]
            p += 1
        starts[g + 1] = found
    return codes[:found], starts, counts[:found], places
