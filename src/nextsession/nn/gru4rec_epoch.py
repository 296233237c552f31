"""One epoch of GRU4Rec in compiled code: forwards, losses, gradients by hand, and Adagrad with momentum.

A step takes the next event of `B` sessions, scores the `B` targets and `n_sample` extra items drawn
for the whole batch, and moves the rows of these items, those of the inputs, and the GRU.  Each
distinct item is scored, and its row read and written, once a step (see `gru4rec_losses`).  The bias
of an item is one more number of its row, beside a constant 1 of the state.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.nn.gru4rec_cell import (
    BUFFERS,
    backward,
    buffers_of,
    forward,
    gradient_of_weights,
    weights_of,
)
from nextsession.nn.gru4rec_losses import CROSS_ENTROPY, cross_entropy, pairwise
from nextsession.nn.gru4rec_math import draw, drop, hash_64, in_order
from nextsession.nn.gru4rec_products import multiply, multiply_transposed, padded, prefetch_row, transpose
from nextsession.nn.session_parallel import advance, begin

OWN_ROWS, SEPARATE, CONSTRAINED = 0, 1, 2

EMBEDDINGS = {"none": OWN_ROWS, "separate": SEPARATE, "constrained": CONSTRAINED}
"""The numbers of the ways in which items go in, in compiled code."""

_EPSILON = np.float32(1e-6)  # inside the root
_AHEAD = 12  # rows between the one that is copied and the one that is fetched meanwhile
_TOGETHER = 64  # rows whose gradients are computed before they are moved: they stay in the fastest cache


class Moved(NamedTuple):
    """Parameters and the state of their optimiser, all of one shape: `(rows, width)`, or one row for the GRU."""

    values: NDArray[np.float32]
    squares: NDArray[np.float32]
    """The sum of the squared gradients."""
    speeds: NDArray[np.float32]
    """The last step; without momentum, no rows."""


class Rules(NamedTuple):
    """The settings of training, as numbers."""

    batch_size: int
    learning_rate: float
    momentum: float
    dropout_embed: float
    dropout_hidden: float
    embedding: int
    loss: int
    bpreg: float
    activation: int
    elu: float
    reset_after: bool


class Sampling(NamedTuple):
    """How extra items are drawn, and how much a column weighs in the softmax."""

    stay: NDArray[np.float64]  # (V,) with `other` an alias table
    other: NDArray[np.int32]  # (V,)
    n_sample: int
    target_weights: NDArray[np.float32]  # (V,) of a column that is a target of the batch
    sample_weights: NDArray[np.float32]  # (V,) of one that was drawn


@in_order
def move(
    values: NDArray[np.float32],
    squares: NDArray[np.float32],
    speeds: NDArray[np.float32],
    gradient: NDArray[np.float32],
    width: int,
    learning_rate: np.float32,
    momentum: np.float32,
) -> None:
    """Take a step in a vector: `s += g^2; v = momentum v - rate g / sqrt(s + 1e-6); p += v`.

    Without momentum `speeds` is not looked at.
    """
    if momentum > 0:
        for j in range(width):
            g = gradient[j]
            square = squares[j] + g * g
            squares[j] = square
            speed = momentum * speeds[j] - learning_rate * g / np.sqrt(square + _EPSILON)
            speeds[j] = speed
            values[j] += speed
    else:
        for j in range(width):
            g = gradient[j]
            square = squares[j] + g * g
            squares[j] = square
            values[j] -= learning_rate * g / np.sqrt(square + _EPSILON)


@compiled
def _slot(item: int, items: NDArray[np.int32], slot_of: NDArray[np.int32], n_slots: int) -> int:
    """Return the place of an item among `items[:n_slots]`, or `n_slots`; `slot_of` needs no clearing."""
    slot = slot_of[item]
    return slot if slot < n_slots and items[slot] == item else n_slots


@compiled
def _distinct(
    wanted: NDArray[np.int32],
    items: NDArray[np.int32],
    slot_of: NDArray[np.int32],
    n_slots: int,
    slots: NDArray[np.int64],
) -> int:
    """Give each of the wanted items a slot, the same to equal items; return how many slots there are now."""
    for j in range(len(wanted)):
        slot = _slot(wanted[j], items, slot_of, n_slots)
        if slot == n_slots:
            items[slot] = wanted[j]
            slot_of[wanted[j]] = slot
            n_slots += 1
        slots[j] = slot
    return n_slots


@compiled
def _carry_states(
    memory: NDArray[np.float32],
    n_units: NDArray[np.int64],
    kept: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    n_rows: int,
    lanes: int,
) -> None:
    """Let what came out of each layer be its state now: of the rows that are kept, zero where a session begins."""
    for layer in range(len(n_units)):
        _, _, state, output = buffers_of(memory, layer, n_units)
        for i in range(len(state)):
            for b in range(n_rows):
                state[i, b] = np.float32(0) if fresh[b] else output[i, kept[b]]
            state[i, n_rows:lanes] = 0


@in_order
def epoch(
    events: NDArray[np.int32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    items: Moved,
    inputs: Moved,
    cells: Moved,
    n_inputs: NDArray[np.int64],
    n_units: NDArray[np.int64],
    rules: Rules,
    sampling: Sampling,
    key: np.uint64,
) -> tuple[float, int, int]:
    """Train on every pair of an event and the next of its session, once.

    Args:
        events: `(N,)` items.
        starts: `(S,)` where sessions begin, in the order in which they are taken.
        stops: `(S,)` and where they end.
        items: `(V, padded(H + 1))` the vectors of the items, and their biases.
        inputs: `(V, padded(...))` what an item is when it goes in: a vector, or three gates; not looked at if
            the embedding is constrained.
        cells: One row, as in `gru4rec_cell`.
        n_inputs: `(layers,)` width of the input of each layer.
        n_units: `(layers,)`.
        rules: The settings.
        sampling: The extra items.
        key: What random numbers depend on, beside the step.

    Returns:
        The sum of the losses, how many pairs there were, and the first step whose loss is not finite, or -1.
    """
    n_layers, n_sample, size = len(n_units), sampling.n_sample, rules.batch_size
    constrained, own_rows = rules.embedding == CONSTRAINED, rules.embedding == OWN_ROWS
    rate, momentum = np.float32(rules.learning_rate), np.float32(rules.momentum)
    dim, wide, lanes_all = n_units[n_layers - 1], items.values.shape[1], padded(size)
    most = 2 * size + n_sample
    memory = np.zeros((BUFFERS * n_units.sum() + 1, lanes_all), np.float32)
    memory[len(memory) - 1] = 1  # after what comes out of the last layer: it meets the biases
    widest = max(n_units.max(), n_inputs.max())
    slopes, slope = np.zeros((4 * widest, lanes_all), np.float32), np.zeros((widest, lanes_all), np.float32)
    gradient = np.zeros(cells.values.shape[1], np.float32)
    wide_x = wide if constrained else inputs.values.shape[1]
    x, x_turned = np.zeros((size, wide_x), np.float32), np.zeros((wide_x, lanes_all), np.float32)
    outputs = np.zeros((size, wide), np.float32)
    outputs[:, dim] = 1
    rows, moved = np.zeros((most, wide), np.float32), np.zeros((_TOGETHER, wide), np.float32)
    of_inputs = np.zeros((size, wide_x), np.float32)
    scores = np.zeros((most, lanes_all), np.float32)
    slot_of, in_slot_of = np.zeros(len(items.values), np.int32), np.zeros(len(items.values), np.int32)
    distinct, in_distinct = np.zeros(most, np.int32), np.zeros(size, np.int32)
    slots, in_slots = np.zeros(most, np.int64), np.zeros(size, np.int64)
    counts, target_weights = np.zeros(most, np.float32), np.zeros(most, np.float32)
    drawn, targets, given = np.zeros(n_sample, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    at, last, fresh, kept, walk = begin(starts, stops, size)
    loss, n_pairs, step = 0.0, 0, 0
    while walk[0] > (0 if n_sample > 0 else 1):  # a single row has no negatives of its own
        n = walk[0]
        lanes = padded(n)
        step_key = hash_64(np.uint64(key + np.uint64(step)))
        if step > 0:
            _carry_states(memory, n_units, kept, fresh, n, lanes)
        for b in range(n):
            given[b], targets[b] = events[at[b]], events[at[b] + 1]

        # the input
        table = items.values if constrained else inputs.values
        width_x = 3 * n_units[0] if own_rows else n_inputs[0]
        for b in range(n):
            x[b, :width_x] = table[given[b], :width_x]
        if rules.dropout_embed > 0 and not own_rows:
            drop(x[:n], width_x, rules.dropout_embed, np.uint32(step_key & np.uint64(0xFFFFFFFF)))
        transpose(x_turned, x, n, width_x)
        if own_rows:
            buffers_of(memory, 0, n_units)[0][:, :lanes] = x_turned[:width_x, :lanes]

        # the layers
        below = x_turned
        for layer in range(n_layers):
            w, u, bias = weights_of(cells.values[0], layer, n_inputs, n_units)
            gates, inner, state, output = buffers_of(memory, layer, n_units)
            forward(w, u, bias, gates, inner, state, output, below, n_inputs[layer], lanes, rules.reset_after)
            if rules.dropout_hidden > 0:
                hidden_key = np.uint32(hash_64(np.uint64(step_key + np.uint64(layer + 1))) & np.uint64(0xFFFFFFFF))
                drop(output, lanes, rules.dropout_hidden, hidden_key)
            below = output

        # the items
        draw(drawn, sampling.stay, sampling.other, step_key)
        n_slots = _distinct(targets[:n], distinct, slot_of, 0, slots)
        n_slots = _distinct(drawn, distinct, slot_of, n_slots, slots[n:])
        counts[:n_slots] = 0
        if rules.loss == CROSS_ENTROPY:
            for j in range(n):
                counts[slots[j]] += sampling.target_weights[distinct[slots[j]]]
            for j in range(n, n + n_sample):
                counts[slots[j]] += sampling.sample_weights[distinct[slots[j]]]
            for j in range(n):
                target_weights[slots[j]] = sampling.target_weights[targets[j]]
        else:
            for j in range(n + n_sample):
                counts[slots[j]] += 1
        for j in range(n_slots):
            item = distinct[j]
            if j + _AHEAD < n_slots:
                prefetch_row(items.values, distinct[j + _AHEAD])
            for d in range(wide):
                rows[j, d] = items.values[item, d]
        top = memory[len(memory) - 1 - dim :]
        multiply(scores, rows, top, n_slots, dim + 1, lanes, False)

        # the loss
        if rules.loss == CROSS_ENTROPY:
            found = cross_entropy(scores, n_slots, n, lanes, slots, counts, target_weights)
        else:
            found = pairwise(
                scores, n_slots, n, lanes, slots, counts, n + n_sample,
                rules.loss, rules.bpreg, rules.activation, rules.elu,
            )  # fmt: skip
        if not np.isfinite(found):
            return loss, n_pairs, step
        loss += found
        n_pairs += n
        share = np.float32(1) / np.float32(size)  # of the configured batch, also when it has shrunk
        for j in range(n_slots):
            for b in range(lanes):
                scores[j, b] *= share

        # backwards
        multiply_transposed(slope, rows, scores, dim, n_slots, lanes, False)
        transpose(outputs, top, dim, n)
        for layer in range(n_layers - 1, -1, -1):
            w, u, bias = weights_of(cells.values[0], layer, n_inputs, n_units)
            to_w, to_u, to_bias = weights_of(gradient, layer, n_inputs, n_units)
            gates, inner, state, output = buffers_of(memory, layer, n_units)
            if rules.dropout_hidden > 0:
                hidden_key = np.uint32(hash_64(np.uint64(step_key + np.uint64(layer + 1))) & np.uint64(0xFFFFFFFF))
                drop(slope[: len(output)], lanes, rules.dropout_hidden, hidden_key)
            backward(u, gates, inner, state, slope, slopes, lanes, rules.reset_after)
            scratch = np.zeros((n, u.shape[1]), np.float32)
            if layer > 0:
                under = buffers_of(memory, layer - 1, n_units)[3]
                x_here = np.zeros((n, w.shape[1]), np.float32)
                transpose(x_here, under, len(under), n)
            else:
                x_here = x
            gradient_of_weights(
                to_w, to_u, to_bias, slopes, inner, state, x_here, scratch, n_inputs[layer], n, rules.reset_after
            )
            if n_inputs[layer] > 0:
                multiply_transposed(slope, w, slopes, n_inputs[layer], 3 * len(state), lanes, False)

        # the gradient of the inputs, summed over equal items
        n_given = _distinct(given[:n], in_distinct, in_slot_of, 0, in_slots)
        transpose(x, slopes if own_rows else slope, width_x, n)
        if rules.dropout_embed > 0 and not own_rows:
            drop(x[:n], width_x, rules.dropout_embed, np.uint32(step_key & np.uint64(0xFFFFFFFF)))
        of_inputs[:n_given] = 0
        for b in range(n):
            for j in range(width_x):
                of_inputs[in_slots[b], j] += x[b, j]

        # the steps
        for start in range(0, n_slots, _TOGETHER):
            stop = min(start + _TOGETHER, n_slots)
            for j in range(start, stop):
                prefetch_row(items.values, distinct[j])
                prefetch_row(items.squares, distinct[j])
            multiply(moved, scores[start:stop], outputs, stop - start, n, wide, False)
            for j in range(start, stop):
                item = distinct[j]
                if constrained:
                    also = _slot(item, in_distinct, in_slot_of, n_given)
                    if also < n_given:
                        for d in range(dim):
                            moved[j - start, d] += of_inputs[also, d]
                        in_distinct[also] = -1 - item  # done
                speeds = items.speeds[item] if momentum > 0 else items.squares[item]
                move(items.values[item], items.squares[item], speeds, moved[j - start], wide, rate, momentum)
        to = items if constrained else inputs
        for j in range(n_given):
            item = in_distinct[j]
            if item >= 0:
                speeds = to.speeds[item] if momentum > 0 else to.squares[item]
                move(to.values[item], to.squares[item], speeds, of_inputs[j], width_x, rate, momentum)
        speeds = cells.speeds[0] if momentum > 0 else cells.squares[0]
        move(cells.values[0], cells.squares[0], speeds, gradient, len(gradient), rate, momentum)
        advance(starts, stops, at, last, fresh, kept, walk)
        step += 1
    return loss, n_pairs, -1
