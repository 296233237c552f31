"""The losses of GRU4Rec and their gradients, summed over distinct items.

The columns of the score matrix are the targets of the batch and the extra samples, and hold popular
items many times.  Equal items have equal scores, so everything is computed once an item and counted
as often as it occurs: the same sums, on fewer columns.

Scores stand as `(U, B)`: a row an item, a column a session, so that loops over sessions become
vectors.  Every function turns `scores` into the gradient in place and returns the sum of the losses.
"""

import numpy as np
from numpy.typing import NDArray

from nextsession.nn.gru4rec_math import in_order, sigmoid
from nextsession.tiles import exponential as exp

CROSS_ENTROPY, BPR_MAX, BPR, TOP1, TOP1_MAX = 0, 1, 2, 3, 4

LOSSES = {"cross-entropy": CROSS_ENTROPY, "bpr-max": BPR_MAX, "bpr": BPR, "top1": TOP1, "top1-max": TOP1_MAX}
"""The numbers of the losses in compiled code."""

LINEAR, ELU, TANH = 0, 1, 2

ACTIVATIONS = {"linear": LINEAR, "elu": ELU, "tanh": TANH}
"""The numbers of the final activations in compiled code."""

_TINY = np.float32(1e-24)  # what keeps a logarithm finite


@in_order
def cross_entropy(
    scores: NDArray[np.float32],
    n_slots: int,
    n_rows: int,
    lanes: int,
    positive: NDArray[np.int64],
    weights: NDArray[np.float32],
    target_weights: NDArray[np.float32],
) -> float:
    """Turn scores into the gradient of `-ln(softmax of the positive + 1e-24)`; return the sum of the losses.

    Args:
        scores: `(U, B)`.
        n_slots: Distinct items.
        n_rows: Sessions; columns from there to `lanes` hold nothing and become 0.
        lanes: Columns to work on.
        positive: `(B,)` the row of the target of each session.
        weights: `(U,)` sum of the weights of the columns that hold the item; a correction of the scores by
            `-c` is a weight of `e^-c`.
        target_weights: `(U,)` weight of a column that holds the item as a target.
    """
    highest = np.full(lanes, np.float32(-np.inf))
    total, loss = np.zeros(lanes, np.float32), 0.0
    for u in range(n_slots):
        row = scores[u]
        for b in range(lanes):
            highest[b] = max(highest[b], row[b])
    for u in range(n_slots):
        row, weight = scores[u], weights[u]
        for b in range(lanes):
            row[b] = weight * exp(row[b] - highest[b])
            total[b] += row[b]
    own = np.zeros(lanes, np.float32)
    for b in range(n_rows):
        u = positive[b]
        own[b] = scores[u, b] * (target_weights[u] / weights[u]) / total[b]  # the share of the one column
        loss -= np.log(own[b] + _TINY)
        own[b] = own[b] / (own[b] + _TINY)
        total[b] = own[b] / total[b]
    total[n_rows:] = 0
    for u in range(n_slots):
        row = scores[u]
        for b in range(lanes):
            row[b] *= total[b]
    for b in range(n_rows):
        scores[positive[b], b] -= own[b]
    return loss


@in_order
def pairwise(
    scores: NDArray[np.float32],
    n_slots: int,
    n_rows: int,
    lanes: int,
    positive: NDArray[np.int64],
    counts: NDArray[np.float32],
    n_columns: int,
    kind: int,
    bpreg: float,
    activation: int,
    elu: float,
) -> float:
    """Turn scores into the gradient of a pairwise loss; return the sum of the losses.

    Args:
        scores: `(U, B)`, before the final activation.
        n_slots: Distinct items.
        n_rows: Sessions; columns from there to `lanes` hold nothing and become 0.
        lanes: Columns to work on.
        positive: `(B,)` the row of the target of each session.
        counts: `(U,)` how many columns hold the item.
        n_columns: Their sum.
        kind: One of `LOSSES`.
        bpreg: Weight of the squared scores of the negatives in BPR-max.
        activation: One of `ACTIVATIONS`.
        elu: The scale of the exponential part of `ELU`.
    """
    one, alpha = np.float32(1), np.float32(elu)
    if activation == ELU:
        for u in range(n_slots):
            for b in range(lanes):
                x = scores[u, b]
                scores[u, b] = x if x > 0 else alpha * (exp(x) - one)
    elif activation == TANH:
        for u in range(n_slots):
            for b in range(lanes):
                scores[u, b] = one - np.float32(2) / (one + exp(scores[u, b] + scores[u, b]))
    target = np.zeros(lanes, np.float32)
    for b in range(n_rows):
        target[b] = scores[positive[b], b]
    gradient = np.empty((n_slots, lanes), np.float32)
    if kind in (BPR_MAX, TOP1_MAX):
        loss = _of_hard_negatives(scores, gradient, positive, counts, target, n_rows, kind == BPR_MAX, bpreg)
    else:
        loss = _of_all_negatives(scores, gradient, positive, counts, target, n_rows, n_columns, kind == BPR)
    for u in range(n_slots):
        for b in range(lanes):
            x, slope = scores[u, b], one
            if activation == ELU:
                slope = one if x > 0 else x + alpha
            elif activation == TANH:
                slope = one - x * x
            scores[u, b] = gradient[u, b] * slope
    scores[:n_slots, n_rows:lanes] = 0
    return loss


