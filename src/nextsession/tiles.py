"""Small matrix products, exponentials and random bits, all in vector registers: what the kernels are made of.

A matrix here is a flat float32 array, the index of its first element, and its strides.  Its
columns are computed sixteen at a time, so the kernels keep their matrices in scratch whose rows are
a multiple of `LANES` wide.  The innermost product is written as machine vectors rather than left
to the compiler's judgement, since everything else the kernels do is small beside it.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from nextsession.compiled import compiled, compiled_allowing, compiled_fast

LANES = 16
"""Floats in a vector; the compiler splits it where the processor's are shorter."""

TALL = 6
"""Rows of a tile: with vectors of eight or of sixteen floats its sums fit into the registers."""

Floats = NDArray[np.float32]

_ONE, _HALF = np.float32(1), np.float32(0.5)
_COEFFICIENTS = tuple(np.float32(1 / n) for n in (6, 24, 120, 720, 5040))
_PER_OCTAVE = np.float32(1 / np.log(2))
_OCTAVE, _REST = np.float32(0.693359375), np.float32(np.log(2) - 0.693359375)  # the first is exact in 9 bits
_ROUNDER = np.float32(1.5 * 2**23)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_LOWEST, _HIGHEST = np.float32(-87.3), np.float32(88.7)  # beyond them float32 has no normal result

_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def _multiply_tile(
    context: Any, rows: Any, a: Any, a_start: Any, a_row: Any, a_step: Any, b: Any, b_start: Any, b_row: Any,
    c: Any, c_start: Any, c_row: Any, depth: Any, fresh: Any,
) -> Any:  # fmt: skip
    """Write `c[r, n] (+)= sum_k a[r, k] b[k, n]` for `rows` rows, a literal, and one vector of columns."""
    tall, at, add = rows.literal_value, types.intp, types.boolean
    signature = types.void(rows, a, at, at, at, b, at, at, c, at, at, at, add)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, a, a_start, a_row, a_step, b, b_start, b_row, c, c_start, c_row, depth, fresh = values
        kinds = signature.args
        a, b, c = (context.make_array(kinds[n])(context, builder, x).data for n, x in ((1, a), (5, b), (8, c)))
        operation = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        multiply_add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, operation, f"llvm.fmuladd.v{LANES}f32"
        )

        def vector_at(base: Any, at: Any) -> Any:
            return builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer())

        def row_of(start: Any, stride: Any, row: int) -> Any:
            return builder.add(start, builder.mul(stride, ir.Constant(depth.type, row)))

        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(tall)]  # type: ignore[no-untyped-call]
        for total in sums:
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
        a_rows = [row_of(a_start, a_row, row) for row in range(tall)]
        c_rows = [vector_at(c, row_of(c_start, c_row, row)) for row in range(tall)]
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.load(vector_at(b, builder.add(b_start, builder.mul(loop.index, b_row))), align=4)
            along = builder.mul(loop.index, a_step)
            for start, total in zip(a_rows, sums, strict=True):
                one = builder.load(builder.gep(a, [builder.add(start, along)]))
                first = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
                same = builder.shuffle_vector(first, undefined, everywhere)
                builder.store(builder.call(multiply_add, [same, line, builder.load(total)]), total)
        with builder.if_else(fresh) as (overwrite, add):
            with overwrite:
                for to, total in zip(c_rows, sums, strict=True):
                    builder.store(builder.load(total), to, align=4)
            with add:
                for to, total in zip(c_rows, sums, strict=True):
                    builder.store(builder.fadd(builder.load(to, align=4), builder.load(total)), to, align=4)
        return context.get_dummy_value()

    return signature, generate


_tile: Any = intrinsic(prefer_literal=True)(_multiply_tile)


