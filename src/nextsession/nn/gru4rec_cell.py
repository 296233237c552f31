"""The GRU of GRU4Rec, one step of many sessions, forwards and backwards in compiled code.

States stand as `(H, B)`: a row a unit, a column a session.  With `x` the input and `h` the state,

    r = sigmoid(W_r x + U_r h + b_r)                z = sigmoid(W_z x + U_z h + b_z)
    c = tanh(W_c x + U_c (r h) + b_c)               h' = (1 - z) h + z c

or, resetting after the product as cuDNN does, `c = tanh(W_c x + b_c + r (U_c h + d_c))`; that form has
a second bias `d` in every gate, as there, so those of r and z move twice as far.

All weights of all layers are one vector, so that the optimiser is one loop; `weights_of` cuts it.
"""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_fast
from nextsession.nn.gru4rec_math import in_order, sigmoid, tanh
from nextsession.nn.gru4rec_products import multiply, multiply_transposed, padded, transpose

BUFFERS = 6
"""Blocks of H rows that a layer needs beside its weights: three gates, an inner product, the state, what comes out."""


@compiled
def size_of(n_inputs: int, n_units: int) -> int:
    """Return how many numbers the weights of a layer are."""
    return 3 * n_units * (padded(n_inputs) + padded(n_units)) + 6 * padded(n_units)


