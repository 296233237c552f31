"""Sigmoids and random numbers in loops that become vectors, for the training loop of GRU4Rec.

Random numbers are hashes of a counter, so any one can be had without the others.
"""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_allowing
from nextsession.tiles import exponential

in_order = compiled_allowing()
"""`compiled` for loops that become vectors: division never raises, and sums keep their order, so that results are
the same bits wherever and however they are compiled."""

_ONE = np.float32(1)


@in_order
def sigmoid(x: np.float32) -> np.float32:
    """Return `1 / (1 + e^-x)`."""
    return _ONE / (_ONE + exponential(-x))


@in_order
def tanh(x: np.float32) -> np.float32:
    """Return the hyperbolic tangent, within 3e-7."""
    return np.float32(2) / (_ONE + exponential(np.float32(-2) * x)) - _ONE


@compiled
def hash_32(x: np.uint32) -> np.uint32:
    """Return 32 bits that look random for each different `x`: two rounds of multiply and shift."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def hash_64(x: np.uint64) -> np.uint64:
    """Return 64 bits that look random for each different `x`: the finaliser of SplitMix64."""
    x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@in_order
def drop(values: NDArray[np.float32], width: int, p: float, key: np.uint32) -> None:
    """Set each of `values[:, :width]` to 0 with probability `p`, divide the others by `1 - p`.

    What is dropped depends on `p`, `key` and the place alone: the same call drops gradients alike.
    """
    never = np.uint32(min(p * 4294967296.0, 4294967295.0))
    scale = np.float32(1 / (1 - p))
    for row in range(len(values)):
        at = np.uint32(key + np.uint32(row) * np.uint32(0x9E3779B1))
        for j in range(width):
            kept = hash_32(np.uint32(at + np.uint32(j))) >= never
            values[row, j] *= scale if kept else np.float32(0)


@compiled
def alias_table(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Prepare drawing `i` with probability `weights[i] / sum` in constant time (Vose 1991).

    Returns:
        `(V,)` the chance that a draw which lands on `i` stays there, and `(V,)` where it goes else.
    """
    n = len(weights)
    stay = weights * (n / weights.sum())
    other = np.arange(n).astype(np.int32)
    small, large = np.empty(n, np.int32), np.empty(n, np.int32)
    n_small, n_large = 0, 0
    for i in range(n):
        if stay[i] < 1:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        poor, rich = small[n_small], large[n_large - 1]
        other[poor] = rich
        stay[rich] -= 1 - stay[poor]
        if stay[rich] < 1:
            n_large -= 1
            small[n_small] = rich
            n_small += 1
    for i in range(n_small):  # only rounding leaves any: those of no weight never stay
        if weights[small[i]] > 0:
            stay[small[i]] = 1.0
    for i in range(n_large):
        stay[large[i]] = 1.0
    return stay, other


@compiled
def draw(drawn: NDArray[np.int32], stay: NDArray[np.float64], other: NDArray[np.int32], key: np.uint64) -> None:
    """Fill `drawn` from an `alias_table`; draw `j` depends on the table, `key` and `j` alone."""
    n = np.uint64(len(stay))
    for j in range(len(drawn)):
        bits = hash_64(np.uint64(key + np.uint64(j)))
        i = np.int64(((bits >> np.uint64(32)) * n) >> np.uint64(32))
        chance = np.float64(bits & np.uint64(0xFFFFFFFF)) * (1 / 4294967296.0)
        drawn[j] = i + (other[i] - i) * np.int64(chance >= stay[i])  # no branch: it could not be foreseen