@in_order
def _of_hard_negatives(
    scores: NDArray[np.float32],
    gradient: NDArray[np.float32],
    positive: NDArray[np.int64],
    counts: NDArray[np.float32],
    target: NDArray[np.float32],
    n_rows: int,
    bpr: bool,
    bpreg: float,
) -> float:
    """Fill the gradient of BPR-max or TOP1-max: negatives weigh by their softmax among the negatives."""
    n_slots, lanes = gradient.shape
    one, two, reg, loss = np.float32(1), np.float32(2), np.float32(bpreg), 0.0
    highest, total = np.full(lanes, np.float32(-np.inf)), np.zeros(lanes, np.float32)
    for u in range(n_slots):
        for b in range(lanes):
            highest[b] = max(highest[b], scores[u, b])
    for u in range(n_slots):
        for b in range(lanes):
            gradient[u, b] = counts[u] * exp(scores[u, b] - highest[b])
    for b in range(n_rows):  # the positive itself is no negative
        u = positive[b]
        gradient[u, b] = (counts[u] - one) * exp(scores[u, b] - highest[b])
    for u in range(n_slots):
        for b in range(lanes):
            total[b] += gradient[u, b]
    for b in range(lanes):
        total[b] = one / total[b] if total[b] > 0 else np.float32(0)
    first, second, slope = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    for u in range(n_slots):
        for b in range(lanes):
            x, share = scores[u, b], gradient[u, b] * total[b]
            beaten = sigmoid(target[b] - x) if bpr else sigmoid(x - target[b])
            square = x * x if bpr else sigmoid(x * x)
            gradient[u, b] = share
            first[b] += share * beaten
            second[b] += share * square
            slope[b] += share * beaten * (one - beaten)
    for b in range(n_rows):
        if bpr:
            loss += -np.log(first[b] + _TINY) + reg * second[b]
        else:
            loss += first[b] + second[b]
    for u in range(n_slots):
        for b in range(lanes):
            x, share = scores[u, b], gradient[u, b]
            if bpr:
                beaten = sigmoid(target[b] - x)
                pull = (beaten - first[b] - beaten * (one - beaten)) / (first[b] + _TINY)
                gradient[u, b] = share * (reg * (x * x - second[b] + two * x) - pull)
            else:
                beaten, square = sigmoid(x - target[b]), sigmoid(x * x)
                steep = beaten * (one - beaten) + two * x * square * (one - square)
                gradient[u, b] = share * (beaten + square - first[b] - second[b] + steep)
    for b in range(n_rows):
        gradient[positive[b], b] -= slope[b] / (first[b] + _TINY) if bpr else slope[b]
    return loss


@in_order
def _of_all_negatives(
    scores: NDArray[np.float32],
    gradient: NDArray[np.float32],
    positive: NDArray[np.int64],
    counts: NDArray[np.float32],
    target: NDArray[np.float32],
    n_rows: int,
    n_columns: int,
    bpr: bool,
) -> float:
    """Fill the gradient of BPR or TOP1: the mean over all columns, the positive's own among them."""
    n_slots, lanes = gradient.shape
    one, two, loss = np.float32(1), np.float32(2), 0.0
    summed, slope = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    for u in range(n_slots):
        share = counts[u] / np.float32(n_columns)
        for b in range(lanes):
            x = scores[u, b]
            beaten = sigmoid(x - target[b])
            if bpr:
                apart = abs(x - target[b])  # -ln sigmoid(t - x) = max(x - t, 0) + ln(1 + e^-|x - t|)
                summed[b] += share * (max(x - target[b], np.float32(0)) + np.log1p(exp(-apart)))
                gradient[u, b] = share * beaten
                slope[b] += share * beaten
            else:
                square = sigmoid(x * x)
                summed[b] += share * (beaten + square)
                gradient[u, b] = share * (beaten * (one - beaten) + two * x * square * (one - square))
                slope[b] += share * beaten * (one - beaten)
    for b in range(n_rows):
        loss += summed[b]
        gradient[positive[b], b] -= slope[b]
        if not bpr:
            square = sigmoid(target[b] * target[b])
            loss -= square / np.float32(n_columns)
            gradient[positive[b], b] -= two * target[b] * square * (one - square) / np.float32(n_columns)
    return loss