@compiled
def weights_of(
    cells: NDArray[np.float32], layer: int, n_inputs: NDArray[np.int64], n_units: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cut the weights of one layer out of the vector of all: views, with rows that end in zeros.

    Args:
        cells: All weights, or their gradient.
        layer: Which.
        n_inputs: `(layers,)` width of the input; 0 where input items have rows of their own.
        n_units: `(layers,)`.

    Returns:
        `W (3H, inputs)`, `U (3H, H)`, both with the blocks r, z, c, and the biases `(6, H)` of `W x` and of `U h`.
    """
    start = 0
    for before in range(layer):
        start += size_of(n_inputs[before], n_units[before])
    units, wide_x, wide_h = n_units[layer], padded(n_inputs[layer]), padded(n_units[layer])
    middle = start + 3 * units * wide_x
    stop = middle + 3 * units * wide_h
    return (
        cells[start:middle].reshape((3 * units, wide_x)),
        cells[middle:stop].reshape((3 * units, wide_h)),
        cells[stop : stop + 6 * wide_h].reshape((6, wide_h)),
    )


@compiled
def buffers_of(
    memory: NDArray[np.float32], layer: int, n_units: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cut what one layer computes out of the memory of all: gates `(3H, B)`, inner, state and output `(H, B)`."""
    start, units = 0, n_units[layer]
    for before in range(layer):
        start += BUFFERS * n_units[before]
    return (
        memory[start : start + 3 * units],
        memory[start + 3 * units : start + 4 * units],
        memory[start + 4 * units : start + 5 * units],
        memory[start + 5 * units : start + 6 * units],
    )


@in_order
def forward(
    w: NDArray[np.float32],
    u: NDArray[np.float32],
    bias: NDArray[np.float32],
    gates: NDArray[np.float32],
    inner: NDArray[np.float32],
    state: NDArray[np.float32],
    output: NDArray[np.float32],
    x: NDArray[np.float32],
    n_inputs: int,
    lanes: int,
    reset_after: bool,
) -> None:
    """Compute the next state of the sessions into `output`, `(H, B)`; gates and the inner product stay for `backward`.

    Where `n_inputs` is 0 the gates hold `W x` already.
    """
    units, one = len(state), np.float32(1)
    if n_inputs > 0:
        multiply(gates, w, x, 3 * units, n_inputs, lanes, False)
    multiply(gates, u, state, 2 * units, units, lanes, True)
    for i in range(units):
        r, z, shift_r, shift_z = gates[i], gates[units + i], bias[0, i] + bias[3, i], bias[1, i] + bias[4, i]
        for b in range(lanes):
            r[b] = sigmoid(r[b] + shift_r)
            z[b] = sigmoid(z[b] + shift_z)
    u_c, c = u[2 * units :], gates[2 * units :]
    if reset_after:
        multiply(inner, u_c, state, units, units, lanes, False)
        for i in range(units):
            for b in range(lanes):
                inner[i, b] += bias[5, i]
                c[i, b] += gates[i, b] * inner[i, b]
    else:
        for i in range(units):
            for b in range(lanes):
                inner[i, b] = gates[i, b] * state[i, b]
        multiply(c, u_c, inner, units, units, lanes, True)
    for i in range(units):
        z, h, to, new, shift = gates[units + i], state[i], output[i], c[i], bias[2, i]
        for b in range(lanes):
            new[b] = tanh(new[b] + shift)
            to[b] = (one - z[b]) * h[b] + z[b] * new[b]


@compiled
def laid_end_to_end(
    items: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return some rows of events end to end: where each begins, `(B + 1,)`, and their items."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    for b in range(len(starts)):
        offsets[b + 1] = offsets[b] + lengths[b]
    codes = np.empty(offsets[-1], np.int32)
    for b in range(len(starts)):
        codes[offsets[b] : offsets[b + 1]] = items[starts[b] : starts[b] + lengths[b]]
    return offsets, codes


@compiled_fast
def walk(
    gates: NDArray[np.float32],
    offsets: NDArray[np.int64],
    begin: NDArray[np.float32],
    u: NDArray[np.float32],
    bias: NDArray[np.float32],
    reset_after: bool,
) -> NDArray[np.float32]:
    """Return the state after each event of rows that lie end to end, `(N, H)`: what answers need, one row at a time.

    Args:
        gates: `(N, 3H)` what the inputs add to r, z and c: `W x`; used up.
        offsets: `(B + 1,)` where rows begin.
        begin: `(B, H)` the state before each row.
        u: The recurrent weights.
        bias: As `weights_of` gives it.
        reset_after: Which of the two forms.
    """
    units, one = gates.shape[1] // 3, np.float32(1)
    states = np.empty((len(gates), units), np.float32)
    h, inner = np.empty(units, np.float32), np.empty(units, np.float32)
    for b in range(len(offsets) - 1):
        h[:] = begin[b]
        for e in range(offsets[b], offsets[b + 1]):
            gate, to = gates[e], states[e]
            for i in range(2 * units):
                total = gate[i]
                for j in range(units):
                    total += u[i, j] * h[j]
                gate[i] = total
            for i in range(units):
                gate[i] = sigmoid(gate[i] + bias[0, i] + bias[3, i])
                gate[units + i] = sigmoid(gate[units + i] + bias[1, i] + bias[4, i])
                inner[i] = h[i] if reset_after else gate[i] * h[i]
            for i in range(units):
                total = np.float32(0)
                for j in range(units):
                    total += u[2 * units + i, j] * inner[j]
                gate[2 * units + i] += gate[i] * (total + bias[5, i]) if reset_after else total
            for i in range(units):
                z = gate[units + i]
                to[i] = (one - z) * h[i] + z * tanh(gate[2 * units + i] + bias[2, i])
            h[:] = to
    return states


@in_order
def backward(
    u: NDArray[np.float32],
    gates: NDArray[np.float32],
    inner: NDArray[np.float32],
    state: NDArray[np.float32],
    slope: NDArray[np.float32],
    slopes: NDArray[np.float32],
    lanes: int,
    reset_after: bool,
) -> None:
    """Turn the gradient of the output into those of what goes into sigmoid and tanh.

    Args:
        u: The recurrent weights.
        gates: As `forward` left them.
        inner: As `forward` left it.
        state: The state before.
        slope: `(H, B)` the gradient of the output; used up.
        slopes: `(4H, B)` becomes the gradients of `W x + U h` of r, z and c, and last of `U_c h`, or of `U_c (r h)`.
        lanes: Columns to work on.
        reset_after: Which of the two forms.
    """
    units, one = len(state), np.float32(1)
    for i in range(units):
        z, c, h, down = gates[units + i], gates[2 * units + i], state[i], slope[i]
        to_z, to_c = slopes[units + i], slopes[2 * units + i]
        for b in range(lanes):
            to_z[b] = down[b] * (c[b] - h[b]) * z[b] * (one - z[b])
            to_c[b] = down[b] * z[b] * (one - c[b] * c[b])
    to_c, to_u = slopes[2 * units : 3 * units], slopes[3 * units : 4 * units]
    if reset_after:
        for i in range(units):
            for b in range(lanes):
                r = gates[i, b]
                slopes[i, b] = to_c[i, b] * inner[i, b] * r * (one - r)
                to_u[i, b] = to_c[i, b] * r
        return
    multiply_transposed(slope, u[2 * units :], to_c, units, units, lanes, False)
    for i in range(units):
        for b in range(lanes):
            r = gates[i, b]
            slopes[i, b] = slope[i, b] * state[i, b] * r * (one - r)
            to_u[i, b] = to_c[i, b]


@in_order
def gradient_of_weights(
    w: NDArray[np.float32],
    u: NDArray[np.float32],
    bias: NDArray[np.float32],
    slopes: NDArray[np.float32],
    inner: NDArray[np.float32],
    state: NDArray[np.float32],
    x: NDArray[np.float32],
    scratch: NDArray[np.float32],
    n_inputs: int,
    n_rows: int,
    reset_after: bool,
) -> None:
    """Set `w`, `u` and `bias` to the gradient of the weights, summed over the sessions.

    `x` is `(B, inputs)`, a row a session; `scratch` `(B, H)` is used up and has zeros beyond H.
    """
    units = len(state)
    wide = u.shape[1]
    if n_inputs > 0:
        multiply(w, slopes, x, 3 * units, n_rows, w.shape[1], False)
    transpose(scratch, state, units, n_rows)
    multiply(u, slopes, scratch, 2 * units, n_rows, wide, False)
    if not reset_after:
        transpose(scratch, inner, units, n_rows)
    multiply(u[2 * units :], slopes[3 * units :], scratch, units, n_rows, wide, False)
    for gate in range(4):
        for i in range(units):
            total = np.float32(0)
            for b in range(n_rows):
                total += slopes[gate * units + i, b]
            bias[5 if gate == 3 else gate, i] = total
    bias[3:5] = bias[0:2]
    if not reset_after:
        bias[3:] = 0
