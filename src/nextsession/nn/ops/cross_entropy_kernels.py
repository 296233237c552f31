"""The softmax and its gradient, row by row, in vector registers."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled_fast
from nextsession.tiles import exponential

_BARRED = np.float32(-1e30)  # stands for a score of minus infinity, which sums of floats cannot carry
_OF_LOG = (np.float32(2 / 3), np.float32(2 / 5), np.float32(2 / 7), np.float32(2 / 9), np.float32(2 / 11))
_NOBODY = np.float32(-1e29)  # no score is as low


@compiled_fast
def highest_of(row: NDArray[np.float32], scratch: NDArray[np.float32]) -> np.float32:
    """Return the highest number of a row by halving it, which runs in vectors; a running maximum would not.

    Args:
        row: `(n,)`, at least one.
        scratch: At least `(n + 1) // 2`.
    """
    half, odd = len(row) // 2, len(row) % 2
    for j in range(half):
        a, b = row[j], row[half + j]
        scratch[j] = a if a > b else b
    if odd:
        scratch[half] = row[len(row) - 1]
    left = half + odd
    while left > 1:
        half, odd = left // 2, left % 2
        for j in range(half):
            a, b = scratch[j], scratch[half + j]
            scratch[j] = a if a > b else b
        if odd:
            scratch[half] = scratch[left - 1]
        left = half + odd
    return np.float32(scratch[0])


@compiled_fast
def exponentiate(row: NDArray[np.float32], highest: np.float32) -> np.float32:
    """Turn scores into `exp(score - highest)` in place, and return their sum."""
    total = np.float32(0)
    for j in range(len(row)):
        e = exponential(row[j] - highest)
        row[j] = e
        total += e
    return total


@compiled_fast
def _against(rivals: np.float32, found: np.float32) -> tuple[float, float]:
    """Return `log(1 + exp(rivals - found))` and its derivative."""
    margin = np.float64(rivals - found)
    decay = np.exp(-abs(margin))
    return max(margin, 0.0) + np.log1p(decay), (1.0 if margin > 0 else decay) / (1.0 + decay)


@compiled_fast
def softmax_gradients(
    scores: NDArray[np.float32],
    bias: NDArray[np.float32],
    targets: NDArray[np.int64],
    starts: NDArray[np.int64],
    weights: NDArray[np.float32],
    smoothing: float,
    others: bool,
) -> float:
    """Turn the scores of some queries into the gradient of their weighted loss, in place; return the loss.

    Args:
        scores: `(R, V)`, without the bias.
        bias: `(V,)`, or empty.
        targets: Items that the queries should have found.
        starts: `(R + 1,)` where the targets of each row begin.
        weights: `(R,)`.
        smoothing: Share of a target that is spread over all items.
        others: Do the other targets of a query stand in the denominator?
    """
    n_items = scores.shape[1]
    scratch = np.empty(n_items // 2 + 1, np.float32)
    loss = 0.0
    for i in range(len(scores)):
        row, own, weight = scores[i], targets[starts[i] : starts[i + 1]], weights[i]
        if len(own) == 0:
            row[:] = np.float32(0)
            continue
        if len(bias) > 0:
            for j in range(n_items):
                row[j] += bias[j]
        mean = np.float32(0)
        if smoothing > 0:
            for j in range(n_items):
                mean += row[j]
            mean /= np.float32(n_items)
        found = row[own]
        if not others:
            for target in own:
                row[target] = _BARRED
        highest = highest_of(row, scratch)
        total = exponentiate(row, highest)
        rivals = highest + np.float32(np.log(total))
        pushed = np.float32(0)
        for k in range(len(own)):
            if others:
                value, share = float(rivals - found[k]), 1.0
            else:
                value, share = _against(rivals, found[k])
            loss += weight * (value + smoothing * np.float64(found[k] - mean))
            found[k] = weight * share
            pushed += found[k]
        scale = pushed / total
        spread = np.float32(weight * len(own) * smoothing / n_items)
        for j in range(n_items):
            row[j] = row[j] * scale - spread
        if not others:
            for target in own:
                row[target] = -spread
        for k in range(len(own)):
            row[own[k]] += np.float32(weight * smoothing) - found[k]
    return loss


@compiled_fast
def sampled_gradients(
    scores: NDArray[np.float32],
    shift: NDArray[np.float32],
    groups: NDArray[np.int64],
    starts: NDArray[np.int64],
    barred: NDArray[np.int64],
    found: NDArray[np.float32],
    found_starts: NDArray[np.int64],
    weights: NDArray[np.float32],
    to_found: NDArray[np.float32],
) -> tuple[float, float]:
    """Turn scores of negatives into the gradient of the weighted loss of some queries, in place.

    Args:
        scores: `(R, C)`.
        shift: `(C,)` added to the scores first.
        groups: `(R,)` which columns a query does not compete with: those of this group.
        starts: `(G + 1,)` where the columns of each group begin.
        barred: The columns of the groups.
        found: Scores of the positives.
        found_starts: `(R + 1,)` where the positives of each row begin.
        weights: `(R,)`.
        to_found: Gradients of the positives, as many as `found`; written.

    Returns:
        The weighted loss, and the weight of the positives that have something to compete with.
    """
    scratch = np.empty(scores.shape[1] // 2 + 1, np.float32)
    loss = counted = 0.0
    for i in range(len(scores)):
        row, weight = scores[i], weights[i]
        own = barred[starts[groups[i]] : starts[groups[i] + 1]]
        for j in range(len(row)):
            row[j] += shift[j]
        for column in own:
            row[column] = _BARRED
        highest = highest_of(row, scratch)
        if highest < _NOBODY or found_starts[i] == found_starts[i + 1]:
            row[:] = np.float32(0)
            to_found[found_starts[i] : found_starts[i + 1]] = np.float32(0)
            continue
        total = exponentiate(row, highest)
        rivals = highest + np.float32(np.log(total))
        pushed = np.float32(0)
        for k in range(found_starts[i], found_starts[i + 1]):
            value, share = _against(rivals, found[k])
            loss += weight * value
            counted += weight
            to_found[k] = -weight * share
            pushed -= to_found[k]
        scale = pushed / total
        for j in range(len(row)):
            row[j] *= scale
        for column in own:
            row[column] = np.float32(0)
    return loss, counted


@compiled_fast
def binary_gradients(
    scores: NDArray[np.float32],
    counts: NDArray[np.float32],
    groups: NDArray[np.int64],
    starts: NDArray[np.int64],
    barred: NDArray[np.int64],
    weights: NDArray[np.float32],
    average: bool,
) -> float:
    """Turn scores of negatives into the gradient of the weighted `sum_c counts_c log(1 + exp(score_c))`, in place.

    The logarithm is that of `1 + e` for `e` from 0 to 1, by six terms of its series in `e / (2 + e)`: to 1e-7.

    Args:
        scores: `(R, C)`.
        counts: `(C,)` how often each was drawn.
        groups: `(R,)` which columns a query does not compete with: those of this group.
        starts: `(G + 1,)` where the columns of each group begin.
        barred: The columns of the groups.
        weights: `(R,)`.
        average: The mean over the negatives of a query instead of the sum?

    Returns:
        The weighted loss.
    """
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    a, b, c, d, f = _OF_LOG
    drawn = zero
    for j in range(len(counts)):
        drawn += counts[j]
    loss = 0.0
    for i in range(len(scores)):
        row, n = scores[i], drawn
        for column in barred[starts[groups[i]] : starts[groups[i] + 1]]:
            if row[column] > _NOBODY:
                row[column] = _BARRED
                n -= counts[column]
        weight = weights[i] / max(n, one) if average else weights[i]
        total = zero
        for j in range(len(row)):
            score = row[j]
            e = exponential(-abs(score))
            t = e / (two + e)
            s = t * t
            log = t * (two + s * (a + s * (b + s * (c + s * (d + s * f)))))
            total += counts[j] * (max(score, zero) + log)
            row[j] = weight * counts[j] * (one if score > zero else e) / (one + e)
        loss += weight * total
    return loss


@compiled_fast
def gather_scores(
    queries: NDArray[np.float32],
    table: NDArray[np.float32],
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
    first: int,
    stop: int,
) -> None:
    """Write the products of queries `first` to `stop` with each of their items, 0 for a negative number."""
    for i in range(first, stop):
        query = queries[i]
        for c in range(items.shape[1]):
            total = np.float32(0)
            if items[i, c] >= 0:
                row = table[items[i, c]]
                for d in range(len(query)):
                    total += query[d] * row[d]
            scores[i, c] = total


@compiled_fast
def scatter_gradients(
    gradients: NDArray[np.float32],
    queries: NDArray[np.float32],
    table: NDArray[np.float32],
    items: NDArray[np.int64],
    to_queries: NDArray[np.float32],
    to_table: NDArray[np.float32],
    first: int,
    stop: int,
) -> None:
    """Add what `gather_scores` of these gradients gives the dimensions `first` to `stop` of queries and table."""
    for i in range(len(queries)):
        query, to_query = queries[i, first:stop], to_queries[i, first:stop]
        for c in range(items.shape[1]):
            item, g = items[i, c], gradients[i, c]
            if item < 0 or g == 0:
                continue
            row, to_row = table[item, first:stop], to_table[item, first:stop]
            for d in range(len(query)):
                to_query[d] += g * row[d]
                to_row[d] += g * query[d]
