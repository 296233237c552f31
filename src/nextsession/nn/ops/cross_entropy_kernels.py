"""The softmax and its gradient, row by row, in vector registers."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled_fast
from nextsession.nn.ops.tiles import exponential

_BARRED = np.float32(-1e30)  # stands for a score of minus infinity, which sums of floats cannot carry
_NOBODY = np.float32(-1e29)  # no score is as low


@compiled_fast
def exponentiate(row: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """Turn scores into `exp(score - highest)` in place; return the highest and the sum."""
    highest = row[0]
    for j in range(len(row)):
        highest = row[j] if row[j] > highest else highest
    total = np.float32(0)
    for j in range(len(row)):
        e = exponential(row[j] - highest)
        row[j] = e
        total += e
    return highest, total


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
        highest, total = exponentiate(row)
        rivals = highest + np.float32(np.log(total))
        pushed = np.float32(0)
        for k in range(len(own)):
            margin = rivals - found[k]
            value = np.float64(margin)
            share = np.float32(1)
            if not others:
                decay = np.exp(-abs(value))
                share = np.float32((1.0 if value > 0 else decay) / (1.0 + decay))
                value = max(value, 0.0) + np.log1p(decay)
            loss += weight * (value + smoothing * np.float64(found[k] - mean))
            found[k] = weight * share
            pushed += weight * share
        scale = pushed / total
        if smoothing > 0:
            spread = np.float32(weight * len(own) * smoothing / n_items)
            for j in range(n_items):
                row[j] = row[j] * scale - spread
        else:
            spread = np.float32(0)
            for j in range(n_items):
                row[j] *= scale
        if not others:
            for target in own:
                row[target] = -spread
        for k in range(len(own)):
            row[own[k]] += np.float32(weight * smoothing) - found[k]
    return loss
