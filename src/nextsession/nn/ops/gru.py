"""A layer of gated recurrent units over rows laid out step by step, on a CPU.

The parts of the gates that need no earlier state are one matrix product for all steps, and so are the
gradients of the weights; what is left of a step is one product and one pass over its gates.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextsession.compiled import compiled_fast
from nextsession.tiles import exponential

_Matrix = NDArray[np.float32]
_ONE, _TWO = np.float32(1), np.float32(2)


def gru_layer(x: Tensor, sizes: list[int], into: Tensor, again: Tensor, biases: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the states of every row after each step, float32.

    Args:
        x: `(N, D)`, the first values of all rows, then the second ones, and so on; longer rows first.
        sizes: Rows that have each step, never rising.
        into: `(3H, D)` weights of the values, for the gates reset, update and new.
        again: `(3H, H)` weights of the state before.
        biases: `(3H,)` of either map.

    Returns:
        `(N, H)`.
    """
    of_into, of_again = (None, None) if biases is None else biases
    from_values = torch.nn.functional.linear(x, into, of_into)
    states: Tensor = _Steps.apply(from_values, again, of_again, sizes)  # type: ignore[no-untyped-call]
    return states


class _Steps(torch.autograd.Function):
    """All steps; the gates are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, from_values: Tensor, again: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
        width = again.shape[1]
        # Of each step: reset, update, new, and what of the state before went into new.
        gates = from_values.new_empty((len(from_values), 4 * width))
        states = from_values.new_empty((len(from_values), width))
        before = from_values.new_zeros((sizes[0] if sizes else 0, width))
        given, kept, made = from_values.detach().numpy(), gates.numpy(), states.numpy()
        weights = again.detach().T
        start = 0
        for size in sizes:
            stop = start + size
            before = before[:size]
            from_state = before @ weights if bias is None else torch.addmm(bias.detach(), before, weights)
            _step(given[start:stop], from_state.numpy(), before.numpy(), kept[start:stop], made[start:stop])
            before, start = states[start:stop], stop
        ctx.save_for_backward(again, gates, states)
        ctx.sizes, ctx.biased = sizes, bias is not None
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        again, gates, states = ctx.saved_tensors
        sizes, width = ctx.sizes, again.shape[1]
        first = sizes[0] if sizes else 0
        nothing = states.new_zeros((first, width))
        to_values, to_products = torch.empty_like(gates[:, : 3 * width]), torch.empty_like(gates[:, : 3 * width])
        kept, given = gates.numpy(), gradient.contiguous().numpy()
        a, b = to_values.numpy(), to_products.numpy()
        weights = again.detach()
        carried = nothing.new_zeros((0, width))  # of the states, from the step after
        stop = len(states)
        for number in range(len(sizes) - 1, -1, -1):
            size = sizes[number]
            start = stop - size
            before = states[start - sizes[number - 1] : start][:size] if number else nothing
            left = states.new_empty((size, width))
            _step_back(given[start:stop], carried.numpy(), kept[start:stop], before.numpy(), a[start:stop],
                       b[start:stop], left.numpy())  # fmt: skip
            carried = left.addmm_(to_products[start:stop], weights) if number else left
            stop = start
        earlier = _earlier(sizes)
        to_again = to_products[first:].T @ states[earlier]
        return to_values, to_again, to_products.sum(0) if ctx.biased else None, None


def _earlier(sizes: list[int]) -> Tensor:
    """Return the place of the state before each value of the second step and later, `(N - B,)`."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [np.arange(start, start + size) for start, size in zip(starts, sizes[1:], strict=False)]
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64))


@compiled_fast
def _step(from_values: _Matrix, from_state: _Matrix, before: _Matrix, gates: _Matrix, states: _Matrix) -> None:
    width = states.shape[1]
    for row in range(len(states)):
        x, h, old, gate, state = from_values[row], from_state[row], before[row], gates[row], states[row]
        for d in range(width):
            reset = _ONE / (_ONE + exponential(-(x[d] + h[d])))
            update = _ONE / (_ONE + exponential(-(x[width + d] + h[width + d])))
            product = h[2 * width + d]
            new = _ONE - _TWO / (_ONE + exponential(_TWO * (x[2 * width + d] + reset * product)))
            gate[d], gate[width + d], gate[2 * width + d], gate[3 * width + d] = reset, update, new, product
            state[d] = new + update * (old[d] - new)


@compiled_fast
def _step_back(
    gradients: _Matrix,
    carried: _Matrix,
    gates: _Matrix,
    before: _Matrix,
    to_values: _Matrix,
    to_products: _Matrix,
    left: _Matrix,
) -> None:
    width = gradients.shape[1]
    for row in range(len(gradients)):
        gate, old, to_value, to_product, rest = gates[row], before[row], to_values[row], to_products[row], left[row]
        for d in range(width):
            rest[d] = gradients[row, d]
        if row < len(carried):
            for d in range(width):
                rest[d] += carried[row, d]
        for d in range(width):
            slope = rest[d]
            reset, update, new = gate[d], gate[width + d], gate[2 * width + d]
            to_new = slope * (_ONE - update) * (_ONE - new * new)
            to_update = slope * (old[d] - new) * update * (_ONE - update)
            to_reset = to_new * gate[3 * width + d] * reset * (_ONE - reset)
            to_value[d], to_value[width + d], to_value[2 * width + d] = to_reset, to_update, to_new
            to_product[d], to_product[width + d], to_product[2 * width + d] = to_reset, to_update, to_new * reset
            rest[d] = slope * update