@compiled
def multiply(
    a: Floats,
    a_start: int,
    a_row: int,
    a_step: int,
    b: Floats,
    b_start: int,
    b_row: int,
    c: Floats,
    c_start: int,
    c_row: int,
    rows: int,
    columns: int,
    depth: int,
    fresh: bool,
) -> None:
    """`c = a b`, or `c += a b` where not `fresh`; `a` is `(rows, depth)`, `b` `(depth, columns)`.

    Strides are in floats.  Columns come in whole vectors: both `b` and `c` need `columns` rounded up to `LANES`.
    """
    for row in range(0, rows, TALL):
        at, to, left = a_start + row * a_row, c_start + row * c_row, rows - row
        for n in range(0, columns, LANES):
            u, w = b_start + n, to + n
            if left >= 6:
                _tile(6, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)
            elif left == 5:
                _tile(5, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)
            elif left == 4:
                _tile(4, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)
            elif left == 3:
                _tile(3, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)
            elif left == 2:
                _tile(2, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)
            else:
                _tile(1, a, at, a_row, a_step, b, u, b_row, c, w, c_row, depth, fresh)


@compiled
def product(
    a: Floats,
    a_start: int,
    a_row: int,
    b: Floats,
    b_row: int,
    c: Floats,
    c_start: int,
    c_row: int,
    rows: int,
    columns: int,
    depth: int,
) -> None:
    """Compute `c = a b` as `multiply` does, of an `a` whose rows are contiguous and a `b` at the start of scratch."""
    multiply(a, a_start, a_row, 1, b, 0, b_row, c, c_start, c_row, rows, columns, depth, True)


def _read_as(given: Any, wanted: Any, bits: Any) -> Any:
    """Return an intrinsic that reads the bits of one type of number as another."""

    def read(context: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.bitcast(values[0], bits)

        return wanted(given), generate

    return intrinsic(read)


_as_float = _read_as(types.int32, types.float32, ir.FloatType())
_as_bits = _read_as(types.float32, types.int32, ir.IntType(32))


@compiled
def order(x: np.float32) -> np.int32:
    """Return an integer that compares as the float does, NaN highest: a maximum of integers runs in vectors."""
    bits = _as_bits(x)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & _MAGNITUDE))


@compiled
def ordered(place: np.int32) -> np.float32:
    """Return the float whose `order` is this."""
    number: np.float32 = _as_float(np.int32(place ^ np.int32(np.int32(place >> np.int32(31)) & _MAGNITUDE)))
    return number


@compiled_allowing("contract")  # to reorder the sums would undo the rounding
def exponential(x: np.float32) -> np.float32:
    """Return `exp(x)` to the last bit or so, within `exp(-87.3)` and `exp(88.7)`; loops over it run in vectors."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    octaves = x * _PER_OCTAVE + _ROUNDER - _ROUNDER
    r = x - octaves * _OCTAVE - octaves * _REST
    a, b, c, d, e = _COEFFICIENTS
    series = ((((e * r + d) * r + c) * r + b) * r + a) * r + _HALF
    scale = _as_float(np.int32(np.int32(np.int32(octaves) + np.int32(127)) << np.int32(23)))
    value: np.float32 = (series * r * r + r + _ONE) * scale
    return value


@compiled
def key_of(seed: int, stream: int) -> tuple[np.uint32, np.uint32]:
    """Return the key of one of a seed's streams of random bits (SplitMix64, Steele et al., OOPSLA 2014)."""
    x = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(stream + 1)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.uint32(x >> np.uint64(32)), np.uint32(x & np.uint64(0xFFFFFFFF))


