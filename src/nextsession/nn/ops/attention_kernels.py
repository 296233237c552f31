"""The compiled forms of softmax attention over packed rows, forwards and backwards, in float32.

Queries are taken a tile of rows at a time, and only against the keys they may see; the
backward computes the weights again from the logarithms of the sums, so nothing of the size of
the attention matrix outlives a block of queries.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.tiles import (
    TALL,
    Floats,
    add_line,
    bits_at,
    copied,
    dot,
    exponential,
    key_of,
    multiply,
    order,
    ordered,
    product,
    put_line,
    scratch,
    transposed,
    wide,
    zero_line,
)

BLOCK = 8 * TALL
"""Queries whose weights the backward keeps at a time."""

_ZERO, _ONE = np.float32(0), np.float32(1)


class Shape(NamedTuple):
    """What does not change from row to row."""

    heads: int
    width: int
    """Floats of a head."""
    causal: bool
    scale: np.float32
    middle: int
    """Index, in a line of the bias table, of the bias of a token with itself."""
    line: int
    """Distance between the lines of two heads in the bias table; 0: they share one."""
    dropped: int
    """Weights whose 32 random bits are below it are dropped; 0: none are."""
    kept: np.float32
    """What the weights that stay are multiplied by."""
    seed: int


@compiled
def stays(shape: Shape, tokens: int, head: int, i: int, j: int) -> bool:
    """Tell whether dropout leaves the weight of token `j` for query `i`, both counted from the start of the batch."""
    return bool(bits_at(key_of(shape.seed, head * tokens + i), np.uint32(j)) >= np.uint32(shape.dropped))


@compiled_fast
def _scaled(s: Floats, at: int, stop: int, scale: np.float32, bias: Floats, bias_at: int) -> np.float32:
    """Turn products into scores, `scale s + bias`, and return the largest."""
    line, highest = s[at : at + stop], order(np.float32(-np.inf))
    if len(bias):
        biases = bias[bias_at : bias_at + stop]
        for j in range(stop):
            x = line[j] * scale + biases[j]
            line[j] = x
            highest = max(highest, order(x))
    else:
        for j in range(stop):
            x = line[j] * scale
            line[j] = x
            highest = max(highest, order(x))
    return ordered(highest)


@compiled_fast
def _weighed(s: Floats, at: int, stop: int, highest: np.float32) -> np.float32:
    """Turn scores into weights that are 1 for the highest, and return their sum."""
    line, total = s[at : at + stop], _ZERO
    for j in range(stop):
        weight = exponential(line[j] - highest)
        line[j] = weight
        total += weight
    return total


@compiled_fast
def _drop(s: Floats, at: int, stop: int, shape: Shape, stream: int, first: int) -> None:
    """Drop weights out, without the factor of those that stay."""
    line, key, dropped = s[at : at + stop], key_of(shape.seed, stream), np.uint32(shape.dropped)
    for j in range(stop):
        line[j] = line[j] if bits_at(key, np.uint32(first + j)) >= dropped else _ZERO


@compiled_fast
def _backward_row(
    p: Floats,
    ds: Floats,
    at: int,
    stop: int,
    shape: Shape,
    stream: int,
    first: int,
    log_sum: np.float32,
    mean: np.float32,
) -> None:
    """Turn scores `p` and gradients of dropped weights `ds` into dropped weights and gradients of scores.

    `mean` is the mean of the gradients of the weights, by weight.
    """
    weights, grads = p[at : at + stop], ds[at : at + stop]
    if shape.dropped:
        key, dropped, kept = key_of(shape.seed, stream), np.uint32(shape.dropped), shape.kept
        for j in range(stop):
            weight = exponential(weights[j] - log_sum)
            factor = kept if bits_at(key, np.uint32(first + j)) >= dropped else _ZERO
            weights[j] = weight * factor
            grads[j] = weight * (factor * grads[j] - mean)
    else:
        for j in range(stop):
            weight = exponential(weights[j] - log_sum)
            weights[j] = weight
            grads[j] = weight * (grads[j] - mean)


@compiled
def longest_of(offsets: NDArray[np.int64], rows: tuple[int, int]) -> int:
    """Return the length of the longest of some rows."""
    longest = 0
    for row in range(rows[0], rows[1]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@compiled
def forward(
    q: Floats,
    k: Floats,
    v: Floats,
    offsets: NDArray[np.int64],
    rows: tuple[int, int],
    shape: Shape,
    bias: Floats,
    out: Floats,
    log_sums: Floats,
) -> None:
    """Attend in the rows `rows[0]` to `rows[1] - 1`: fill `out`, `(N, H Dh)`, and `log_sums`, `(H, N)`; all flat."""
    tokens, width = offsets[-1], shape.width
    across = shape.heads * width
    longest = longest_of(offsets, rows)
    key_row, head_row = wide(longest), wide(width)
    keys, values = scratch(width * key_row), scratch(longest * head_row)
    s, o, factors = scratch(TALL * key_row), scratch(TALL * head_row), scratch(TALL)
    for row in range(rows[0], rows[1]):
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        for head in range(shape.heads):
            start = first * across + head * width
            transposed(k, start, across, length, width, keys, key_row)
            copied(v, start, across, length, width, values, head_row)
            for i in range(0, length, TALL):
                tall = min(TALL, length - i)
                seen = i + tall if shape.causal else length
                product(q, start + i * across, across, keys, key_row, s, 0, key_row, tall, seen, width)
                for r in range(tall):
                    stop = i + r + 1 if shape.causal else length
                    query = first + i + r
                    stream = head * tokens + query
                    bias_at = head * shape.line + shape.middle - i - r
                    highest = _scaled(s, r * key_row, stop, shape.scale, bias, bias_at)
                    total = _weighed(s, r * key_row, stop, highest)
                    log_sums[stream] = highest + np.float32(np.log(total))
                    if shape.dropped:
                        _drop(s, r * key_row, stop, shape, stream, first)
                    zero_line(s, r * key_row + stop, r * key_row + seen)
                    factors[r] = shape.kept / total
                product(s, 0, key_row, values, head_row, o, 0, head_row, tall, width, seen)
                for r in range(tall):
                    put_line(out, start + (i + r) * across, o, r * head_row, width, factors[r])


@compiled
def gather(
    weights: Floats,
    block: int,
    tall: int,
    seen: int,
    causal: bool,
    key_row: int,
    x: Floats,
    width: int,
    head_row: int,
    to: Floats,
) -> None:
    """Add what a block of queries gives to the keys, `weights.T x`; a causal block is the first that sees its own keys.

    Query `r` of the block is row `block + r` of `x`, and `to` has a row for each key.
    """
    before = min(block, seen) if causal else seen
    multiply(
        weights,
        0,
        1,
        key_row,
        x,
        block * head_row,
        head_row,
        to,
        0,
        head_row,
        before,
        width,
        tall,
        not causal and block == 0,
    )
    for j in range(before, seen, TALL):
        skipped = j - block  # queries of the block older than the key
        multiply(
            weights, skipped * key_row + j, 1, key_row, x, j * head_row, head_row,
            to, j * head_row, head_row, min(TALL, seen - j), width, tall - skipped, True,
        )  # fmt: skip


@compiled
def backward(
    q: Floats,
    k: Floats,
    v: Floats,
    offsets: NDArray[np.int64],
    rows: tuple[int, int],
    shape: Shape,
    bias: Floats,
    out: Floats,
    log_sums: Floats,
    grad: Floats,
    grad_q: Floats,
    grad_k: Floats,
    grad_v: Floats,
    grad_bias: Floats,
) -> None:
    """Fill the gradients of those rows from that of `out`; that of the bias is added to."""
    tokens, width = offsets[-1], shape.width
    across = shape.heads * width
    longest = longest_of(offsets, rows)
    key_row, head_row = wide(longest), wide(width)
    keys_across, values_across = scratch(width * key_row), scratch(width * key_row)
    queries, keys, grads = scratch(longest * head_row), scratch(longest * head_row), scratch(longest * head_row)
    to_keys, to_values = scratch(longest * head_row), scratch(longest * head_row)
    p, ds, dq = scratch(BLOCK * key_row), scratch(BLOCK * key_row), scratch(TALL * head_row)
    for row in range(rows[0], rows[1]):
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        for head in range(shape.heads):
            start = first * across + head * width
            transposed(k, start, across, length, width, keys_across, key_row)
            transposed(v, start, across, length, width, values_across, key_row)
            copied(q, start, across, length, width, queries, head_row)
            copied(k, start, across, length, width, keys, head_row)
            copied(grad, start, across, length, width, grads, head_row)
            for block in range(0, length, BLOCK):
                end = min(block + BLOCK, length)
                visible = end if shape.causal else length
                for i in range(block, end, TALL):
                    tall, at = min(TALL, end - i), (i - block) * key_row
                    seen, line = i + tall if shape.causal else length, start + i * across
                    product(q, line, across, keys_across, key_row, p, at, key_row, tall, seen, width)
                    product(grad, line, across, values_across, key_row, ds, at, key_row, tall, seen, width)
                    for r in range(tall):
                        stop = i + r + 1 if shape.causal else length
                        here = at + r * key_row
                        stream = head * tokens + first + i + r
                        bias_at = head * shape.line + shape.middle - i - r
                        mean = dot(grad, out, line + r * across, width)
                        _scaled(p, here, stop, shape.scale, bias, bias_at)
                        _backward_row(p, ds, here, stop, shape, stream, first, log_sums[stream], mean)
                        if len(bias):
                            add_line(grad_bias, bias_at, ds, here, stop)
                        zero_line(p, here + stop, (i + r - block) * key_row + visible)
                        zero_line(ds, here + stop, (i + r - block) * key_row + visible)
                    product(ds, at, key_row, keys, head_row, dq, 0, head_row, tall, width, seen)
                    for r in range(tall):
                        put_line(grad_q, line + r * across, dq, r * head_row, width, shape.scale)
                gather(p, block, end - block, visible, shape.causal, key_row, grads, width, head_row, to_values)
                gather(ds, block, end - block, visible, shape.causal, key_row, queries, width, head_row, to_keys)
            for j in range(length):
                put_line(grad_k, start + j * across, to_keys, j * head_row, width, shape.scale)
                put_line(grad_v, start + j * across, to_values, j * head_row, width, _ONE)
