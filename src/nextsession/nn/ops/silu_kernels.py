"""The compiled forms of attention with SiLU over packed rows, forwards and backwards, and of buckets of time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.nn.ops.attention_kernels import BLOCK, gather, longest_of
from nextsession.tiles import (
    TALL,
    Floats,
    add_line,
    copied,
    exponential,
    product,
    put_line,
    scratch,
    transposed,
    wide,
    zero_line,
)

Bytes = NDArray[np.uint8]

_COPIES = 4  # of the gradient of the bias by time: neighbours share a bucket, and would wait for each other's sums

_ZERO, _ONE = np.float32(0), np.float32(1)


class Shape(NamedTuple):
    """What does not change from row to row."""

    heads: int
    width: int
    """Floats of a query or key of a head."""
    value_width: int
    """Floats of a value of a head."""
    share: np.float32
    """What the sums are multiplied by."""
    middle: int
    """Index of the bias of a token with itself in the table by distance."""


@compiled_fast
def _biased(s: Floats, at: int, stop: int, position: Floats, middle: int, time: Floats, bucket: Bytes) -> None:
    """Add to the products of query `stop - 1` its biases."""
    line = s[at : at + stop]
    if len(position):
        biases = position[middle + 1 - stop : middle + 1]
        for j in range(stop):
            line[j] += biases[j]
    if len(time):
        for j in range(stop):
            line[j] += time[np.uint64(bucket[j])]


@compiled_fast
def _activated(s: Floats, at: int, stop: int) -> None:
    """Turn scores into weights, `silu(s) = s / (1 + exp(-s))`."""
    line = s[at : at + stop]
    for j in range(stop):
        line[j] = line[j] / (_ONE + exponential(-line[j]))


@compiled_fast
def _backward_row(s: Floats, ds: Floats, at: int, stop: int) -> None:
    """Turn scores `s` and gradients of weights `ds` into weights and gradients of scores."""
    line, grads = s[at : at + stop], ds[at : at + stop]
    for j in range(stop):
        score = line[j]
        gate = _ONE / (_ONE + exponential(-score))
        weight = score * gate
        line[j] = weight
        grads[j] = grads[j] * (gate + weight * (_ONE - gate))


@compiled_fast
def _add_by_bucket(sums: Floats, buckets: int, ds: Floats, at: int, stop: int, bucket: Bytes) -> None:
    """Add the gradients of a line of scores to those of their buckets, in one of the copies after another."""
    line, mask = ds[at : at + stop], np.uint64(_COPIES - 1)
    for j in range(stop):
        sums[np.uint64(bucket[j]) + (np.uint64(j) & mask) * np.uint64(buckets)] += line[j]


@compiled
def forward(
    q: Floats,
    k: Floats,
    v: Floats,
    offsets: NDArray[np.int64],
    rows: tuple[int, int],
    shape: Shape,
    position: Floats,
    time: Floats,
    buckets: Bytes,
    pairs: NDArray[np.int64],
    out: Floats,
) -> None:
    """Attend in the rows `rows[0]` to `rows[1] - 1`: fill `out`, `(N, H Dv)`; all flat.

    `pairs[row]` is where the buckets of the row begin.
    """
    width, value_width = shape.width, shape.value_width
    across, out_across = shape.heads * width, shape.heads * value_width
    longest = longest_of(offsets, rows)
    key_row, value_row = wide(longest), wide(value_width)
    keys, values = scratch(width * key_row), scratch(longest * value_row)
    s, o = scratch(TALL * key_row), scratch(TALL * value_row)
    for row in range(rows[0], rows[1]):
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        for head in range(shape.heads):
            start, out_start = first * across + head * width, first * out_across + head * value_width
            transposed(k, start, across, length, width, keys, key_row)
            copied(v, out_start, out_across, length, value_width, values, value_row)
            for i in range(0, length, TALL):
                tall = min(TALL, length - i)
                seen = i + tall
                product(q, start + i * across, across, keys, key_row, s, 0, key_row, tall, seen, width)
                for r in range(tall):
                    at, stop = r * key_row, i + r + 1
                    bucket = buckets[pairs[row] + stop * (stop - 1) // 2 :]
                    _biased(s, at, stop, position, shape.middle, time, bucket)
                    _activated(s, at, stop)
                    zero_line(s, at + stop, at + seen)
                product(s, 0, key_row, values, value_row, o, 0, value_row, tall, value_width, seen)
                for r in range(tall):
                    put_line(out, out_start + (i + r) * out_across, o, r * value_row, value_width, shape.share)


@compiled
def backward(
    q: Floats,
    k: Floats,
    v: Floats,
    offsets: NDArray[np.int64],
    rows: tuple[int, int],
    shape: Shape,
    position: Floats,
    time: Floats,
    buckets: Bytes,
    pairs: NDArray[np.int64],
    grad: Floats,
    grad_q: Floats,
    grad_k: Floats,
    grad_v: Floats,
    grad_position: Floats,
    grad_time: Floats,
) -> None:
    """Fill the gradients of those rows from that of `out`; those of the biases are added to."""
    width, value_width = shape.width, shape.value_width
    across, out_across = shape.heads * width, shape.heads * value_width
    longest = longest_of(offsets, rows)
    key_row, head_row, value_row = wide(longest), wide(width), wide(value_width)
    keys_across, values_across = scratch(width * key_row), scratch(value_width * key_row)
    queries, keys, grads = scratch(longest * head_row), scratch(longest * head_row), scratch(longest * value_row)
    to_keys, to_values = scratch(longest * head_row), scratch(longest * value_row)
    s, ds, dq = scratch(BLOCK * key_row), scratch(BLOCK * key_row), scratch(TALL * head_row)
    sums, by_place = scratch(_COPIES * len(time)), scratch(len(position))
    for row in range(rows[0], rows[1]):
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        for head in range(shape.heads):
            start, out_start = first * across + head * width, first * out_across + head * value_width
            transposed(k, start, across, length, width, keys_across, key_row)
            transposed(v, out_start, out_across, length, value_width, values_across, key_row)
            copied(q, start, across, length, width, queries, head_row)
            copied(k, start, across, length, width, keys, head_row)
            copied(grad, out_start, out_across, length, value_width, grads, value_row)
            for block in range(0, length, BLOCK):
                end = min(block + BLOCK, length)
                for i in range(block, end, TALL):
                    tall, at = min(TALL, end - i), (i - block) * key_row
                    seen, query, given = i + tall, start + i * across, out_start + i * out_across
                    product(q, query, across, keys_across, key_row, s, at, key_row, tall, seen, width)
                    product(grad, given, out_across, values_across, key_row, ds, at, key_row, tall, seen, value_width)
                    for r in range(tall):
                        here, stop = at + r * key_row, i + r + 1
                        bucket = buckets[pairs[row] + stop * (stop - 1) // 2 :]
                        _biased(s, here, stop, position, shape.middle, time, bucket)
                        _backward_row(s, ds, here, stop)
                        if len(position):
                            add_line(by_place, shape.middle + 1 - stop, ds, here, stop)
                        if len(time):
                            _add_by_bucket(sums, len(time), ds, here, stop, bucket)
                        zero_line(s, here + stop, (i + r - block) * key_row + end)
                        zero_line(ds, here + stop, (i + r - block) * key_row + end)
                    product(ds, at, key_row, keys, head_row, dq, 0, head_row, tall, width, seen)
                    for r in range(tall):
                        put_line(grad_q, start + (i + r) * across, dq, r * head_row, width, shape.share)
                gather(s, block, end - block, end, True, key_row, grads, value_width, value_row, to_values)
                gather(ds, block, end - block, end, True, key_row, queries, width, head_row, to_keys)
            for j in range(length):
                put_line(grad_k, start + j * across, to_keys, j * head_row, width, shape.share)
                put_line(grad_v, out_start + j * out_across, to_values, j * value_row, value_width, shape.share)
    for n in range(len(position)):
        grad_position[n] += by_place[n] * shape.share
    for n in range(len(time)):
        for copy in range(_COPIES):
            grad_time[n] += sums[copy * len(time) + n] * shape.share


@compiled
def fill_buckets(
    times: NDArray[np.int64],
    next_times: NDArray[np.int64],
    offsets: NDArray[np.int64],
    edges: NDArray[np.int64],
    out: Bytes,
) -> None:
    """Fill in the buckets of all pairs; `edges[b]` is the least distance in ms of bucket `b + 1`, edges rise.

    Along a row of pairs distances hardly ever jump, so each bucket is looked for from the last.
    """
    pair, last = 0, len(edges)
    for row in range(len(offsets) - 1):
        bucket = 0
        for i in range(offsets[row], offsets[row + 1]):
            for j in range(offsets[row], i + 1):
                distance = abs(next_times[i] - times[j])
                while bucket < last and distance >= edges[bucket]:
                    bucket += 1
                while bucket > 0 and distance < edges[bucket - 1]:
                    bucket -= 1
                out[pair] = bucket
                pair += 1
