"""Steps of optimisers that touch only some rows of a table: compiled loops, and the same in PyTorch.

Rows are distinct: gradients of an item that occurs twice in a batch have been summed.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextsession.compiled import compiled_fast

Floats = NDArray[np.float32]


def adam_rows(
    table: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor,
    gradients: Tensor,
    *,
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Step Adam in some rows, in place; the moments of all others stay as they are.

    Args:
        table: `(V, D)`.
        first: `(V, D)` running mean of the gradients.
        second: `(V, D)` running mean of their squares.
        rows: `(R,)` distinct.
        gradients: `(R, D)`.
        step: Steps of the optimiser with this one, for the correction of the bias.
        rate: Learning rate.
        betas: How slowly the moments forget.
        eps: Added to the root.
    """
    size = rate / (1 - betas[0] ** step)
    root = math.sqrt(1 - betas[1] ** step)
    if _compilable(table, first, second, gradients):
        _adam(
            table.detach().numpy(), first.numpy(), second.numpy(), rows.numpy(), gradients.numpy(),
            np.float32(size), np.float32(betas[0]), np.float32(betas[1]), np.float32(root), np.float32(eps),
        )  # fmt: skip
        return
    mean = first[rows].lerp_(gradients, 1 - betas[0])
    square = second[rows].mul_(betas[1]).addcmul_(gradients, gradients, value=1 - betas[1])
    first[rows], second[rows] = mean, square
    table.index_add_(0, rows, mean / (square.sqrt() / root + eps), alpha=-size)


def rowwise_adagrad_rows(
    table: Tensor, squares: Tensor, rows: Tensor, gradients: Tensor, *, rate: float, eps: float
) -> None:
    """Step Adagrad with one sum of squares a row, in place.

    Args:
        table: `(V, D)`.
        squares: `(V,)` sum over the steps of the mean square of the gradient of each row.
        rows: `(R,)` distinct.
        gradients: `(R, D)`.
        rate: Learning rate.
        eps: Added to the root.
    """
    if _compilable(table, squares, gradients):
        _rowwise_adagrad(
            table.detach().numpy(), squares.numpy(), rows.numpy(), gradients.numpy(), np.float32(rate), np.float32(eps)
        )
        return
    squares[rows] += gradients.square().mean(1)
    table.index_add_(0, rows, gradients / (squares[rows].sqrt() + eps)[:, None], alpha=-rate)


def adagrad_rows(table: Tensor, squares: Tensor, rows: Tensor, gradients: Tensor, *, rate: float, eps: float) -> None:
    """Step Adagrad in some rows, in place; arguments as `rowwise_adagrad_rows`, but `squares` is `(V, D)`."""
    if _compilable(table, squares, gradients):
        _adagrad(
            table.detach().numpy(), squares.numpy(), rows.numpy(), gradients.numpy(), np.float32(rate), np.float32(eps)
        )
        return
    sums = squares[rows].addcmul_(gradients, gradients)
    squares[rows] = sums
    table.index_add_(0, rows, gradients / (sums.sqrt() + eps), alpha=-rate)


def _compilable(*tensors: Tensor) -> bool:
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)


@compiled_fast
def _adam(
    table: Floats,
    first: Floats,
    second: Floats,
    rows: NDArray[np.int64],
    gradients: Floats,
    size: np.float32,
    beta1: np.float32,
    beta2: np.float32,
    root: np.float32,
    eps: np.float32,
) -> None:
    one = np.float32(1)
    for r in range(len(rows)):
        row = rows[r]
        for d in range(table.shape[1]):
            g = gradients[r, d]
            mean = first[row, d] + (one - beta1) * (g - first[row, d])
            square = beta2 * second[row, d] + (one - beta2) * g * g
            first[row, d], second[row, d] = mean, square
            table[row, d] -= size * mean / (np.sqrt(square) / root + eps)


@compiled_fast
def _adagrad(
    table: Floats, squares: Floats, rows: NDArray[np.int64], gradients: Floats, rate: np.float32, eps: np.float32
) -> None:
    for r in range(len(rows)):
        row = rows[r]
        for d in range(table.shape[1]):
            g = gradients[r, d]
            square = squares[row, d] + g * g
            squares[row, d] = square
            table[row, d] -= rate * g / (np.sqrt(square) + eps)


@compiled_fast
def _rowwise_adagrad(
    table: Floats, squares: Floats, rows: NDArray[np.int64], gradients: Floats, rate: np.float32, eps: np.float32
) -> None:
    width = np.float32(table.shape[1])
    for r in range(len(rows)):
        row = rows[r]
        total = np.float32(0)
        for d in range(table.shape[1]):
            total += gradients[r, d] * gradients[r, d]
        squares[row] += total / width
        size = rate / (np.sqrt(squares[row]) + eps)
        for d in range(table.shape[1]):
            table[row, d] -= size * gradients[r, d]
