"""Selection: the loops that find the best items of a row of scores and count what beats a target.

Compiled, over plain arrays; `nextsession.scores` says what they mean, and its tests hold them to a sort.
"""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.tiles import LANES, multiply, scratch

_RUN = 32  # items looked at together when lists are made
_ROWS = 384  # vectors that are multiplied together: they and their products stay in the cache


@compiled
def place_in_ties(code: np.uint32) -> np.uint32:
    """Return the place of a code among all codes of 32 bits, as `scores.tie_key` says."""
    x = np.uint32(code)
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x85EBCA6B))
    x ^= x >> np.uint32(13)
    x = np.uint32(x * np.uint32(0xC2B2AE35))
    x ^= x >> np.uint32(16)
    return x


@compiled
def place_in_ties_of_all(n_items: int) -> NDArray[np.uint32]:
    """Return that place of the codes `0..n_items`, `(n_items,)`."""
    keys = np.empty(n_items, np.uint32)
    for code in range(n_items):
        keys[code] = place_in_ties(np.uint32(code))
    return keys


@compiled
def _before(score: float, code: int, other_score: float, other_code: int) -> bool:
    """Say whether the first comes before the second in a list."""
    if score != other_score:
        return score > other_score
    return bool(place_in_ties(np.uint32(code)) < place_in_ties(np.uint32(other_code)))


@compiled
def _offer(items: NDArray[np.int32], scores: NDArray[np.float32], size: int, k: int, code: int, score: float) -> int:
    """Offer an item to a heap of the best `k` whose worst is at the root; return the new size."""
    if size < k:
        place = size
        size += 1
        while place > 0:
            parent = (place - 1) // 2
            if not _before(scores[parent], items[parent], score, code):
                break
            scores[place], items[place] = scores[parent], items[parent]
            place = parent
        scores[place], items[place] = score, code
        return size
    if not _before(score, code, scores[0], items[0]):
        return size
    _sink(items, scores, size, code, score)
    return size


@compiled
def _sink(items: NDArray[np.int32], scores: NDArray[np.float32], size: int, code: int, score: float) -> None:
    """Put an item in place of the root and let it sink."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not _before(score, code, scores[child], items[child]):
            break
        scores[place], items[place] = scores[child], items[child]
        place = child
    scores[place], items[place] = score, code


@compiled
def _unheap(items: NDArray[np.int32], scores: NDArray[np.float32], size: int) -> None:
    """Turn the heap into a list, best first."""
    while size > 1:
        size -= 1
        score, code = scores[size], items[size]
        scores[size], items[size] = scores[0], items[0]
        _sink(items, scores, size, code, score)


@compiled
def least_of_best(row: NDArray[np.float32], k: int, best: NDArray[np.float32]) -> np.float32:
    """Return a score that at least `k` items of the row reach, and not many more.

    The row is dealt out to `len(best)` hands; where `k` hands hold an item that good, so does the
    row.  Of `2 k` hands the `k`-th best lets about 1.4 `k` items pass.
    """
    hands = len(best)
    if len(row) < 2 * hands:
        return np.float32(-np.inf)
    best[:] = -np.inf
    for start in range(0, len(row), hands):
        for i in range(min(hands, len(row) - start)):
            best[i] = row[start + i] if row[start + i] > best[i] else best[i]
    return np.float32(np.partition(best, hands - k)[hands - k])


@compiled
def answers_of_dense(
    values: NDArray[np.float32],
    k: int,
    target_offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    barred_offsets: NDArray[np.int64],
    barred: NDArray[np.int32],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], bool]:
    """Answer from a matrix `(B, V)`, which is changed: barred items lose their score.

    Returns:
        The best `k` codes and their scores `(B, k)`, how many items beat and equal each target
        `(T,)`, and False if a score is NaN (then the rest means nothing).
    """
    n, width = values.shape
    items = np.full((n, k), -1, np.int32)
    scores = np.full((n, k), -np.inf, np.float32)
    greater = np.full(len(targets), width, np.int64)
    equal = np.zeros(len(targets), np.int64)
    nothing = np.float32(-np.inf)
    best = np.empty(2 * k, np.float32)
    for b in range(n):
        row = values[b]
        wrong = 0
        for i in range(width):
            wrong += row[i] != row[i]
        if wrong:
            return items, scores, greater, equal, False
        for e in range(barred_offsets[b], barred_offsets[b + 1]):
            if barred[e] >= 0:
                row[barred[e]] = nothing
        if len(allowed):
            for i in range(width):
                if not allowed[i]:
                    row[i] = nothing
        for t in range(target_offsets[b], target_offsets[b + 1]):
            if targets[t] < 0 or row[targets[t]] == nothing:
                continue
            own = row[targets[t]]
            above, same = np.int32(0), np.int32(0)
            for i in range(width):
                above += row[i] > own
                same += row[i] == own
            greater[t] = above
            equal[t] = same
        if k:
            size = 0
            least = least_of_best(row, k, best)
            for start in range(0, width, _RUN):
                stop = min(start + _RUN, width)
                worthy = np.int32(0)
                for i in range(start, stop):
                    worthy += row[i] >= least
                if worthy:
                    for i in range(start, stop):
                        if row[i] >= least and row[i] > nothing:
                            size = _offer(items[b], scores[b], size, k, i, row[i])
            _unheap(items[b], scores[b], size)
    return items, scores, greater, equal, True


@compiled
def among(codes: NDArray[np.int32], code: int) -> bool:
    """Say whether a code is among sorted codes."""
    low, high = 0, len(codes)
    while low < high:
        middle = (low + high) // 2
        if codes[middle] < code:
            low = middle + 1
        else:
            high = middle
    return bool(low < len(codes) and codes[low] == code)


@compiled_fast
def _products_of_two(
    vectors: NDArray[np.float32],
    start: int,
    rows: int,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the products of some vectors with two queries, side by side: vectors are read once for both."""
    for i in range(rows):
        row, first, second = vectors[start + i], np.float32(0), np.float32(0)
        for d in range(len(row)):
            first += row[d] * one[d]
            second += row[d] * other[d]
        out[2 * i], out[2 * i + 1] = first, second


