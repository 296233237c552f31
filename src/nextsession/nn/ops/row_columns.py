"""Loops over the items drawn for the rows of a batch: distinct ones, and each once with how often it was drawn."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.nn.ops.tiles import bits_at, key_of

Codes = NDArray[np.int64]


@compiled
def draw_distinct(pool: Codes, n: int, n_items: int, starts: Codes, spared: Codes, seed: int) -> Codes:
    """Draw items without replacement for each of some rows.

    The first places of a shuffle (Fisher and Yates) are a sample, and a shuffle may begin from any order: that
    which the row before has left.  Rows cost what they draw, whatever the number of items.

    Args:
        pool: Codes to draw from, all different; shuffled.
        n: Items drawn for each row.
        n_items: Number of items; codes are below it.
        starts: `(R + 1,)` where the spared items of each row begin.
        spared: Codes that are not drawn for a row.
        seed: Of the draws.

    Returns:
        `(R, n)` codes; -1 at the end where a row had no more to draw.
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
