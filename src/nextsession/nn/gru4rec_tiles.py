"""Products of small matrices in machine code, for the training loop of GRU4Rec.

A step multiplies a few hundred rows of items with a few dozen rows of sessions, thousands of times
a second.  At these sizes a library spends a third of the time on packing and dispatch, so the
products are written out: a tile of `HEIGHT` rows by `LANES` columns stays in registers while its
sum runs, one operand is read as vectors, the other one number at a time.

The matrices are C-contiguous float32.  Columns are worked in steps of `LANES`, so rows of what is
read as vectors and of what is written must be `padded` long; rows of the other need not.
"""

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from nextsession.compiled import compiled

LANES = 16
"""Columns of a tile: one vector of 512 bits, which LLVM splits where there are none."""

HEIGHT = 8 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 6
"""Rows of a tile: as many as leave registers for the operands."""

_FLOAT, _INDEX, _INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def padded(width: int) -> int:
    """Return the next multiple of `LANES`.

    >>> padded(100), padded(112)
    (112, 112)
    """
    return -(-width // LANES) * LANES


def _tile(height: int) -> Any:
    """Return `tile(c, c_at, c_i, a, a_at, a_i, a_k, b, b_at, b_k, n_k, add)` for numba.

    It sets `c[c_at + i * c_i + j]`, or adds to it, to the sum over `k < n_k` of
    `a[a_at + i * a_i + k * a_k] * b[b_at + k * b_k + j]`, for `i < height` and `j < LANES`; places
    are counted in numbers from the first of each array.  Nothing is checked.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        context, c, c_at, c_i, a, a_at, a_i, a_k, b, b_at, b_k, n_k, add
    ):
        index = types.int64
        signature = types.void(
            c, index, index, a, index, index, index, b, index, index, index, types.boolean
        )  # fmt: skip

        def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
            c, c_at, c_i, a, a_at, a_i, a_k, b, b_at, b_k, n_k, add = values
            builder.function.attributes.add("noinline")  # one copy of a product is enough, and soon compiled

            def start(place, value, at):  # type: ignore[no-untyped-def]
                array = context.make_array(signature.args[place])(context, builder, value)
                return builder.gep(array.data, [at])

            def vector(pointer):  # type: ignore[no-untyped-def]
                return builder.bitcast(pointer, _VECTOR.as_pointer())

            to, left, right = start(0, c, c_at), start(3, a, a_at), start(7, b, b_at)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
            )
            sums = [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES)) for _ in range(height)]
            for total in sums:  # alloca_once_value writes at the entry of the function only
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
            rows = [builder.gep(left, [builder.mul(a_i, _INDEX(i))]) for i in range(height)]
            spread = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
            nothing = ir.Constant(_VECTOR, ir.Undefined)
            with cgutils.for_range(builder, n_k) as loop:
                lanes = builder.load(vector(builder.gep(right, [builder.mul(loop.index, b_k)])), align=4)
                along = builder.mul(loop.index, a_k)
                for row, total in zip(rows, sums, strict=True):
                    one = builder.load(builder.gep(row, [along]))
                    many = builder.shuffle_vector(builder.insert_element(nothing, one, _INT(0)), nothing, spread)
                    builder.store(builder.call(fma, [many, lanes, builder.load(total)]), total)
            for i, total in enumerate(sums):
                place = vector(builder.gep(to, [builder.mul(c_i, _INDEX(i))]))
                with builder.if_else(add) as (more, new):
                    with more:
                        builder.store(builder.fadd(builder.load(total), builder.load(place, align=4)), place, align=4)
                    with new:
                        builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return signature, code

    return tile


_tall, _flat = _tile(HEIGHT), _tile(1)


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
    """Set `c[:n_rows, :n_columns]`, or add to it, to `a[:n_rows, :n_inner] @ b[:n_inner, :n_columns]`.

    `n_columns` is a multiple of `LANES`.
    """
    wide_a, wide_b, wide_c = a.shape[1], b.shape[1], c.shape[1]
    for j in range(0, n_columns, LANES):
        i = 0
        while i + HEIGHT <= n_rows:
            _tall(c, i * wide_c + j, wide_c, a, i * wide_a, wide_a, 1, b, j, wide_b, n_inner, add)
            i += HEIGHT
        while i < n_rows:
            _flat(c, i * wide_c + j, wide_c, a, i * wide_a, wide_a, 1, b, j, wide_b, n_inner, add)
            i += 1


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
    wide_a, wide_b, wide_c = a.shape[1], b.shape[1], c.shape[1]
    for j in range(0, n_columns, LANES):
        i = 0
        while i + HEIGHT <= n_rows:
            _tall(c, i * wide_c + j, wide_c, a, i, 1, wide_a, b, j, wide_b, n_inner, add)
            i += HEIGHT
        while i < n_rows:
            _flat(c, i * wide_c + j, wide_c, a, i, 1, wide_a, b, j, wide_b, n_inner, add)
            i += 1


@compiled
def transpose(to: NDArray[np.float32], matrix: NDArray[np.float32], n_rows: int, n_columns: int) -> None:
    """Set `to[:n_columns, :n_rows]` to `matrix[:n_rows, :n_columns].T`."""
    for i in range(n_rows):
        for j in range(n_columns):
            to[j, i] = matrix[i, j]


@intrinsic
def _prefetch(context, array, at):  # type: ignore[no-untyped-def]
    """Ask for the cache line that holds number `at` of an array."""

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
        line = builder.bitcast(builder.gep(pointer, [values[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [line.type, _INT, _INT, _INT])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [line, _INT(0), _INT(3), _INT(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@compiled
def prefetch_row(matrix: NDArray[np.float32], row: int) -> None:
    """Ask for a row of a matrix that will be needed soon."""
    width = matrix.shape[1]
    for at in range(row * width, (row + 1) * width, LANES):
        _prefetch(matrix, at)