@compiled_fast
def _products_of_four(
    vectors: NDArray[np.float32],
    start: int,
    rows: int,
    one: NDArray[np.float32],
    two: NDArray[np.float32],
    three: NDArray[np.float32],
    four: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the products of some vectors with four queries, side by side."""
    for i in range(rows):
        row, a, b, c, e = vectors[start + i], np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for d in range(len(row)):
            a += row[d] * one[d]
            b += row[d] * two[d]
            c += row[d] * three[d]
            e += row[d] * four[d]
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = a, b, c, e


@compiled
def best_products(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    barred_offsets: NDArray[np.int64],
    barred: NDArray[np.int32],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32], bool]:
    """Return the best `k` products of queries `(B, D)` with vectors `(V, D)`, without ever holding all of them.

    Vectors are read once for all queries, some at a time: they and their products stay in the cache.  Few
    queries are multiplied two or four at a time, more of them sixteen at a time.

    Returns:
        Codes and scores `(B, k)`, and False if a score is NaN (then the rest means nothing).
    """
    n, width = queries.shape
    items = np.full((n, k), -1, np.int32)
    scores = np.full((n, k), -np.inf, np.float32)
    if not k:
        return items, scores, True
    sizes, not_listed = np.zeros(n, np.int64), barred.copy()
    for b in range(n):
        not_listed[barred_offsets[b] : barred_offsets[b + 1]].sort()
    lanes = 2 if n <= 2 else 4 if n <= 4 else LANES
    wide = -(-n // LANES) * LANES
    across = np.zeros(width * wide if lanes == LANES else 0, np.float32)
    for d in range(width if lanes == LANES else 0):
        for b in range(n):
            across[d * wide + b] = queries[b, d]
    flat, products = vectors.reshape(-1), scratch(_ROWS * LANES)
    least = np.full(-(-n // lanes) * LANES, np.inf, np.float32)  # what each of a line of products must reach
    for b in range(n):
        for at in range(b % lanes, LANES, lanes):
            least[b // lanes * LANES + at] = -np.inf
    for start in range(0, len(vectors), _ROWS):
        rows = min(_ROWS, len(vectors) - start)
        for first in range(0, n, lanes):
            last, own = min(first + lanes, n), least[first // lanes * LANES :][:LANES]
            if lanes == 2:
                _products_of_two(vectors, start, rows, queries[first], queries[last - 1], products)
            elif lanes == 4:
                q = queries[first : first + 3]
                _products_of_four(vectors, start, rows, q[0], q[1], q[2], queries[last - 1], products)
            else:
                multiply(
                    flat, start * width, width, 1, across, first, wide, products, 0, LANES, rows, LANES, width, True
                )
            for line in range(0, rows * lanes, LANES):
                worthy = np.int32(0)
                for at in range(LANES):
                    worthy += not products[line + at] < own[at]
                if not worthy:
                    continue
                for at in range(line, min(line + LANES, rows * lanes)):
                    b, code, score = first + at % lanes, start + at // lanes, products[at]
                    if b >= n or score < own[at - line]:
                        continue
                    if score != score:
                        return items, scores, False
                    if score == -np.inf or (len(allowed) and not allowed[code]):
                        continue
                    if among(not_listed[barred_offsets[b] : barred_offsets[b + 1]], code):
                        continue
                    sizes[b] = _offer(items[b], scores[b], sizes[b], k, code, score)
                    if sizes[b] == k:
                        own[b - first :: lanes] = scores[b, 0]
    for b in range(n):
        _unheap(items[b], scores[b], sizes[b])
    return items, scores, True


@compiled
def answers_of_sparse(
    offsets: NDArray[np.int64],
    codes: NDArray[np.int32],
    values: NDArray[np.float32],
    n_items: int,
    k: int,
    target_offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    barred_offsets: NDArray[np.int64],
    barred: NDArray[np.int32],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], bool]:
    """Answer from candidates alone, those of question `b` at `offsets[b]..offsets[b + 1]`.

    Returns:
        What `answers_of_dense` returns.
    """
    n = len(offsets) - 1
    items = np.full((n, k), -1, np.int32)
    scores = np.full((n, k), -np.inf, np.float32)
    greater = np.full(len(targets), n_items, np.int64)
    equal = np.zeros(len(targets), np.int64)
    nothing = np.float32(-np.inf)
    limited = len(barred) > 0 and len(targets) > 0
    out = np.zeros(n_items if limited else 0, np.bool_)
    for b in range(n):
        a, z = offsets[b], offsets[b + 1]
        not_listed = np.sort(barred[barred_offsets[b] : barred_offsets[b + 1]]) if k else barred[:0]
        if limited:
            for e in range(barred_offsets[b], barred_offsets[b + 1]):
                if barred[e] >= 0:
                    out[barred[e]] = True
        size = 0
        for i in range(a, z):
            score, code = values[i], codes[i]
            if score != score:
                return items, scores, greater, equal, False
            if score == nothing or not k or (size == k and score < scores[b, 0]):
                continue
            if (len(allowed) and not allowed[code]) or among(not_listed, code):
                continue
            size = _offer(items[b], scores[b], size, k, code, score)
        _unheap(items[b], scores[b], size)
        for t in range(target_offsets[b], target_offsets[b + 1]):
            target = targets[t]
            if target < 0 or (limited and out[target]) or (len(allowed) and not allowed[target]):
                continue
            own = nothing
            for i in range(a, z):
                if codes[i] == target:
                    own = values[i]
            if own == nothing:
                continue
            above, same = 0, 0
            for i in range(a, z):
                if (limited and out[codes[i]]) or (len(allowed) and not allowed[codes[i]]):
                    continue
                above += values[i] > own
                same += values[i] == own
            greater[t] = above
            equal[t] = same
        if limited:
            for e in range(barred_offsets[b], barred_offsets[b + 1]):
                if barred[e] >= 0:
                    out[barred[e]] = False
    return items, scores, greater, equal, True


@compiled
def scores_in_sparse(
    offsets: NDArray[np.int64],
    codes: NDArray[np.int32],
    values: NDArray[np.float32],
    wanted_offsets: NDArray[np.int64],
    wanted: NDArray[np.int32],
    ends: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the scores of wanted items among the candidates, `(T,)`; `-inf` where there is none.

    `ends` is scratch, `(V,)` zeros: of each item one past its last candidate so far.
    """
    found = np.full(len(wanted), -np.inf, np.float32)
    for b in range(len(offsets) - 1):
        for i in range(offsets[b], offsets[b + 1]):
            ends[codes[i]] = i + 1
        for t in range(wanted_offsets[b], wanted_offsets[b + 1]):
            if wanted[t] >= 0 and ends[wanted[t]] > offsets[b]:
                found[t] = values[ends[wanted[t]] - 1]
    return found