@compiled
def bits_at(key: tuple[np.uint32, np.uint32], at: np.uint32) -> np.uint32:
    """Return the 32 random bits at a place of a stream, in any order and as often as asked.

    Two rounds of multiply and shift (constants of C. Wellons' "lowbias32"), with half of the key before each.
    """
    first, second = key
    x = np.uint32(at * np.uint32(0x9E3779B9)) + first
    x = np.uint32(np.uint32(x ^ np.uint32(np.uint32(x) >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ second)
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@compiled
def wide(columns: int) -> int:
    """Return the stride of scratch rows of so many columns: whole vectors, an odd number of them.

    Rows whose stride is a power of two would meet in few sets of the cache.
    """
    return ((columns + LANES - 1) // LANES | 1) * LANES


@compiled
def scratch(floats: int) -> Floats:
    """Return zeros that begin at a cache line."""
    room = np.zeros(floats + LANES, np.float32)
    start = (-room.ctypes.data % (4 * LANES)) // 4
    return room[start : start + floats]


@compiled
def copied(x: Floats, start: int, x_row: int, rows: int, columns: int, to: Floats, to_row: int) -> None:
    """Copy a matrix to the start of scratch, and zeros up to whole vectors of columns."""
    whole = (columns + LANES - 1) // LANES * LANES
    for row in range(rows):
        source, line = x[start + row * x_row :][:columns], to[row * to_row :][:whole]
        for n in range(columns):
            line[n] = source[n]
        for n in range(columns, whole):
            line[n] = 0


def _transpose_tile(
    context: Any, a: Any, a_start: Any, a_row: Any, rows: Any, to: Any, to_start: Any, to_row: Any
) -> Any:
    """Write a square of `LANES` by `LANES` across; its rows from `rows` on repeat the last."""
    signature = types.void(a, types.intp, types.intp, types.intp, to, types.intp, types.intp)
    places, half = ir.VectorType(ir.IntType(32), LANES), LANES // 2
    turns = [lane // 2 + lane % 2 * LANES for lane in range(LANES)]  # a lane of one vector, then one of the other
    first_halves, last_halves = (ir.Constant(places, [turn + by for turn in turns]) for by in (0, half))

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, a_start, a_row, rows, to, to_start, to_row = values
        a, to = (context.make_array(signature.args[n])(context, builder, x).data for n, x in ((0, a), (4, to)))
        last = builder.sub(rows, ir.Constant(rows.type, 1))

        def vector_at(base: Any, start: Any, row: Any, stride: Any) -> Any:
            at = builder.add(start, builder.mul(stride, row))
            return builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer())

        lines = []
        for lane in range(LANES):
            row = ir.Constant(rows.type, lane)
            row = builder.select(builder.icmp_signed("<", row, rows), row, last)
            lines.append(builder.load(vector_at(a, a_start, row, a_row), align=4))
        for _ in range(LANES.bit_length() - 1):  # to interleave the halves log2(LANES) times is to transpose
            pairs = list(zip(lines[:half], lines[half:], strict=True))
            lines = [builder.shuffle_vector(*pair, mask) for pair in pairs for mask in (first_halves, last_halves)]
        for lane, line in enumerate(lines):
            builder.store(line, vector_at(to, to_start, ir.Constant(rows.type, lane), to_row), align=4)
        return context.get_dummy_value()

    return signature, generate


_across: Any = intrinsic(_transpose_tile)


@compiled
def transposed(x: Floats, start: int, x_row: int, rows: int, columns: int, to: Floats, to_row: int) -> None:
    """Copy a matrix `(rows, columns)` to scratch as `(columns, rows)`; its last vectors are filled up with anything."""
    for row in range(0, rows, LANES):
        tall, at = min(LANES, rows - row), start + row * x_row
        if columns < LANES:
            for n in range(columns):
                for r in range(tall):
                    to[n * to_row + row + r] = x[at + r * x_row + n]
        else:
            for n in range(0, columns, LANES):
                left = min(n, columns - LANES)  # the last square overlaps the one before
                _across(x, at + left, x_row, tall, to, left * to_row + row, to_row)


@compiled_fast
def dot(a: Floats, b: Floats, at: int, floats: int) -> np.float32:
    """Return the scalar product of the same stretch of two arrays."""
    left, right, total = a[at : at + floats], b[at : at + floats], np.float32(0)
    for n in range(floats):
        total += left[n] * right[n]
    return total


@compiled_fast
def add_line(to: Floats, to_at: int, x: Floats, at: int, floats: int) -> None:
    """Add a stretch of one array to one of another."""
    line, source = to[to_at : to_at + floats], x[at : at + floats]
    for n in range(floats):
        line[n] += source[n]


@compiled_fast
def put_line(to: Floats, to_at: int, x: Floats, at: int, floats: int, factor: np.float32) -> None:
    """Write a stretch of one array, multiplied, to one of another."""
    line, source = to[to_at : to_at + floats], x[at : at + floats]
    for n in range(floats):
        line[n] = source[n] * factor


@compiled
def zero_line(s: Floats, start: int, stop: int) -> None:
    """Set a stretch of an array to zero."""
    line = s[start:stop]
    for n in range(len(line)):
        line[n] = 0
