"""Products of small matrices and the like, for the training loop of GRU4Rec.

A step multiplies a few hundred rows of items with a few dozen rows of sessions, thousands of times
a second.  At these sizes a BLAS spends a third of its time on packing and dispatch, so the products
are those of `tiles`, here for whole matrices: C-contiguous float32, of which the right operand
and the result have rows that are a multiple of `LANES` wide.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from nextsession import tiles
from nextsession.compiled import compiled
from nextsession.tiles import LANES

_product = tiles.multiply  # numba needs the name of a function, not of a module's


@compiled
def padded(width: int) -> int:
    """Return the next multiple of `LANES`.

    >>> padded(100), padded(112)
    (112, 112)
    """
    return -(-width // LANES) * LANES


@compiled
def multiply(
    c: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    n_rows: int,
    n_inner: int,
    n_columns: int,
    add: bool,
) -> None:
    """Set `c[:n_rows, :n_columns]`, or add to it, to `a[:n_rows, :n_inner] @ b[:n_inner, :n_columns]`."""
    _product(a, 0, a.shape[1], 1, b, 0, b.shape[1], c, 0, c.shape[1], n_rows, n_columns, n_inner, not add)


@compiled
def multiply_transposed(
    c: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    n_rows: int,
    n_inner: int,
    n_columns: int,
    add: bool,
) -> None:
    """Set `c[:n_rows, :n_columns]`, or add to it, to `a[:n_inner, :n_rows].T @ b[:n_inner, :n_columns]`."""
    _product(a, 0, 1, a.shape[1], b, 0, b.shape[1], c, 0, c.shape[1], n_rows, n_columns, n_inner, not add)


@compiled
def transpose(to: NDArray[np.float32], matrix: NDArray[np.float32], n_rows: int, n_columns: int) -> None:
    """Set `to[:n_columns, :n_rows]` to `matrix[:n_rows, :n_columns].T`."""
    for i in range(n_rows):
        for j in range(n_columns):
            to[j, i] = matrix[i, j]


def _fetch(context: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line that holds number `at` of an array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        line = builder.bitcast(builder.gep(pointer, [values[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        builder.call(fetch, [line, number(0), number(3), number(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


_prefetch: Any = intrinsic(_fetch)


@compiled
def prefetch_row(matrix: NDArray[np.float32], row: int) -> None:
    """Ask for a row of a matrix that will be needed soon."""
    width = matrix.shape[1]
    for at in range(row * width, (row + 1) * width, LANES):
        _prefetch(matrix, at)
